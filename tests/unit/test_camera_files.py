"""Files as cameras and programs write them: orientation, formats by name, pages, colours, unstitched frames."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from directions import direction_panorama, packet, photo
from PIL import Image, ImageCms, TiffImagePlugin

from panollava.views import image_formats
from panollava.views.code_points import display_p3_profile
from panollava.views.fisheye import shows_two_discs
from panollava.views.panorama import PanoramaError, decode_panorama, warn_if_unstitched

WHOLE = direction_panorama(256)
UNDO = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def with_camera(make: str, model: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = make, model
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "MPO", "PNG", "WEBP", "AVIF", "TIFF", "TIFF with LZW"])
def test_every_orientation_of_every_format(form: str, orientation: int) -> None:
    stored = Image.fromarray(WHOLE)
    if orientation in UNDO:
        stored = stored.transpose(UNDO[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {"exif": exif, "quality": 95}
    if form == "MPO":
        options |= {"save_all": True, "append_images": [stored.rotate(180)]}
    if form.startswith("TIFF"):
        options = {"tiffinfo": {0x0112: orientation}, "compression": "tiff_lzw" if "LZW" in form else None}
    pixels = decode_panorama(saved(stored, form.split()[0], **options), "a")
    assert pixels.shape == WHOLE.shape
    assert np.abs(pixels.astype(int) - WHOLE).mean() < 4


def twelve_bit_jpeg() -> bytes:
    content = bytearray(saved(Image.fromarray(WHOLE), "JPEG"))
    content[content.find(b"\xff\xc0") + 4] = 12
    return bytes(content)


def float_tiff(channels: int, compression: int = 1) -> bytes:
    ok, encoded = cv2.imencode(".tiff", np.zeros((32, 64, channels), np.float32))
    assert ok
    return encoded.tobytes()


def tiff(tags: dict[int, tuple[int, list[int]]], pixels: bytes, order: str = "<") -> bytes:
    """A TIFF of one strip: `tags` are (type, values), type 3 two bytes each and 4 four; what it needs is added."""
    width, height = 64, 32
    tags = {
        256: (3, [width]), 257: (3, [height]), 277: (3, [1]), 278: (3, [height]), 259: (3, [1]), 262: (3, [1]),
        273: (4, [0]), 279: (4, [len(pixels)]), **tags,
    }  # fmt: skip
    table, far, place = b"", b"", 8 + 2 + 12 * len(tags) + 4
    planes = len(tags[273][1])
    start = place + sum(size for kind, values in tags.values() if (size := len(values) * (2 if kind == 3 else 4)) > 4)
    tags[273] = (4, [start + number * len(pixels) // planes for number in range(planes)])
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, far = struct.pack(f"{order}I", place + len(far)), far + packed
        table += struct.pack(f"{order}HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    return head + table + bytes(4) + far + pixels


GREY16 = cv2.resize(WHOLE[..., 2], (64, 32)).astype(np.uint16) * 257


def grey_tiff(bits: int = 16, compression: int = 1, order: str = "<", white: int = 65535) -> bytes:
    pixels = GREY16 if white else 65535 - GREY16
    tags = {258: (3, [bits]), 259: (3, [compression]), 262: (3, [1 if white else 0])}
    return tiff(tags, pixels.astype(f"{order}u2").tobytes(), order)


def channel_by_channel() -> bytes:
    size = GREY16.nbytes
    tags = {
        258: (3, [16] * 3), 262: (3, [2]), 277: (3, [3]), 284: (3, [2]), 273: (4, [0] * 3), 279: (4, [size] * 3),
    }  # fmt: skip
    return tiff(tags, GREY16.tobytes() * 3)


def tagged_tiff(tags: dict[int, Any]) -> bytes:
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        directory.tagtype[tag], directory[tag] = 1, bytes(value)
    return saved(Image.fromarray(WHOLE), "TIFF", tiffinfo=directory)


def deep_jpeg_2000() -> bytes:
    """Its head says 16 bits a channel: so far it is read before it is refused."""
    content = bytearray(saved(Image.fromarray(WHOLE), "JPEG2000", no_jp2=True))
    content[42] = 15
    return bytes(content)


NOT_READ = {
    "JPEG XL": (b"\xff\x0a" + bytes(50), "JPEG XL", "djxl"),
    "JPEG XL in its container": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(50), "JPEG XL", "djxl"),
    "12-bit JPEG": (twelve_bit_jpeg(), "12-bit JPEG", "-depth 8"),
    "float TIFF": (float_tiff(1), "32-bit floating-point", "-depth 16"),
    "float TIFF of colours": (float_tiff(3), "32-bit floating-point", "-depth 16"),
    "OpenEXR": (b"\x76\x2f\x31\x01" + bytes(50), "OpenEXR", "tone-map"),
    "Radiance": (b"#?RADIANCE\n" + bytes(50), "Radiance HDR", "tone-map"),
    "JPEG-LS": (b"\xff\xd8\xff\xf7\0\x0b\x08\0\x20\0\x40\x01\x01\x11\0" + bytes(50), "JPEG-LS", "-depth 8"),
    "JPEG XR": (b"II\xbc\x01" + bytes(50), "JPEG XR", "JxrDecApp"),
    "QOI": (b"qoif" + bytes(50), "QOI", "magick"),
    "TGA": (bytes(50) + b"TRUEVISION-XFILE.\0", "TGA", "magick"),
    "JPEG 2000 of 16 bits": (deep_jpeg_2000(), "JPEG 2000 picture with 16 bits a channel", "-depth 16"),
    "TIFF of 12 bits": (grey_tiff(bits=12, compression=1), "12 bits a channel", "-depth 16"),
    "TIFF in JPEG XL": (grey_tiff(compression=50002), "JPEG XL compression", "magick"),
    "TIFF of a rare kind": (grey_tiff(order=">", white=0), "rare kind (16 bits, compression 1", "magick"),
    "TIFF of 16 bits, channel by channel": (channel_by_channel(), "channels lie one behind another", "magick"),
    "a raw file's preview": (
        tiff({258: (3, [8]), 254: (4, [1]), 330: (4, [8])}, bytes(64 * 32)),
        "raw file (DNG",
        "develop it",
    ),
    "a raw file": (tagged_tiff({50706: (1, 4, 0, 0)}), "raw file (DNG", "develop it"),
    "a film": (b"\0\0\0\x18ftypmp42" + bytes(100), "MP4", "ffmpeg"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_not_read_is_named_with_its_conversion(kind: str) -> None:
    content, name, remedy = NOT_READ[kind]
    with pytest.raises(PanoramaError) as caught:
        decode_panorama(content, "a.jpg")
    assert caught.value.reason == "not an image" and name in caught.value.detail and remedy in caught.value.detail


def test_a_16_bit_tiff_whose_white_is_zero() -> None:
    pixels = decode_panorama(grey_tiff(white=0), "a.tiff")
    np.testing.assert_array_equal(pixels, np.repeat((GREY16 // 257)[..., None], 3, axis=-1))


def in_jp2(kind: bytes, body: bytes) -> bytes:
    """A JPEG 2000 file with one box more, behind the others or, of colours, in place of its own."""
    content = saved(Image.fromarray(WHOLE), "JPEG2000")
    box = struct.pack(">I4s", len(body) + 8, kind) + body
    if kind != b"colr":
        return content + box
    head, own = content.index(b"jp2h") - 4, content.index(b"colr") - 4
    length, old = (int.from_bytes(content[place : place + 4], "big") for place in (head, own))
    changed = struct.pack(">I", length - old + len(box)) + content[head + 4 : own] + box
    return content[:head] + changed + content[own + old :]


def test_jpeg_2000_with_its_gpano_and_its_profile() -> None:
    said = packet({"ProjectionType": "cylindrical"})
    with pytest.raises(PanoramaError, match="'cylindrical'"):
        decode_panorama(in_jp2(b"uuid", bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC") + said), "a.jp2")
    pixels = decode_panorama(in_jp2(b"colr", b"\x02\0\0" + wide_profile()), "a.jp2")
    assert np.abs(pixels.astype(int) - WHOLE[..., [1, 0, 2]]).mean() < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_heic(orientation: int) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    stored, exif = Image.fromarray(WHOLE), Image.Exif()
    exif[0x0112] = orientation
    stored = stored.transpose(UNDO[orientation]) if orientation in UNDO else stored
    content = saved(
        stored, "HEIF", exif=exif.tobytes(), quality=95
    )  # of bytes, pillow-heif makes a turn of the picture
    assert (b"irot" in content or b"imir" in content) == (orientation != 1)
    assert np.abs(decode_panorama(content, "a.heic").astype(int) - WHOLE).mean() < 4


def test_heic_without_its_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "known_formats", lambda: ("JPEG",))
    with pytest.raises(PanoramaError, match=r"HEIC, which needs the extra heic: `pip install -e '\.\[heic\]'`"):
        decode_panorama(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "a.heic")


def test_heic_with_its_gpano(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    content = saved(Image.fromarray(WHOLE), "HEIF", quality=95)
    assert np.abs(decode_panorama(content, "a.heic").astype(int) - WHOLE).mean() < 4
    content = saved(Image.fromarray(WHOLE), "HEIF", xmp=packet({"ProjectionType": "cylindrical"}))
    with pytest.raises(PanoramaError, match="'cylindrical'"):
        decode_panorama(content, "a.heic")


def pages(*kinds: int) -> bytes:
    """A TIFF whose pages say NewSubfileType; the first one shows the panorama, each further one another picture."""
    images = []
    for number, kind in enumerate(kinds):
        image = Image.fromarray(WHOLE if kind == 0 else WHOLE[::2, ::2] // (2 + number))
        image.encoderinfo = {"tiffinfo": {254: kind}}  # type: ignore[attr-defined]
        images.append(image)
    stream = io.BytesIO()
    images[0].save(stream, "TIFF", tiffinfo={254: kinds[0]}, save_all=True, append_images=images[1:])
    return stream.getvalue()


@pytest.mark.parametrize("kinds", [(0, 1), (0, 1, 1), (1, 0), (0, 4)])
def test_a_tiff_with_reduced_copies_is_one_picture(kinds: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(decode_panorama(pages(*kinds), "a.tiff"), WHOLE)


def test_a_tiff_of_two_pictures_is_not() -> None:
    with pytest.raises(PanoramaError, match="2 frames or pages"):
        decode_panorama(pages(0, 0, 1), "a.tiff")


def discs(gap: float = 0.97) -> np.ndarray:
    pixels = np.zeros((128, 256, 3), np.uint8)
    for centre in (64, 192):
        cv2.circle(pixels, (centre, 64), round(64 * gap), (180, 140, 90), -1)
    return pixels


@pytest.mark.parametrize(
    ("make", "model", "stitcher"),
    [
        ("SAMSUNG", "SM-C200", "Gear 360 ActionDirector"),
        ("Arashi Vision", "Insta360 ONE X2", "Insta360 Studio"),
        ("RICOH\0\0", "RICOH THETA Z1   ", "RICOH THETA Stitcher"),
    ],
)
def test_a_cameras_unstitched_frame_is_refused_with_its_stitcher(make: str, model: str, stitcher: str) -> None:
    content = photo(discs(), exif=with_camera(make, model))
    with pytest.raises(PanoramaError, match=f"not equirectangular: an unstitched dual-fisheye frame.*{stitcher}"):
        decode_panorama(content, "a.jpg")


def test_a_stitched_panorama_of_such_a_camera_is_taken() -> None:
    said = packet({"ProjectionType": "equirectangular"})
    for make, model, xmp in (
        ("SAMSUNG", "SM-C200", said),
        ("RICOH", "RICOH THETA S", None),
        ("GoPro", "GoPro Max", None),
    ):
        assert decode_panorama(photo(WHOLE, xmp=xmp, exif=with_camera(make, model)), "a").shape == WHOLE.shape


def test_two_discs_without_a_mark_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "panollava"):
        warn_if_unstitched(WHOLE, "whole.png")
        assert not caplog.records
        warn_if_unstitched(decode_panorama(photo(discs()), "frame.jpg"), "frame.jpg")
    assert "frame.jpg: two bright discs on black" in caplog.text
    assert shows_two_discs(discs(0.85)) and not shows_two_discs(np.zeros_like(WHOLE))
    night = WHOLE.copy()
    night[:40] = night[90:] = 0
    assert not shows_two_discs(night)


def wide_profile() -> bytes:
    """An RGB profile with sRGB's curve and red and green exchanged: whoever ignores it shows wrong colours."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.find(b"rXYZ"), profile.find(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_embedded_profiles_become_srgb(form: str) -> None:
    pixels = decode_panorama(photo(WHOLE, form, icc_profile=wide_profile()), "a")
    expected = WHOLE[..., [1, 0, 2]]
    assert np.abs(pixels.astype(int) - expected).mean() < 5
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    np.testing.assert_array_equal(
        decode_panorama(photo(WHOLE, form, icc_profile=srgb), "a"), decode_panorama(photo(WHOLE, form), "a")
    )


