"""Embedded ICC profiles: pixels become sRGB, which is what vision encoders were trained on.

A profile that says sRGB in its own way (no colour moves by more than rounding) changes nothing.
"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[np.uint8]

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_ROUNDING = 2
_ROWS_AT_ONCE = 256
_STEPS = 9


class ProfileError(ValueError):
    """An ICC profile that cannot be used."""


def to_srgb(pixels: Pixels, transform: ImageCms.ImageCmsTransform, mode: str) -> Pixels:
    """sRGB [H, W, 3] of pixels [H, W, 3]; of mode "L" their three channels are equal."""
    converted = np.empty_like(pixels)
    for start in range(0, len(pixels), _ROWS_AT_ONCE):  # by strips: no second copy of a large panorama
        rows = pixels[start : start + _ROWS_AT_ONCE]
        strip = Image.fromarray(np.ascontiguousarray(rows[..., 0] if mode == "L" else rows))
        converted[start : start + _ROWS_AT_ONCE] = np.asarray(transform.apply(strip))
    return converted


@lru_cache(maxsize=8)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colours to sRGB, perceptually, for pixels of a Pillow mode: RGB, L or CMYK.

    None where the profile is sRGB's, so that no colour moves. Raises ProfileError.
    """
    if _MODES.get(profile[16:20]) != mode:
        described = profile[16:20].decode("latin-1").strip()
        raise ProfileError(f"it describes {described!r} pixels, the image has {mode}")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        raise ProfileError(str(error)) from error
    if mode == "CMYK":
        return transform
    steps = np.linspace(0, 255, _STEPS).astype(np.uint8)
    if mode == "RGB":
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        expected = colours
    else:
        colours = steps[None]
        expected = np.repeat(colours[..., None], 3, axis=-1)
    found = np.asarray(transform.apply(Image.fromarray(colours)))
    return None if np.abs(found.astype(int) - expected).max() <= _ROUNDING else transform
