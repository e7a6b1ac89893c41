"""`panollava views`: its files, and borders that are where the views look."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from panollava.views.contact_sheet import contact_sheet, write_views
from panollava.views.render import open_views, render_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import View, plan_views


def test_files_and_their_description(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 128, 3), np.uint8)).save(tmp_path / "pano.png")
    views = plan_views("anyres_e2p")
    for antialias in (True, False):
        write_views(tmp_path / "pano.png", views, (16, 16), Rendering(antialias), tmp_path / "out")
        expected = open_views(tmp_path / "pano.png", views, (16, 16), Rendering(antialias))
        document = json.loads((tmp_path / "out" / "views.json").read_text())
        assert [entry["file"] for entry in document] == [f"view_{index:02d}.png" for index in range(9)]
        assert document[0] == {
            "file": "view_00.png", "kind": "global", "yaw_deg": 0, "pitch_deg": 0, "fov_deg": 360, "coverage": 1.0,
        }  # fmt: skip
        assert document[8] == {
            "file": "view_08.png",
            "kind": "perspective",
            "yaw_deg": -45,
            "pitch_deg": 0,
            "fov_deg": 90,
            "coverage": 1.0,
        }
        for entry, pixels in zip(document, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / entry["file"])), pixels)
    write_views(tmp_path / "pano.png", plan_views("resize"), (16, 16), Rendering(), tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["contact_sheet.png", "view_00.png", "views.json"]


def test_the_border_stands_where_the_view_looks() -> None:
    panorama = np.zeros((64, 128, 3), np.uint8)

    def marked(yaw_deg: float) -> np.ndarray:
        views = [View("perspective", yaw_deg, 0.0, 60.0, 60.0)]
        sheet = contact_sheet(panorama, views, render_views(panorama, views, (8, 8)))
        return sheet[12:640, 12:-12].max(axis=-1) > 60  # the panorama on top is black but for the border

    columns = np.flatnonzero(marked(90.0).any(axis=0)) / 1256 * 360 - 180
    assert abs(columns.min() - 60) < 2
    assert abs(columns.max() - 120) < 2
    across = marked(180.0)
    assert not across[:, 300:950].any()  # nothing is drawn through the middle
    assert across[:, :110].any()
    assert across[:, -110:].any()
