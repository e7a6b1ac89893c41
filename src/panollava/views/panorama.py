"""Read an image file as an upright equirectangular panorama, uint8 [H, W, 3] sRGB, or raise an error with the reason.

JPEGs are decoded by libjpeg-turbo, at an eighth to a half of their size where the views need no more (half of the
whole path is decoding). Everything else, and every JPEG that libjpeg-turbo finds odd, goes through Pillow. Orientation
(EXIF), colours (ICC) and the place on the sphere (GPano XMP) are what the file says they are. A damaged file is an
error, never a half-grey picture; so is an animation, of which no frame is *the* picture. Files come from strangers:
sizes are limited before anything is decoded.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageCms import ImageCmsTransform

from panollava.errors import FileChanged
from panollava.logs import LOGGER
from panollava.views import jpeg2000
from panollava.views.code_points import code_points, display_p3_profile
from panollava.views.colour import ProfileError, srgb_transform, to_srgb
from panollava.views.error import PanoramaError as PanoramaError
from panollava.views.fisheye import camera_of, shows_two_discs, stitcher_of_frame, stitcher_of_raw
from panollava.views.gpano import Crop, GPano, GPanoError, read_gpano
from panollava.views.image_formats import choose_picture, known_formats, refuse_unidentified_tiff, refuse_unread_formats
from panollava.views.pillow_pixels import rgb_pixels, upright
from panollava.views.sphere import Placement, lay_on_sphere

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

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"II*\x00", b"MM\x00*", b"GIF8", b"BM")
_ORIENTATION_TAG = 0x0112
_SIDES_SWAPPED = (5, 6, 7, 8)
_COLOUR_MODES = {"L": "L", "LA": "L", "1": "L", "CMYK": "CMYK"}
"""Whose ICC profiles fit images of a Pillow mode; RGB for the others."""

Image.MAX_IMAGE_PIXELS = 2 * MAX_PIXELS  # Pillow's own guard, which counts in parts of a file too: ours answers first
# What Pillow finds odd in a file is either an error here or of no interest.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True)
class Panorama:
    """The full, upright panorama uint8 [H, W, 3], and where the file's picture lies in it."""

    pixels: Pixels
    placement: Placement


def load_panorama(
    path: str | Path,
    min_width: int | None = None,
    to_the_end: bool = False,
    *,
    level: str = "auto",
    north: bool = False,
) -> Pixels:
    """Decode a panorama to uint8 [H, W, 3] RGB, turned upright by its EXIF orientation and laid on the sphere.

    With `min_width` a JPEG may come at 1/2, 3/8, 1/4 or 1/8 of its size, as long as it stays that wide and the scale
    divides it exactly (so that no direction moves), and a progressive one without a last scan that would change less
    than a grey level; `to_the_end` reads that too, to find damage. Grey, palette, alpha (dropped), CMYK and 16 bits
    become 8-bit sRGB. By its GPano XMP a partial panorama is laid into the full one (grey where it does not cover it);
    `level="auto"` takes the camera's pitch and roll out, "off" does not; `north` turns north into the middle.
    Raises PanoramaError.
    """
    return decode_panorama(read_image(path), path, min_width, to_the_end, level=level, north=north)


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


def read_planned(path: str | Path, sha256: str | None) -> tuple[bytes, str]:
    """The bytes of an image file and their SHA-256. Raises FileChanged where it is not `sha256`, PanoramaError."""
    try:
        content = read_image(path)
    except PanoramaError as error:
        if sha256 is not None and error.reason == "image missing":
            raise FileChanged(path, "was removed") from error
        raise
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise FileChanged(path)
    return content, found


def decode_panorama(
    content: bytes,
    name: str | Path,
    min_width: int | None = None,
    to_the_end: bool = False,
    *,
    level: str = "auto",
    north: bool = False,
) -> Pixels:
    """`load_panorama` for a file's content; `name` is used in errors."""
    return place_panorama(content, name, min_width, to_the_end, level=level, north=north).pixels


def place_panorama(
    content: bytes,
    name: str | Path,
    min_width: int | None = None,
    to_the_end: bool = False,
    *,
    level: str = "auto",
    north: bool = False,
) -> Panorama:
    """`decode_panorama`, and what of the sphere the file's picture covers."""
    with _opened(content, name) as image:
        return _place(image, content, name, min_width, to_the_end, level, north)


