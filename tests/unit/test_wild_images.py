"""Image files as people have them: decoded upright to 8-bit RGB, or refused with reason and what was found."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panollava.views.panorama import MAX_PIXELS, PanoramaError, load_panorama

RNG = np.random.default_rng(0)
# Smooth, so that lossy formats keep it; different in all corners, so that a turned picture shows.
SMOOTH = np.stack(np.broadcast_arrays(np.linspace(0, 255, 64)[None], np.linspace(0, 255, 32)[:, None], 99), -1)
PHOTO = Image.fromarray(SMOOTH.astype(np.uint8))
NOISE = Image.fromarray(RNG.integers(0, 256, (256, 512, 3), np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def frames(form: str) -> bytes:
    return saved(PHOTO, form, save_all=True, append_images=[PHOTO.rotate(180), PHOTO.transpose(0)])


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, more: bytes = b"") -> bytes:
    """A small file that says it is a large picture."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1 + 3 * 64)))
    return b"\x89PNG\r\n\x1a\n" + header + more + body + chunk(b"IEND", b"")


def packed(kind: bytes) -> bytes:
    """80 MB of zeros, packed into a chunk of a PNG."""
    return chunk(kind, b"a\0\0" + zlib.compress(bytes(80_000_000)))


def bmp_of(width: int, height: int) -> bytes:
    content = bytearray(saved(PHOTO, "BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


def tiff_of(kind: type, factor: int) -> bytes:
    return saved(Image.fromarray(SMOOTH[..., 0].astype(kind) * kind(factor)), "TIFF")


def turned(orientation: int, angle: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(PHOTO.rotate(angle, expand=True), "JPEG", exif=exif, quality=95)


JPEG, PNG = saved(PHOTO, "JPEG", quality=95), saved(PHOTO, "PNG")
NOISE_JPEG, NOISE_PNG = saved(NOISE, "JPEG"), saved(NOISE, "PNG")
PROGRESSIVE = saved(NOISE, "JPEG", progressive=True)
PALETTE = PHOTO.convert("P", palette=Image.Palette.ADAPTIVE)

DECODED: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: JPEG,
    "progressive JPEG": lambda: saved(PHOTO, "JPEG", progressive=True, quality=95),
    "CMYK JPEG": lambda: saved(PHOTO.convert("CMYK"), "JPEG", quality=95),
    "JPEG with pictures behind it (MPO)": lambda: saved(
        PHOTO, "MPO", save_all=True, append_images=[PHOTO.rotate(180)], quality=95
    ),
    "JPEG with zeros behind it": lambda: JPEG + bytes(1000),
    "JPEG with damaged Exif": lambda: JPEG[:2] + b"\xff\xe1\x00\x10Exif\0\0MM\0*\xff\xff\xff\xff" + JPEG[2:],
    "JPEG turned by Exif": lambda: turned(6, 90),
    "JPEG upside down by Exif": lambda: turned(3, 180),
    "JPEG with an Exif orientation that is none": lambda: turned(99, 0),
    "PNG": lambda: PNG,
    "16-bit PNG": lambda: _png16(),
    "transparent PNG": lambda: saved(PHOTO.convert("RGBA"), "PNG"),
    "PNG with a palette": lambda: saved(PALETTE, "PNG"),
    "WebP": lambda: saved(PHOTO, "WEBP", lossless=True),
    "TIFF": lambda: saved(PHOTO, "TIFF"),
    "compressed TIFF": lambda: saved(PHOTO, "TIFF", compression="tiff_lzw"),
    "BMP": lambda: saved(PHOTO, "BMP"),
    "GIF of one frame": lambda: saved(PALETTE, "GIF"),
    "JPEG 2000": lambda: saved(PHOTO, "JPEG2000"),
}


def _png16() -> bytes:
    rows = (SMOOTH.astype(">u2") * 257).reshape(32, -1)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 32, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", DECODED)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_decoded_to_what_was_photographed(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(DECODED[kind]())  # whatever the name says
    pixels = load_panorama(tmp_path / "a.jpg")
    assert pixels.shape == (32, 64, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 6


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "JPEG"), ("L", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("I;16", "PNG"), ("I;16", "TIFF")]
)
def test_grey_becomes_three_equal_channels(tmp_path: Path, mode: str, form: str) -> None:
    grey = SMOOTH[..., 0]
    image = Image.fromarray((grey * 257).astype(np.uint16)) if mode == "I;16" else PHOTO.split()[0].convert(mode)
    (tmp_path / "a").write_bytes(saved(image, form))
    pixels = load_panorama(tmp_path / "a").astype(int)
    assert (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all()
    assert abs(pixels.mean() - grey.mean()) < 3


REFUSED: dict[str, tuple[bytes | Callable[[], bytes], str, str]] = {
    # name: (content, reason, what its detail holds)
    "nothing": (b"", "truncated", "the file is empty"),
    "one byte": (b"\xff", "not an image", "it begins with b'\\xff'"),
    "a JPEG's header": (JPEG[:20], "truncated", ""),
    "half a JPEG": (NOISE_JPEG[: len(NOISE_JPEG) // 2], "truncated", "Premature end"),
    "a JPEG without its end mark": (NOISE_JPEG[:-2], "truncated", "Premature end"),
    "half a progressive JPEG": (PROGRESSIVE[: len(PROGRESSIVE) // 2], "truncated", "Premature end"),
    "half a JPEG that claims to end": (NOISE_JPEG[: len(NOISE_JPEG) // 2] + b"\xff\xd9", "truncated", "premature end"),
    "a JPEG with a hole": (NOISE_JPEG[:30_000] + NOISE_JPEG[60_000:], "truncated", "premature end"),
    "half a PNG": (NOISE_PNG[: len(NOISE_PNG) // 2], "truncated", "truncated"),
    "a PNG with a wrong bit": (NOISE_PNG[:5000] + b"\0" + NOISE_PNG[5001:], "truncated", ""),
    "half a WebP": (lambda: saved(NOISE, "WEBP")[:5000], "truncated", ""),
    "half a TIFF": (lambda: saved(NOISE, "TIFF")[:50_000], "truncated", ""),
    "half a GIF": (lambda: saved(NOISE.convert("P"), "GIF")[:5000], "truncated", ""),
    "text": (b"a picture of a street", "not an image", "b'a pictur'"),
    "a web page": (b"<!DOCTYPE html><title>Sign in</title>", "not an image", "b'<!DOCTYP'"),
    "a drawing (SVG)": (b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="32"/>', "not an image", "b'<svg"),
    "a program for Ghostscript": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 32\n%%EndComments\n", "not an image", "b'%!PS-Ado'"),
    "a film": (b"\0\0\0\x18ftypmp42" + bytes(100), "not an image", ""),
    "a phone's HEIC": (b"\0\0\0\x18ftypheic" + bytes(100), "not an image", ""),
    "zeros": (bytes(5000), "not an image", ""),
    "square": (lambda: saved(Image.new("RGB", (64, 64)), "PNG"), "not about 2:1", "64 x 64 pixels"),
    "upright": (lambda: saved(Image.new("RGB", (32, 64)), "PNG"), "not about 2:1", "32 x 64 pixels"),
    "upright by Exif": (lambda: turned(6, 0), "not about 2:1", "32 x 64 pixels"),
    "a little too wide": (lambda: saved(Image.new("RGB", (205, 100)), "PNG"), "not about 2:1", "205 x 100"),
    "a strip": (lambda: saved(Image.new("RGB", (4096, 2)), "PNG"), "not about 2:1", "4096 x 2 pixels"),
    "one pixel": (lambda: saved(Image.new("RGB", (1, 1)), "PNG"), "not about 2:1", "1 x 1 pixels"),
    "an animated GIF": (lambda: frames("GIF"), "not an image", "frames or pages, expected one picture"),
    "an animated PNG": (lambda: frames("PNG"), "not an image", "3 frames or pages"),
    "an animated WebP": (lambda: frames("WEBP"), "not an image", "frames or pages"),
    "a TIFF of three pages": (lambda: frames("TIFF"), "not an image", "3 frames or pages"),
    "floating-point pixels": (lambda: tiff_of(np.float32, 1), "not an image", "floating-point"),
    "32-bit integers": (lambda: tiff_of(np.int32, 1000), "not an image", "expected 8 or 16"),
    "a bomb": (png_of(60_000, 30_000), "not an image", "1800000000 pixels"),
    "a small bomb": (png_of(24_000, 12_000), "not an image", f"24000 x 12000 pixels, at most {MAX_PIXELS}"),
    "a bomb in a text": (lambda: png_of(64, 32, packed(b"zTXt")), "truncated", "too large"),
    "a bomb in a colour profile": (lambda: png_of(64, 32, packed(b"iCCP")), "truncated", "too large"),
    "a BMP of which only the header is there": (lambda: bmp_of(60_000, 30_000), "not an image", "1800000000 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_reason_and_what_was_found(tmp_path: Path, kind: str) -> None:
    content, reason, detail = REFUSED[kind]
    path = tmp_path / "a.jpg"
    path.write_bytes(content if isinstance(content, bytes) else content())
    for min_width in (None, 1):
        with pytest.raises(PanoramaError) as caught:
            load_panorama(path, min_width)
        assert caught.value.reason == reason and detail in caught.value.detail
        assert str(caught.value).startswith(f"{path}: {reason}") and "\n" not in str(caught.value)


def test_a_file_too_large_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panollava.views.panorama.MAX_BYTES", 100)
    (tmp_path / "a.png").write_bytes(PNG)
    with pytest.raises(PanoramaError, match=f"not an image: {len(PNG)} bytes, at most 100 are read"):
        load_panorama(tmp_path / "a.png")


@pytest.mark.parametrize("path", ["absent.png", ".", "x" * 300, "a\0b"])
def test_no_file_at_all(tmp_path: Path, path: str) -> None:
    with pytest.raises(PanoramaError) as caught:
        load_panorama(tmp_path / path)
    assert caught.value.reason == "image missing" and caught.value.detail
