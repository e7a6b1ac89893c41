"""Which image files are read, and what is said of those that are not: the format or depth by name, and the conversion.

Only formats of photographs are opened (for some others Pillow would start a foreign program). HEIC needs the extra
`heic` (pillow-heif).
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from pathlib import Path

from PIL import Image, TiffImagePlugin

from panollava.views.error import PanoramaError

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
READ = "JPEG, PNG, WebP, TIFF, AVIF, BMP, JPEG 2000, GIF and PPM are read, and HEIC with the extra heic"

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_NOT_READ: dict[bytes, tuple[str, str]] = {
    b"\xff\x0a": ("JPEG XL", "`djxl FILE FILE.png` converts it"),
    b"\0\0\0\x0cJXL \r\n\x87\n": ("JPEG XL", "`djxl FILE FILE.png` converts it"),
    b"\x76\x2f\x31\x01": ("OpenEXR", "tone-map it to 8 bits, for instance with `oiiotool FILE -o FILE.png`"),
    b"#?RADIANCE": ("Radiance HDR", "tone-map it to 8 bits, for instance with `oiiotool FILE -o FILE.png`"),
    b"#?RGBE": ("Radiance HDR", "tone-map it to 8 bits, for instance with `oiiotool FILE -o FILE.png`"),
    b"8BPS": ("Photoshop", "`magick FILE[0] FILE.png` converts it"),
    b"\x1aE\xdf\xa3": ("Matroska or WebM video", "`ffmpeg -i FILE -frames:v 1 FILE.png` takes its first frame"),
    b"%PDF": ("PDF", "export the picture in it"),
    b"II\x55\0": ("Panasonic raw", "develop it to JPEG or TIFF first"),
}
_JPEG_FRAMES = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "lossless", 0xCB: "lossless",
    0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "lossless",
}  # fmt: skip
_SAMPLE_FORMAT, _BITS, _SUBFILE = 339, 258, 254
_REDUCED_OR_MASK = 1 | 4


@lru_cache(maxsize=1)
def known_formats() -> tuple[str, ...]:
    """The formats that are read, as far as this Pillow was built with them."""
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return tuple(name for name in _FORMATS if name in Image.OPEN)
    register_heif_opener()
    return tuple(name for name in (*_FORMATS, "HEIF") if name in Image.OPEN)


def refuse_unread_formats(content: bytes, name: str | Path) -> None:
    """Raises PanoramaError for pictures in formats and depths that are known and not read."""
    for start, (kind, remedy) in _NOT_READ.items():
        if content.startswith(start):
            raise PanoramaError(name, "not an image", f"{kind}; {READ}: {remedy}")
    if content[4:8] == b"ftyp":
        _refuse_containers(content, name)
    elif content.startswith(b"\xff\xd8\xff"):
        _refuse_jpegs(content, name)
    elif content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        _refuse_tiffs(content, name)


def _refuse_containers(content: bytes, name: str | Path) -> None:
    """HEIC, AVIF and films share one container, and name what they are in its first box."""
    length = min(int.from_bytes(content[:4], "big"), 512)
    brands = {content[place : place + 4] for place in (8, *range(16, length, 4))}
    if brands & set(_AVIF_BRANDS):
        if "AVIF" not in known_formats():
            remedy = "`avifdec FILE FILE.png` converts it, or install a Pillow that has AVIF (11.3 or later)"
            raise PanoramaError(name, "not an image", f"AVIF, which this Pillow was built without: {remedy}")
    elif brands & set(_HEIC_BRANDS):
        if "HEIF" not in known_formats():
            raise PanoramaError(
                name,
                "not an image",
                "HEIC, which needs the extra heic: `pip install -e '.[heic]'` (pillow-heif), or convert it: "
                "`heif-convert FILE FILE.jpg`",
            )
    else:
        kind = content[8:12].decode("latin-1").strip()
        remedy = "`ffmpeg -i FILE -frames:v 1 FILE.png` takes a film's first frame"
        raise PanoramaError(name, "not an image", f"an MP4 or QuickTime file ({kind}); {READ}: {remedy}")


def _refuse_jpegs(content: bytes, name: str | Path) -> None:
    place = 2
    while place + 9 < len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth = content[place + 4]
            kind = _JPEG_FRAMES.get(marker) or (f"{depth}-bit" if depth != 8 else "")
            if kind:
                raise PanoramaError(
                    name,
                    "not an image",
                    f"a {kind} JPEG, only 8-bit baseline and progressive ones are read: `magick FILE -depth 8 "
                    "FILE.png` converts it",
                )
            return
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")


def _refuse_tiffs(content: bytes, name: str | Path) -> None:
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if b"+" in content[:4] else 8])
        stream = io.BytesIO(content)
        stream.seek(directory.next)
        directory.load(stream)
        formats, bits = directory.get(_SAMPLE_FORMAT, (1,)), directory.get(_BITS, (1,))
    except (SyntaxError, OSError, ValueError, TypeError, KeyError, struct.error, IndexError):
        return  # decoding says what is wrong with it
    formats, bits = (values if isinstance(values, tuple) else (values,) for values in (formats, bits))
    depth = max((value for value in bits if isinstance(value, int)), default=1)
    found = None
    if any(value == 3 for value in formats):
        found = f"a TIFF with {depth}-bit floating-point pixels"
    elif depth > 32 or (depth > 16 and len(bits) > 1) or any(value in (5, 6) for value in formats):
        found = f"a TIFF with {depth} bits a channel"
    if found:
        raise PanoramaError(
            name,
            "not an image",
            f"{found}, 8 or 16 bits are read. Bring its values into [0, 1] (tone-map it) and save it with 16 bits: "
            "`magick FILE -auto-level -depth 16 FILE.png`",
        )


def choose_picture(image: Image.Image, name: str | Path) -> None:
    """Go to the one picture of a file. Raises PanoramaError where it has several: none of them is *the* picture.

    An MPO is a JPEG with further pictures behind it (a preview, a gain map): the first one is the photograph. Of a
    TIFF's pages those that say they are a reduced copy or a mask (NewSubfileType) do not count.
    """
    pages = 1 if image.format in ("MPO", "HEIF") else getattr(image, "n_frames", 1)
    if pages > 1 and isinstance(image, TiffImagePlugin.TiffImageFile):
        full = []
        for page in range(pages):
            image.seek(page)
            if not int(image.tag_v2.get(_SUBFILE, 0)) & _REDUCED_OR_MASK:
                full.append(page)
        image.seek(full[0] if full else 0)
        pages = len(full) or pages
    if pages > 1:
        raise PanoramaError(name, "not an image", f"{pages} frames or pages, expected one picture")