def load_picture(path: str | Path) -> Pixels:
    """A picture that is no panorama yet (a photograph, a cube's face, a frame) as upright uint8 [H, W, 3] sRGB.

    Formats, depths, orientation and colours are read as of panoramas; its GPano metadata are not. Raises PanoramaError.
    """
    content = read_image(path)
    with _opened(content, path) as image:
        return _decode(_Picture(image, content, image.getexif()), 8, True, path)


@contextmanager
def _opened(content: bytes, name: str | Path) -> Iterator[Image.Image]:
    """A file's one picture; what Pillow and the metadata raise meanwhile becomes PanoramaError."""
    if not content:
        raise PanoramaError(name, "truncated", "the file is empty")
    refuse_unread_formats(content, name)
    with _explained(name, content), Image.open(io.BytesIO(content), formats=known_formats()) as image:
        _refuse_size(image.size, name)
        choose_picture(image, name)
        yield image


def place_image(
    image: Image.Image | Pixels, name: str = "image", *, level: str = "auto", north: bool = False
) -> Panorama:
    """`place_panorama` for a picture in memory: one of Pillow, by the metadata that it carries, or an array [H, W, 3].

    Raises PanoramaError, and TypeError or ValueError for an array that is no uint8 [H, W, 3].
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"a panorama as an array is uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
        image = Image.fromarray(image)
    with _explained(name, b""):
        _refuse_size(image.size, name)
        return _place(image, b"", name, None, True, level, north)


def _place(
    image: Image.Image,
    content: bytes,
    name: str | Path,
    min_width: int | None,
    to_the_end: bool,
    level: str,
    north: bool,
) -> Panorama:
    """An opened picture laid on the sphere. Without `content` Pillow decodes it, whatever it is."""
    file = _describe(image, content, name)
    picture = _decode(file, _eighths(file, min_width), to_the_end, name)
    if file.maybe_raw_of is not None and shows_two_discs(picture):
        _refuse_frame(file.exif, file.maybe_raw_of, name)
    placement = Placement(file.crop.scaled(picture.shape[1], file.crop.width), file.gpano.pose().wanted(level, north))
    return Panorama(picture if placement.untouched else lay_on_sphere(picture, placement, min_width), placement)


@contextmanager
def _explained(name: str | Path, content: bytes) -> Iterator[None]:
    """What Pillow and the metadata raise, as PanoramaError."""
    try:
        yield
    except GPanoError as error:
        raise PanoramaError(name, error.reason, str(error)) from error
    except Image.DecompressionBombError as error:
        raise PanoramaError(name, "not an image", f"a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        refuse_unidentified_tiff(content, name)
        # A cut in the header already hides the format from Pillow: the first bytes still tell.
        reason = "truncated" if content.startswith(_SIGNATURES) else "not an image"
        raise PanoramaError(name, reason, f"it begins with {content[:8]!r}", shows_content=True) from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
        # Pillow's decoders speak of an early end, and of damage, in all these classes.
        raise PanoramaError(name, "truncated", str(error), shows_content=True) from error


def warn_if_unstitched(pixels: Pixels, name: str | Path) -> None:
    """Warn where a panorama looks like an unstitched frame that has no other sign of it."""
    if shows_two_discs(pixels):
        LOGGER.warning(
            "%s: two bright discs on black: is it an unstitched dual-fisheye frame? Then stitch it with the camera's "
            "software, or `panollava prepare --from dual_fisheye`",
            name,
        )


@dataclass(frozen=True)
class _Picture:
    """An opened image file before its pixels are decoded."""

    image: Image.Image
    content: bytes
    exif: Image.Exif

    @property
    def turbo(self) -> bool:
        """Whether libjpeg-turbo decodes it."""
        return bool(self.content) and self.image.format == "JPEG" and self.image.mode in ("RGB", "L")


@dataclass(frozen=True)
class _File(_Picture):
    """One of a panorama, with what it says of its place on the sphere; `crop` is of the upright picture.

    `maybe_raw_of` names the stitcher of a camera whose raw files are unstitched frames, where nothing says that this
    file is none.
    """

    gpano: GPano
    crop: Crop
    maybe_raw_of: str | None


def _describe(image: Image.Image, content: bytes, name: str | Path) -> _File:
    """Raises PanoramaError for what is no panorama, GPanoError for metadata that cannot be followed."""
    exif = image.getexif()
    width, height = image.size
    if exif.get(_ORIENTATION_TAG) in _SIDES_SWAPPED and image.format != "TIFF":  # Pillow's TIFFs have upright sizes
        width, height = height, width
    gpano = read_gpano(image, content)
    gpano.refuse_projection()
    crop = gpano.crop(width, height)
    if abs(crop.full_width - 2 * crop.full_height) > ASPECT_TOLERANCE * crop.full_height:
        placed = "" if crop.whole else f", by its GPano metadata a part of {crop.full_width} x {crop.full_height}"
        raise PanoramaError(name, "not about 2:1", f"{width} x {height} pixels{placed}")
    _refuse_size((crop.full_width, crop.full_height), name)
    if gpano.says_equirectangular:
        return _File(image, content, exif, gpano, crop, None)
    if (stitcher := stitcher_of_frame(exif)) is not None:
        _refuse_frame(exif, stitcher, name)
    return _File(image, content, exif, gpano, crop, stitcher_of_raw(exif))


def _refuse_size(size: tuple[int, int], name: str | Path) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise PanoramaError(name, "not an image", f"{width} x {height} pixels, at most {MAX_PIXELS} are decoded")


def _refuse_frame(exif: Image.Exif, stitcher: str, name: str | Path) -> NoReturn:
    raise PanoramaError(
        name,
        "not equirectangular",
        f"an unstitched dual-fisheye frame of a {camera_of(exif)}. Stitch it with {stitcher}, or convert it with "
        "`panollava prepare --from dual_fisheye`. If it is a panorama, say so in it: `exiftool "
        "-XMP-GPano:ProjectionType=equirectangular FILE`",
    )


def _eighths(file: _File, min_width: int | None) -> int:
    """The smallest scale that divides a JPEG's size, and its place on the sphere, and leaves it wide enough."""
    if min_width is None or not file.turbo:
        return 8
    wide_enough = (n for n in _SCALES if file.crop.full_width * n >= 8 * min_width)
    return next((n for n in wide_enough if file.crop.divides(n, 8)), 8)


