"""Decoding: upright 8-bit RGB from every usual file, reasons for the others."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from panollava.views.panorama import PanoramaError, decode_panorama, load_panorama

HEIGHT = 64


def picture() -> Image.Image:
    x, y = np.meshgrid(np.linspace(0, 255, 2 * HEIGHT), np.linspace(0, 255, HEIGHT))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [
        ("a.jpg", "RGB", 12),
        ("a.png", "RGB", 0),
        ("a.webp", "RGB", 20),
        ("a.bmp", "RGB", 0),
        ("a.tiff", "RGB", 0),
        ("a.png", "RGBA", 0),
        ("a.jpg", "CMYK", 12),
        ("a.png", "P", 60),
    ],
)
def test_files_become_rgb(tmp_path: Path, name: str, mode: str, tolerance: int) -> None:
    path = save(picture().convert(mode), tmp_path / name)
    pixels = load_panorama(path)
    assert pixels.shape == (HEIGHT, 2 * HEIGHT, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - np.asarray(picture())).max() <= tolerance


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_grey_files(tmp_path: Path, name: str) -> None:
    pixels = load_panorama(save(picture().convert("L"), tmp_path / name))
    assert np.abs(pixels.astype(int) - np.asarray(picture().convert("L"))[..., None]).max() <= 6


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 2 * HEIGHT).astype(np.uint16), (HEIGHT, 1))
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        pixels = load_panorama(tmp_path / name)
        np.testing.assert_allclose(pixels[0, :, 1], ramp[0] / 257, atol=0.51)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_sixteen_bits_of_colour(tmp_path: Path, name: str, channels: int) -> None:
    """What image processing programs write, which Pillow cannot: 16 bits a channel, with and without alpha."""
    deep = np.full((HEIGHT, 2 * HEIGHT, channels), 65535, np.uint16)
    deep[..., :3] = np.asarray(picture(), np.uint16)[..., ::-1] * 257
    assert cv2.imwrite(str(tmp_path / name), deep)
    assert np.abs(load_panorama(tmp_path / name).astype(int) - np.asarray(picture())).max() <= 1


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, name: str, orientation: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture().transpose(undo[orientation]) if orientation in undo else picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = load_panorama(save(stored, tmp_path / name, exif=exif, quality=95), min_width=HEIGHT)
    step = 2 * HEIGHT // pixels.shape[1]
    assert step == (2 if name == "a.jpg" else 1)  # the width that counts is the upright one
    assert np.abs(pixels.astype(int) - np.asarray(picture())[::step, ::step]).max() <= 14


def test_jpegs_are_decoded_no_smaller_than_asked_and_by_exact_scales(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (400, 200), "red"), tmp_path / "a.jpg")
    for min_width, width in (
        (None, 400),
        (201, 400),
        (200, 200),
        (151, 200),
        (150, 150),
        (101, 150),
        (100, 100),
        (50, 50),
        (1, 50),
    ):
        assert load_panorama(path, min_width).shape == (width // 2, width, 3)
    odd = save(Image.new("RGB", (404, 202), "red"), tmp_path / "odd.jpg")
    assert load_panorama(odd, 1).shape == (101, 202, 3)  # a quarter of 202 rows would move the horizon


def progressive(quality: int) -> bytes:
    """A progressive JPEG of a coarse picture with fine noise: all of its scans say something."""
    rng = np.random.default_rng(0)
    coarse = np.asarray(Image.fromarray(rng.integers(0, 256, (8, 16, 3), np.uint8)).resize((256, 128)), np.float64)
    stream = io.BytesIO()
    pixels = np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(stream, "JPEG", progressive=True, quality=quality)
    return stream.getvalue()


def test_the_last_scan_of_a_progressive_jpeg_is_spared_where_it_changes_less_than_a_level() -> None:
    content = progressive(92)
    damaged = bytearray(content)
    start = content.rfind(b"\xff\xda") + 10
    damaged[start:-2] = bytes(len(content) - 2 - start)
    exact = decode_panorama(content, "a.jpg", 96, to_the_end=True)
    spared = decode_panorama(bytes(damaged), "a.jpg", 96)  # the damage lies in what is not read
    assert exact.shape == spared.shape == (48, 96, 3)
    difference = spared.astype(int) - exact
    assert 0.1 < np.sqrt((difference**2).mean()) < 1
    np.testing.assert_array_equal(decode_panorama(content, "a.jpg", 96), spared)
    for broken, options in (
        (content[:-40], {"min_width": 96}),  # a file without its end is looked at closely
        (bytes(damaged), {}),  # the full size needs all
        (bytes(damaged), {"min_width": 96, "to_the_end": True}),
    ):
        with pytest.raises(PanoramaError) as caught:
            decode_panorama(broken, "a.jpg", **options)  # type: ignore[arg-type]
        assert caught.value.reason == "truncated"
    coarse = progressive(50)
    np.testing.assert_array_equal(
        decode_panorama(coarse, "a.jpg", 96), decode_panorama(coarse, "a.jpg", 96, to_the_end=True)
    )


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((200, 100), True),
        ((204, 100), True),
        ((196, 100), True),
        ((205, 100), False),
        ((195, 100), False),
        ((100, 200), False),
    ],
)
def test_about_two_to_one(tmp_path: Path, size: tuple[int, int], fits: bool) -> None:
    path = save(Image.new("RGB", size), tmp_path / "a.png")
    if fits:
        assert load_panorama(path).shape[:2] == size[::-1]
    else:
        with pytest.raises(PanoramaError, match=f"not about 2:1: {size[0]} x {size[1]}"):
            load_panorama(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_files(tmp_path: Path, name: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, 2 * HEIGHT, 3), np.uint8)
    path = save(Image.fromarray(noise), tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for min_width in (None, 1):
        with pytest.raises(PanoramaError) as caught:
            load_panorama(path, min_width)
        assert caught.value.reason == "truncated"


def test_a_jpeg_cut_short_but_closed_is_truncated() -> None:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, 2 * HEIGHT, 3), np.uint8)
    Image.fromarray(noise).save(stream, "JPEG")
    with pytest.raises(PanoramaError) as caught:  # Pillow fills the rest with grey
        decode_panorama(stream.getvalue()[:2000] + b"\xff\xd9", "a.jpg")
    assert caught.value.reason == "truncated"


def test_what_is_no_image(tmp_path: Path) -> None:
    cases = {"text.jpg": b"<html>not found</html>" * 20, "empty.jpg": b""}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    reasons = {}
    for name in (*cases, "absent.jpg", "."):
        with pytest.raises(PanoramaError) as caught:
            load_panorama(tmp_path / name)
        reasons[name] = caught.value.reason
    assert reasons == {
        "text.jpg": "not an image",
        "empty.jpg": "truncated",
        "absent.jpg": "image missing",
        ".": "image missing",
    }


def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(picture(), tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(PanoramaError, match="decompression bomb"):
        load_panorama(path)


def test_the_error_crosses_processes() -> None:
    error = PanoramaError("a: b.jpg", "truncated", "half: gone")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reason, again.detail) == (str(error), "truncated", "half: gone")
