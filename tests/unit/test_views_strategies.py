"""What views each strategy states."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from panollava.errors import ConfigError
from panollava.views import strategies
from panollava.views.strategies import CROP_STRATEGIES, GLOBAL_VIEW, View, neighbour_pairs, plan_views, ring_size

OTHER_VALUES = {"fov_deg": 110.0, "overlap_ratio": 0.2, "anyres_max_patches": 5, "cubemap_poles": False}


KINDS = {
    "resize": ["global"],
    "sliding_window": ["crop"] * 8,
    "e2p": ["perspective"] * 8,
    "cubemap": ["perspective"] * 6,
    "anyres": ["global"] + ["crop"] * 8,
    "anyres_max": ["global"] + ["crop"] * 8,
    "anyres_e2p": ["global"] + ["perspective"] * 8,
}


@pytest.mark.parametrize("name", CROP_STRATEGIES)
def test_views_at_the_defaults(name: str) -> None:
    assert [view.kind for view in plan_views(name)] == KINDS[name]


@pytest.mark.parametrize(
    ("fov", "overlap", "count"), [(90, 0.5, 8), (60, 0.5, 12), (80, 0.1, 5), (100, 0.3, 6), (90, 0.7, 14)]
)
@pytest.mark.parametrize("name", ["sliding_window", "e2p", "anyres_e2p"])
def test_rings_are_closed_and_start_in_front(name: str, fov: float, overlap: float, count: int) -> None:
    ring = [view for view in plan_views(name, fov_deg=fov, overlap_ratio=overlap) if view.kind != "global"]
    assert len(ring) == count == ring_size(fov, overlap)
    assert ring[0].yaw_deg == 0
    for left, right in zip(ring, ring[1:] + ring[:1], strict=True):
        assert (right.yaw_deg - left.yaw_deg) % 360 == pytest.approx(360 / count)
    assert all(-180 < view.yaw_deg <= 180 and view.hfov_deg == fov for view in ring)
    assert all(view.vfov_deg == (180 if name == "sliding_window" else fov) for view in ring)


def test_cubemap_faces() -> None:
    faces = [(view.yaw_deg, view.pitch_deg) for view in plan_views("cubemap", fov_deg=70)]
    assert faces == [(0, 0), (90, 0), (180, 0), (-90, 0), (0, 90), (0, -90)]
    assert len(plan_views("cubemap", cubemap_poles=False)) == 4
    assert {view.hfov_deg for view in plan_views("cubemap", fov_deg=70)} == {90.0}


@pytest.mark.parametrize("cap", range(1, 30))
@pytest.mark.parametrize("name", ["anyres", "anyres_max"])
def test_the_cap_counts_the_global_view_and_leaves_no_gap(name: str, cap: int) -> None:
    views = plan_views(name, anyres_max_patches=cap)
    assert len(views) <= cap
    assert views[0] == GLOBAL_VIEW
    rows: dict[float, list[View]] = {}
    for view in views[1:]:
        rows.setdefault(view.pitch_deg, []).append(view)
    for row in rows.values():
        assert row[0].hfov_deg * len(row) >= 360 - 1e-9
    if name == "anyres_max" and cap > 1:
        assert sum(row[0].vfov_deg for row in rows.values()) >= 180 - 1e-9
        assert max(v.pitch_deg + v.vfov_deg / 2 for v in views[1:]) == pytest.approx(90)
        assert min(v.pitch_deg - v.vfov_deg / 2 for v in views[1:]) == pytest.approx(-90)


def test_anyres_max_tiles_the_panorama() -> None:
    views = plan_views("anyres_max")[1:]
    assert [(v.yaw_deg, v.pitch_deg) for v in views] == [(y, p) for p in (45, -45) for y in (0, 90, 180, -90)]
    assert {(v.hfov_deg, v.vfov_deg) for v in views} == {(90.0, 90.0)}


def test_neighbour_pairs() -> None:
    ring = [(i, i % 8 + 1) for i in range(1, 9)]
    assert neighbour_pairs(plan_views("anyres_e2p")) == ring
    assert neighbour_pairs(plan_views("anyres")) == ring
    for name in ("resize", "cubemap", "anyres_max"):  # these touch, at most
        assert neighbour_pairs(plan_views(name)) == []
    wide_cube = [View("perspective", v.yaw_deg, v.pitch_deg, 100, 100) for v in plan_views("cubemap")]
    assert sorted(map(sorted, neighbour_pairs(wide_cube))) == sorted(
        [[0, 1], [1, 2], [2, 3], [0, 3]] + [[face, pole] for face in range(4) for pole in (4, 5)]
    )
    grid = plan_views("anyres_max", fov_deg=110)  # 2 x 4 windows of 110 x 110 degrees
    pairs = {frozenset(pair) for pair in neighbour_pairs(grid)}
    assert len(pairs) == 12
    assert {frozenset((1, 5)), frozenset((4, 1)), frozenset((5, 6))} <= pairs


def test_json_round_trip() -> None:
    for view in plan_views("anyres_max", fov_deg=77.7):
        assert View.from_json(view.to_json()) == view
    assert View.from_json({"kind": "perspective", "yaw_deg": 3, "pitch_deg": 0, "fov_deg": 60}).vfov_deg == 60
    with pytest.raises(ValueError, match="kind must be one of"):
        View.from_json({"kind": "fisheye", "yaw_deg": 0, "pitch_deg": 0, "fov_deg": 60})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap_ratio": 1.5}, r"overlap_ratio must be in \(0, 1\), got 1.5. Typical range: \[0.3, 0.7\]"),
        ({"overlap_ratio": 0.0}, "overlap_ratio"),
        ({"overlap_ratio": math.nan}, "overlap_ratio"),
        ({"fov_deg": 180.0}, r"fov_deg must be in \(0, 180\)"),
        ({"anyres_max_patches": 0}, r"anyres_max_patches must be in \[1, 1024\], got 0"),
        ({"fov_deg": 1e-300}, "more than 1024 views"),
        ({"overlap_ratio": 1 - 1e-12}, "more than 1024 views"),
    ],
)
def test_values_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_views("anyres_e2p", **settings)  # type: ignore[arg-type]


def test_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'anyres_e2p'"):
        plan_views("anyres-e2p")


def test_planning_imports_no_numpy() -> None:
    code = "import sys, panollava.views.strategies; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_documentation_lists_the_strategies_and_what_they_read() -> None:
    text = (Path(__file__).parents[2] / "docs/views.md").read_text(encoding="utf-8")
    rows = {
        cells[0]: cells[1:] for cells in re.findall(r"^\| `(\w+)` \| (\d+) \| (.*) \| (.*) ?\|$", text, re.MULTILINE)
    }
    assert tuple(rows) == get_args(strategies.CropStrategy) == tuple(CROP_STRATEGIES)
    for name, (count, _, reads) in rows.items():
        assert len(plan_views(name)) == int(count)
        assert tuple(re.findall(r"`(\w+)`", reads)) == CROP_STRATEGIES[name].reads
        for setting, value in OTHER_VALUES.items():
            settings: tuple[dict[str, Any], ...] = ({}, {"anyres_max_patches": 60})
            changed = any(plan_views(name, **{**one, setting: value}) != plan_views(name, **one) for one in settings)
            assert changed == (setting in CROP_STRATEGIES[name].reads), (name, setting)