def _decode(file: _Picture, eighths: int, to_the_end: bool, name: str | Path) -> Pixels:
    """The upright picture in sRGB. A JPEG may come at so many eighths of its size."""
    image = file.image
    mode = _COLOUR_MODES.get(image.mode, "L" if image.mode.startswith("I") else "RGB")
    to_srgb_transform = _transform(_profile(file, mode, name), mode, name)
    pixels = None
    if file.turbo:
        whole = to_the_end or eighths == 8
        content = file.content if whole else _without_last_bits(image, file.content, eighths)
        pixels = _decode_jpeg(content, name, image.size, eighths)
    if pixels is None:
        pixels = rgb_pixels(image, name, to_srgb_transform if mode == "CMYK" else None)
    if to_srgb_transform is not None and mode != "CMYK":
        pixels = to_srgb(pixels, to_srgb_transform, mode)
    # Pillow turns TIFFs itself as it decodes them.
    return pixels if image.format == "TIFF" else upright(pixels, file.exif.get(_ORIENTATION_TAG, 1))


def _profile(file: _Picture, mode: str, name: str | Path) -> bytes | None:
    """The file's ICC profile, or that of colours stated by number; a warning where those are not converted."""
    if file.content.startswith(jpeg2000.STARTS):
        return jpeg2000.icc_profile(file.content)
    profile: bytes | None = file.image.info.get("icc_profile")
    stated = None if profile or mode != "RGB" else code_points(file.content)
    if stated is None or stated.srgb:
        return profile
    if stated.display_p3:
        return display_p3_profile()
    LOGGER.warning("%s: its colours (%s) are not converted, its pixels are taken for sRGB", name, stated)
    return None


def _transform(profile: bytes | None, mode: str, name: str | Path) -> ImageCmsTransform | None:
    """What brings an image's colours to sRGB; None where nothing does, with a warning where its profile is no use."""
    if not profile:
        return None
    try:
        return srgb_transform(profile, mode)
    except ProfileError as error:
        LOGGER.warning("%s: its ICC profile is not used, its pixels are taken for sRGB: %s", name, error)
        return None


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
            raise PanoramaError(name, "truncated", str(error), shows_content=True) from error
        return None
    return pixels
