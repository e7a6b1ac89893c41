"""An image file enters; an upright equirectangular panorama leaves, uint8 [H, W, 3] RGB, or an error with its reason.

JPEGs are decoded by libjpeg-turbo, at an eighth to a half of their size where the views need no more (half of the
whole path is decoding). Everything else, and every JPEG that libjpeg-turbo finds odd, goes through Pillow. A damaged
file is an error, never a half-grey picture; so is an animation, of which no frame is *the* picture. Files come from
strangers: sizes are limited before anything is decoded, and only formats of photographs are opened (for some others
Pillow would start a foreign program).
"""

from __future__ import annotations

import io
import math
import os
import struct
import warnings
from functools import lru_cache
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from panollava.errors import DataError

Pixels = NDArray[np.uint8]

ASPECT_TOLERANCE = 0.04
"""A panorama is about 2:1 when |W / H - 2| is at most this."""
MAX_BYTES = 2**29
"""The largest image file that is read: 512 MiB."""
MAX_PIXELS = 2**28
"""The largest panorama that is decoded: 268 million pixels, for instance 23,000 x 11,500."""

_SCALES = (1, 2, 3, 4, 8)
"""Eighths of a JPEG's size at which it may be decoded. At 5, 6 and 7 libjpeg-turbo is slower than at full size."""
_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
_LAST_BIT = b"\x01\x3f\x10"
"""Of a progressive scan: coefficients 1 to 63, whose bit 1 is known and whose bit 0 follows."""
_LAST_BIT_LEVELS = 1.0

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\x00", b"MM\x00*", b"GIF8", b"BM")
_ORIENTATION_TAG = 0x0112
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Image.MAX_IMAGE_PIXELS = 2 * MAX_PIXELS  # Pillow's own guard, which counts in parts of a file too: ours answers first
# What Pillow finds odd in a file is either an error here or of no interest.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PanoramaError(DataError):
    """A panorama cannot be used.

    `reason` is one of "image missing", "truncated", "not an image", "not about 2:1"; `detail` says what was found.
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{path}: {reason}" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[PanoramaError], tuple[str, str, str]]:
        path = str(self).split(f": {self.reason}", 1)[0]
        return PanoramaError, (path, self.reason, self.detail)  # it may come back from another process


def load_panorama(path: str | Path, min_width: int | None = None, to_the_end: bool = False) -> Pixels:
    """Decode a panorama to uint8 [H, W, 3] RGB, turned upright by its EXIF orientation.

    With `min_width` a JPEG may come at 1/2, 3/8, 1/4 or 1/8 of its size, as long as it stays that wide and the scale
    divides it exactly (so that no direction moves), and a progressive one without a last scan that would change less
    than a grey level; `to_the_end` reads that too, to find damage. Grey, palette, alpha (dropped), CMYK and 16 bits
    become 8-bit RGB. Raises PanoramaError.
    """
    return decode_panorama(read_image(path), path, min_width, to_the_end)


def read_image(path: str | Path) -> bytes:
    """The bytes of an image file. Raises PanoramaError where there is none, or one of more than MAX_BYTES."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if size > MAX_BYTES:
                raise PanoramaError(path, "not an image", f"{size} bytes, at most {MAX_BYTES} are read")
            return stream.read(size)  # without its size, Python makes room for MAX_BYTES first
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise PanoramaError(path, "image missing", getattr(error, "strerror", None) or str(error)) from error


