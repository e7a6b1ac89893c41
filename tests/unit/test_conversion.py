"""Cube maps, dual-fisheye frames and photographs become panoramas: what looks somewhere is found there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from directions import direction_panorama
from PIL import Image
from typer.testing import CliRunner

from panollava.cli.main import app
from panollava.data.convert import convert_files
from panollava.errors import DataError
from panollava.views.conversion import FACES, from_cubemap
from panollava.views.panorama import load_panorama, place_panorama, read_image
from panollava.views.render import render_views
from panollava.views.sphere import GREY
from panollava.views.strategies import View, plan_views

WHOLE = direction_panorama(512)
CUBE = dict(zip(FACES, render_views(WHOLE, plan_views("cubemap"), (96, 96)), strict=True))


def close(path: Path, part: slice = slice(None)) -> bool:
    found = load_panorama(path)
    expected = np.asarray(Image.fromarray(WHOLE).resize(found.shape[1::-1], Image.Resampling.BOX))
    return float(np.abs(found.astype(int) - expected)[part].mean()) < 4


def strip(order: str) -> np.ndarray:
    return np.concatenate([CUBE[face] for face in order], axis=1)


def dice() -> np.ndarray:
    none = np.zeros_like(CUBE["F"])
    rows = (none, CUBE["U"], none, none), [CUBE[face] for face in "LFRB"], (none, CUBE["D"], none, none)
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])


def test_cubes_as_strip_dice_and_six_files(tmp_path: Path) -> None:
    Image.fromarray(strip(FACES)).save(tmp_path / "strip.png")
    Image.fromarray(strip("LFRBUD")).save(tmp_path / "other.png")
    Image.fromarray(dice()).save(tmp_path / "dice.png")
    words = dict(zip(FACES, ("front", "right", "back", "left", "top", "bottom"), strict=True))
    for face, word in words.items():
        Image.fromarray(CUBE[face]).save(tmp_path / f"room_{word}.png")
    out = tmp_path / "out"
    convert_files("cubemap", [tmp_path / "strip.png", tmp_path / "dice.png"], out)
    convert_files("cubemap", [tmp_path / "other.png"], out, faces="LFRBUD", height=100)
    six = convert_files("cubemap", [tmp_path / f"room_{word}.png" for word in sorted(words.values())], out)
    assert six == [out / "room.png"]
    for name in ("strip", "dice", "other", "room"):
        assert close(out / f"{name}.png"), name
    assert load_panorama(out / "other.png").shape == (100, 200, 3)


def test_a_cube_pixel_lands_where_it_looks() -> None:
    side, height = 128, 600  # more than one band of rows, the last one short
    steps = (np.arange(side) + 0.5) / side * 2 - 1
    across, up = np.meshgrid(steps, -steps)
    one = np.ones_like(across)
    axes = ((across, up, one), (one, up, -across), (-across, up, -one), (-one, up, across), (across, one, -up),
            (across, -one, up))  # fmt: skip
    cube = {}
    for face, rays in zip(FACES, axes, strict=True):
        unit = np.stack(rays, -1) / np.sqrt(across**2 + up**2 + 1)[..., None]
        cube[face] = np.rint((unit + 1) * 127.5).astype(np.uint8)
    found = from_cubemap(cube, height) / 127.5 - 1
    longitude = ((np.arange(2 * height) + 0.5) / height - 1) * np.pi
    latitude = (0.5 - (np.arange(height) + 0.5) / height) * np.pi
    longitude, latitude = np.meshgrid(longitude, latitude)
    expected = np.stack(
        [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], axis=-1
    )
    assert np.abs(found - expected).max() < 0.02  # across the faces' edges, too; a pixel of a face is 0.016 wide
    assert np.abs((found - expected).mean(axis=(0, 1))).max() < 0.001
    assert np.abs((found - expected)[height // 2 - 20 : height // 2 + 20].mean(axis=(0, 1))).max() < 0.002
    grey = {face: np.full((side, side, 3), 200, np.uint8) for face in FACES}
    assert (from_cubemap(grey, 96) == 200).all()


def fisheye(forward: float, side: int, fov_deg: float) -> np.ndarray:
    """What an equidistant lens sees of WHOLE."""
    x, y = np.meshgrid(*(2 * (np.arange(side) + 0.5) / side - 1,) * 2)
    radius = np.hypot(x, y)
    angle = np.radians(radius * fov_deg / 2)
    rays = np.stack([forward * np.sin(angle) * x / radius, -np.sin(angle) * y / radius, forward * np.cos(angle)], -1)
    longitude, latitude = np.arctan2(rays[..., 0], rays[..., 2]), np.arcsin(rays[..., 1])
    columns = ((longitude / (2 * np.pi) + 0.5) * 512).astype(int) % 512
    rows = np.clip(((0.5 - latitude / np.pi) * 256).astype(int), 0, 255)
    return np.where((radius <= 1)[..., None], WHOLE[rows, columns], 0).astype(np.uint8)


def test_dual_fisheye_frames(tmp_path: Path) -> None:
    frame = np.concatenate([fisheye(1.0, 256, 200.0), fisheye(-1.0, 256, 200.0)], axis=1)
    Image.fromarray(frame).save(tmp_path / "frame.png")
    convert_files("dual_fisheye", [tmp_path / "frame.png"], tmp_path / "out", fov_deg=200.0)
    assert close(tmp_path / "out/frame.png")


def test_a_photograph_covers_its_part(tmp_path: Path) -> None:
    view = View("perspective", 60, 10, 80, 60)
    Image.fromarray(render_views(WHOLE, [view], (139, 202))[0]).save(tmp_path / "photo.png")
    arguments = ["prepare", str(tmp_path / "photo.png"), "--output-dir", str(tmp_path / "out"), "--from", "perspective",
                 "--fov-deg", "80", "--yaw-deg", "60", "--pitch-deg", "10"]  # fmt: skip
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    placed = place_panorama(read_image(tmp_path / "out/photo.png"), "photo.png")
    same = View("perspective", 60, 10, 70, 50)
    again, expected = (render_views(pixels, [same], (64, 64))[0].astype(int) for pixels in (placed.pixels, WHOLE))
    assert np.abs(again - expected).mean() < 3
    behind = View("perspective", -120, 0, 60, 60)
    assert placed.placement.coverage([same, behind]) == (1.0, 0.0)
    assert (render_views(placed.pixels, [behind], (8, 8)) == GREY).all()


@pytest.mark.parametrize(
    ("kind", "size", "options", "message"),
    [
        ("cubemap", (64, 48), {}, None),
        ("cubemap", (64, 32), {}, "neither a strip of six faces"),
        ("cubemap", (96, 16), {"faces": "FRBLUU"}, "names each of FRBLUD once"),
        ("dual_fisheye", (64, 48), {}, "a dual-fisheye frame is 2:1"),
        ("dual_fisheye", (64, 32), {"fov_deg": 90.0}, r"in \[180, 360\) degrees"),
        ("perspective", (64, 48), {}, "--fov-deg"),
        ("perspective", (64, 48), {"fov_deg": 190.0}, r"in \(0, 180\) degrees"),
        ("mercator", (64, 48), {}, "cubemap, dual_fisheye, perspective"),
    ],
)
def test_what_cannot_be_converted(
    tmp_path: Path, kind: str, size: tuple[int, int], options: dict[str, object], message: str | None
) -> None:
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    if message is None:
        convert_files(kind, [tmp_path / "a.png"], tmp_path / "out")
        return
    with pytest.raises(DataError, match=message):
        convert_files(kind, [tmp_path / "a.png"], tmp_path / "out", **options)  # type: ignore[arg-type]


def test_six_files_must_say_which_face_they_are(tmp_path: Path) -> None:
    files = []
    for number in range(6):
        Image.new("RGB", (8, 8)).save(tmp_path / f"face_{number}.png")
        files.append(tmp_path / f"face_{number}.png")
    with pytest.raises(DataError, match="which face is it"):
        convert_files("cubemap", files, tmp_path / "out")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="not an image"):
        convert_files("cubemap", [tmp_path / "text.png"], tmp_path / "out")


def test_a_source_is_read_as_panoramas_are(tmp_path: Path) -> None:
    deep = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (48, 1))
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (written,) = convert_files("perspective", [tmp_path / "deep.png"], tmp_path / "out", fov_deg=90)
    middle = load_panorama(written)[:, :, 0].astype(int)
    seen = middle[middle.shape[0] // 2, middle.shape[1] * 3 // 8 + 4 : middle.shape[1] * 5 // 8 - 4]
    assert seen.min() < 40 and seen.max() > 215 and (np.diff(seen) >= 0).all()  # 16 bits were brought to 8, not cut off
    (tmp_path / "vector.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    with pytest.raises(DataError, match="not an image"):
        convert_files("perspective", [tmp_path / "vector.eps"], tmp_path / "out", fov_deg=90)
