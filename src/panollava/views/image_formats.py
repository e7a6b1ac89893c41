"""Which image files are read, and the message for those that are not: the format or depth by name, and the conversion.

Only formats of photographs are opened (for some others Pillow would start a foreign program). HEIC needs the extra
`heic` (pillow-heif).
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from pathlib import Path

from PIL import Image, TiffImagePlugin

from panollava.views import jpeg2000
from panollava.views.error import PanoramaError

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "JPEG2000", "AVIF", "PPM")
READ = "JPEG, PNG, WebP, TIFF, AVIF, BMP, JPEG 2000, GIF and PPM are read, and HEIC with the extra heic"

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_DEVELOP = "develop it to JPEG or TIFF first"
_NOT_READ: dict[bytes, tuple[str, str]] = {
    b"\xff\x0a": ("JPEG XL", "`djxl FILE FILE.png` converts it"),
    b"\0\0\0\x0cJXL \r\n\x87\n": ("JPEG XL", "`djxl FILE FILE.png` converts it"),
    b"\x76\x2f\x31\x01": ("OpenEXR", "tone-map it to 8 bits, for instance with `oiiotool FILE -o FILE.png`"),
    b"#?RADIANCE": ("Radiance HDR", "tone-map it to 8 bits, for instance with `oiiotool FILE -o FILE.png`"),
    b"#?RGBE": ("Radiance HDR", "tone-map it to 8 bits, for instance with `oiiotool FILE -o FILE.png`"),
    b"8BPS": ("Photoshop", "`magick FILE[0] FILE.png` converts it"),
    b"\x1aE\xdf\xa3": ("Matroska or WebM video", "`ffmpeg -i FILE -frames:v 1 FILE.png` takes its first frame"),
    b"%PDF": ("PDF", "export the picture in it"),
    b"II\x55\0": ("Panasonic raw", _DEVELOP),
    b"IIRO": ("Olympus raw", _DEVELOP),
    b"FUJIFILMCCD-RAW": ("Fujifilm raw", _DEVELOP),
    b"II*\0\x10\0\0\0CR": ("Canon raw", _DEVELOP),
    b"II\xbc": ("JPEG XR", "`JxrDecApp -i FILE -o FILE.tif` converts it"),
    b"qoif": ("QOI", "`magick FILE FILE.png` converts it"),
    b"DDS ": ("DirectDraw surface", "`magick FILE FILE.png` converts it"),
}
_TGA_END = b"TRUEVISION-XFILE.\0"
_JPEG_FRAMES = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "lossless", 0xCB: "lossless",
    0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "lossless", 0xF7: "JPEG-LS, a lossless",
}  # fmt: skip
_SAMPLE_FORMAT, _BITS = TiffImagePlugin.SAMPLEFORMAT, TiffImagePlugin.BITSPERSAMPLE
_COMPRESSION, _PLANES = TiffImagePlugin.COMPRESSION, TiffImagePlugin.PLANAR_CONFIGURATION
_PHOTOMETRIC = TiffImagePlugin.PHOTOMETRIC_INTERPRETATION
_SUBFILE, _FURTHER, _DNG = 254, 330, 50706
_REDUCED_OR_MASK = 1 | 4
_UNCOMPRESSED, _PLANE_BY_PLANE = 1, 2
_TIFF_DEPTHS = (1, 2, 4, 8, 16, 32)
_TIFF_COMPRESSIONS = {
    6: "old JPEG", 34712: "JPEG 2000", 33003: "JPEG 2000", 33005: "JPEG 2000", 34887: "LERC", 34892: "lossy raw",
    34934: "JPEG XR", 22610: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


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
    elif content[:4] in _TIFF_STARTS:
        _refuse_tiffs(content, name)
    elif content.startswith(jpeg2000.STARTS):
        _refuse_deep_jpeg_2000(content, name)
    elif content.endswith(_TGA_END):
        raise PanoramaError(name, "not an image", f"TGA; {READ}: `magick FILE FILE.png` converts it")


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
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
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


def _refuse_deep_jpeg_2000(content: bytes, name: str | Path) -> None:
    """Pillow brings more than 8 bits of colours to 8 in such a way that white turns black; of grey it does not."""
    channels, depth = jpeg2000.channels_and_depth(content) or (1, 8)
    if channels > 1 and depth > 8:
        found = (
            f"a JPEG 2000 picture with {depth} bits a channel, 8 are read: `magick FILE -depth 16 FILE.png` converts it"
        )
        raise PanoramaError(name, "not an image", found)


def tiff_tags(content: bytes) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """The tags of a TIFF's first page; None where they cannot be read."""
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if b"+" in content[:4] else 8])
        stream = io.BytesIO(content)
        stream.seek(directory.next)
        directory.load(stream)
        for tag in (_SAMPLE_FORMAT, _BITS, _SUBFILE, _COMPRESSION, _PLANES):
            directory.get(tag)  # decodes it
    except (SyntaxError, OSError, ValueError, TypeError, KeyError, struct.error, IndexError):
        return None
    return directory