def with_code_points(form: str, primaries: int, curve: int) -> bytes:
    """A file that states its colours by number, without a profile."""
    content = photo(WHOLE, form)
    if form == "PNG":
        body = b"cICP" + bytes([primaries, curve, 0, 1])
        return content[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + content[33:]
    place = content.index(b"colrnclx") + 8
    return content[:place] + struct.pack(">HH", primaries, curve) + content[place + 4 :]


@pytest.mark.parametrize("form", ["PNG", "AVIF"])
def test_colours_by_number_become_srgb(form: str, caplog: pytest.LogCaptureFixture) -> None:
    plain = decode_panorama(photo(WHOLE, form), "a")
    srgb = decode_panorama(with_code_points(form, 1, 13), "a")
    wide = decode_panorama(with_code_points(form, 12, 13), "a").astype(int)
    np.testing.assert_array_equal(plain, srgb)
    marked = decode_panorama(photo(WHOLE, form, icc_profile=display_p3_profile()), "a").astype(int)
    assert np.abs(wide - marked).max() <= 1 and np.abs(wide - plain).mean() > 3
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "panollava"):
        np.testing.assert_array_equal(decode_panorama(with_code_points(form, 9, 16), "a.x"), plain)
    assert "a.x: its colours (BT.2020, PQ (HDR)) are not converted" in caplog.text


def test_a_profile_of_no_use_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    for broken in (b"no profile at all" * 20, wide_profile()[:200], wide_profile().replace(b"RGB XYZ", b"CMYKLab", 1)):
        with caplog.at_level(logging.WARNING, "panollava"):
            pixels = decode_panorama(photo(WHOLE, "PNG", icc_profile=broken), "a.png")
        np.testing.assert_array_equal(pixels, WHOLE)
        assert "a.png: its ICC profile is not used" in caplog.text
        caplog.clear()