def decode_panorama(content: bytes, name: str | Path, min_width: int | None = None, to_the_end: bool = False) -> Pixels:
    """`load_panorama` for a file's content; `name` stands in errors."""
    if not content:
        raise PanoramaError(name, "truncated", "the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=_known_formats()) as image:
            _refuse_size_and_frames(image, name)
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            width, height = image.size if orientation not in (5, 6, 7, 8) else image.size[::-1]
            if abs(width - 2 * height) > ASPECT_TOLERANCE * height:
                raise PanoramaError(name, "not about 2:1", f"{width} x {height} pixels")
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                eighths = _eighths(image.size, width, min_width)
                whole = to_the_end or eighths == 8
                pixels = _decode_jpeg(
                    content if whole else _without_last_bits(image, content, eighths), name, image.size, eighths
                )
                if pixels is not None:
                    return _upright(pixels, orientation)
            return _upright(_decode_with_pillow(image, name), orientation)
    except Image.DecompressionBombError as error:
        raise PanoramaError(name, "not an image", f"a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        # A cut in the header already hides the format from Pillow: the first bytes still tell.
        reason = "truncated" if content.startswith(_SIGNATURES) else "not an image"
        raise PanoramaError(name, reason, f"it begins with {content[:8]!r}") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        # Pillow's decoders speak of an early end, and of damage, in all these classes.
        raise PanoramaError(name, "truncated", str(error)) from error


@lru_cache(maxsize=1)
def _known_formats() -> tuple[str, ...]:
    """The formats of `_FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _refuse_size_and_frames(image: Image.Image, name: str | Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PanoramaError(name, "not an image", f"{width} x {height} pixels, at most {MAX_PIXELS} are decoded")
    # MPO is a JPEG with further pictures behind it (a preview, a gain map): the first one is the photograph.
    frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if frames > 1:
        raise PanoramaError(name, "not an image", f"{frames} frames or pages, expected one picture")


def _eighths(size: tuple[int, int], upright_width: int, min_width: int | None) -> int:
    """The smallest scale that divides a JPEG's size exactly and leaves it wide enough."""
    if min_width is None:
        return 8
    return next(n for n in _SCALES if n == 8 or _fits(n, size, upright_width, min_width))


def _without_last_bits(image: Image.Image, content: bytes, eighths: int) -> bytes:
    """A whole progressive JPEG without its last scan, if that is the last bit of the brightness's AC coefficients.

    It is a third of the work (measured: 116 -> 82 ms for 5376 x 2688 at 3/8). Missing, it changes a coefficient by less
    than its quantization step q, so that the pixels' error has a root mean square of at most sqrt(sum(q^2) / 3) / 8
    over the coefficients that count at the scale: where that exceeds a grey level, the scan stays.
    """
    start = content.rfind(_START_OF_SCAN)
    one_component = content[start + 2 : start + 5] == b"\x00\x08\x01"
    refines = one_component and content[start + 7 : start + 10] == _LAST_BIT
    if not image.info.get("progressive") or not refines or content.rfind(_END_OF_IMAGE) < start:
        return content
    layers, tables = getattr(image, "layer", []), getattr(image, "quantization", {})
    if not layers or content[start + 5] != layers[0][0]:
        return content
    steps = np.reshape(tables[layers[0][3]], (8, 8))[:eighths, :eighths].astype(np.float64)
    steps[0, 0] = 0
    if math.sqrt((steps**2).sum() / 3) / 8 > _LAST_BIT_LEVELS:
        return content
    return content[:start] + _END_OF_IMAGE


def _decode_jpeg(content: bytes, name: str | Path, size: tuple[int, int], eighths: int) -> Pixels | None:
    """RGB pixels of a sound JPEG, None where libjpeg-turbo complains of anything but a missing end."""
    width, height = (side * eighths // 8 for side in size)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", min_height=height, min_width=width)
    except ValueError as error:
        if any(sign in str(error).lower() for sign in ("premature end", "huffman")):  # Pillow would fill in grey
            raise PanoramaError(name, "truncated", str(error)) from error
        return None
    return pixels


def _fits(eighths: int, size: tuple[int, int], upright_width: int, min_width: int) -> bool:
    return upright_width * eighths >= 8 * min_width and all(side * eighths % 8 == 0 for side in size)


def _decode_with_pillow(image: Image.Image, name: str | Path) -> Pixels:
    if image.mode.startswith("I"):  # 16 bits of grey; convert("RGB") would clip them
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            found = f"pixel values from {grey.min()} to {grey.max()}, expected 8 or 16 bits a channel"
            raise PanoramaError(name, "not an image", found)
        return np.repeat(((grey * 255 + 32767) // 65535).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise PanoramaError(name, "not an image", "floating-point pixels, expected 8 or 16 bits a channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation not in _TRANSPOSED:
        return pixels
    return np.array(Image.fromarray(pixels).transpose(_TRANSPOSED[orientation]))