def _refuse_tiffs(content: bytes, name: str | Path) -> None:
    tags = tiff_tags(content)
    if tags is None:
        return  # decoding says what is wrong with it
    formats, bits = (_numbers(tags.get(tag, (1,))) for tag in (_SAMPLE_FORMAT, _BITS))
    compression = _TIFF_COMPRESSIONS.get(tags.get(_COMPRESSION, _UNCOMPRESSED))
    depth = max(bits, default=1)
    planes = tags.get(_PLANES) == _PLANE_BY_PLANE and tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED
    if _DNG in tags or (_further_pictures(tags) and tags.get(_SUBFILE, 0) == 1):
        found = f"a camera's raw file (DNG and others) with a small preview; {READ}: {_DEVELOP}"
    elif any(value == 3 for value in formats):
        found = _tone_map(f"a TIFF with {depth}-bit floating-point pixels")
    elif depth > 32 or (depth > 16 and len(bits) > 1) or any(value in (5, 6) for value in formats):
        found = _tone_map(f"a TIFF with {depth} bits a channel")
    elif depth not in _TIFF_DEPTHS:
        found = f"a TIFF with {depth} bits a channel, 8 or 16 are read: `magick FILE -depth 16 FILE.png` converts it"
    elif compression is not None:
        found = f"a TIFF with {compression} compression, which is not read: `magick FILE FILE.png` converts it"
    elif depth == 16 and planes and len(bits) > 1:  # Pillow reads the planes of such files as if they had 8 bits
        found = (
            "a TIFF of 16 bits a channel whose channels lie one behind another uncompressed, which is not read: "
            "`magick FILE FILE.png` converts it"
        )
    else:
        return
    raise PanoramaError(name, "not an image", found)


def _numbers(values: object) -> list[int]:
    return [value for value in (values if isinstance(values, tuple) else (values,)) if isinstance(value, int)]


def _further_pictures(tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    """Whether a page has pictures below it, of which it is the preview, and no page follows it."""
    return _FURTHER in tags and not tags.next


def _tone_map(found: str) -> str:
    return (
        f"{found}, 8 or 16 bits are read. Bring its values into [0, 1] (tone-map it) and save it with 16 bits: "
        "`magick FILE -auto-level -depth 16 FILE.png`"
    )


def refuse_unidentified_tiff(content: bytes, name: str | Path) -> None:
    """Raises PanoramaError for a TIFF that Pillow does not know, though its tags are whole."""
    if content[:4] not in _TIFF_STARTS or (tags := tiff_tags(content)) is None:
        return
    bits = "+".join(map(str, _numbers(tags.get(_BITS, (1,))))) or "unknown"
    raise PanoramaError(
        name,
        "not an image",
        f"a TIFF of a rare kind ({bits} bits, compression {tags.get(_COMPRESSION, _UNCOMPRESSED)}, photometric "
        f"interpretation {tags.get(_PHOTOMETRIC, 'missing')}), which is not read: `magick FILE -depth 16 FILE.png` "
        "converts it",
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
