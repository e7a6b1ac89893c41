"""The pixels of an image that Pillow opened, as uint8 [H, W, 3], by strips: a large panorama is in memory twice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, TiffImagePlugin

from panollava.views.error import PanoramaError

Pixels = NDArray[np.uint8]

_ROWS_AT_ONCE = 256
_DEEPEST = 65535
_PHOTOMETRIC, _WHITE_IS_ZERO = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0
_NOT_CONVERTED = ("LAB", "HSV")


def rgb_pixels(image: Image.Image, name: str | Path, cmyk_to_srgb: ImageCms.ImageCmsTransform | None = None) -> Pixels:
    """8-bit RGB of grey, palette, alpha (dropped), CMYK and 16 bits. Raises PanoramaError for other depths.

    `cmyk_to_srgb` converts a CMYK image by its profile. Pillow's own errors speak of damage.
    """
    image.load()
    if image.mode == "F":
        found = "floating-point pixels, 8 or 16 bits a channel are read: `magick FILE -auto-level -depth 16 FILE.png`"
        raise PanoramaError(name, "not an image", found)
    if image.mode in _NOT_CONVERTED:
        found = f"{image.mode} colours, RGB, grey and CMYK are read: `magick FILE -colorspace sRGB FILE.png`"
        raise PanoramaError(name, "not an image", found)
    deep = image.mode.startswith("I")  # more than 8 bits of grey; convert("RGB") would clip them
    if deep and image.mode == "I":
        least, most = image.getextrema()
        if least < 0 or most > _DEEPEST:  # type: ignore[operator]
            found = f"pixel values from {least} to {most}, expected 8 or 16 bits a channel"
            raise PanoramaError(name, "not an image", found)
    # Pillow itself turns such TIFFs with 8 bits over, not those with 16.
    white_is_zero = deep and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows, strip in _strips(image):
        if deep:
            grey = np.asarray(strip).astype(np.int64)
            grey = _DEEPEST - grey if white_is_zero else grey
            pixels[rows] = ((grey * 255 + _DEEPEST // 2) // _DEEPEST)[..., None]
        elif cmyk_to_srgb is not None:
            pixels[rows] = np.asarray(cmyk_to_srgb.apply(strip))
        else:
            clear = strip.mode == "P" and "transparency" in image.info
            pixels[rows] = np.asarray((strip.convert("RGBA") if clear else strip).convert("RGB"))
    return pixels


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    for start in range(0, image.height, _ROWS_AT_ONCE):
        end = min(image.height, start + _ROWS_AT_ONCE)
        yield slice(start, end), image.crop((0, start, image.width, end))


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels [h, w, 3] turned by an EXIF orientation, 1 to 8; as they are for what is none."""
    turn = {
        2: lambda rows: rows[:, ::-1],
        3: lambda rows: rows[::-1, ::-1],
        4: lambda rows: rows[::-1],
        5: lambda rows: rows.swapaxes(0, 1),
        6: lambda rows: np.rot90(rows, -1),
        7: lambda rows: rows[::-1, ::-1].swapaxes(0, 1),
        8: lambda rows: np.rot90(rows),
    }.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))
