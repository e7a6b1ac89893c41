"""Sphere <-> pixel: conventions, round trips and the exact correspondence of neighbouring views."""

from __future__ import annotations

import math

import numpy as np
import pytest

from panollava.views.geometry import (
    angles_to_rays,
    erp_to_rays,
    pixel_centres,
    project,
    rays_to_angles,
    rays_to_erp,
    unproject,
    view_rays,
)
from panollava.views.strategies import CROP_STRATEGIES, GLOBAL_VIEW, View, neighbour_pairs, plan_views

EVERY_VIEW = [
    *sorted({view for name in CROP_STRATEGIES for view in plan_views(name)}, key=repr),
    View("perspective", -30.0, 25.0, 100.0, 70.0),
]


def test_axes_and_signs() -> None:
    def looks(yaw: float, pitch: float) -> np.ndarray:
        return angles_to_rays(np.array(yaw), np.array(pitch)).round(12)

    assert looks(0, 0).tolist() == [0, 0, 1]
    assert looks(90, 0).tolist() == [1, 0, 0]  # positive yaw is right
    assert looks(0, 90).tolist() == [0, 1, 0]  # positive pitch is up
    x, y = rays_to_erp(angles_to_rays(np.array([0.0, 90, -90, 0, 0]), np.array([0.0, 0, 0, 45, -45])), 100, 200)
    np.testing.assert_allclose(x, [99.5, 149.5, 49.5, 99.5, 99.5], atol=1e-9)
    np.testing.assert_allclose(y, [49.5, 49.5, 49.5, 24.5, 74.5], atol=1e-9)


def test_field_of_view_spans_the_pixels_edges() -> None:
    rays = view_rays(View("perspective", 0.0, 0.0, 90.0, 60.0), 5, 4)
    assert rays.shape == (5, 4, 3)
    np.testing.assert_allclose(rays[2, :, 0] / rays[2, :, 2], [-0.75, -0.25, 0.25, 0.75], atol=1e-12)
    tangent = math.tan(math.radians(30))
    np.testing.assert_allclose(rays[:, 0, 1] / rays[:, 0, 2], tangent * np.array([0.8, 0.4, 0, -0.4, -0.8]), atol=1e-12)
    yaw_deg, pitch_deg = rays_to_angles(view_rays(View("crop", 90.0, 0.0, 40.0, 180.0), 2, 4))
    np.testing.assert_allclose(yaw_deg[0], [75, 85, 95, 105])
    np.testing.assert_allclose(pitch_deg[:, 0], [45, -45])


def test_global_view_is_the_panorama_itself() -> None:
    x, y = np.meshgrid(np.arange(16.0), np.arange(8.0))
    np.testing.assert_allclose(view_rays(GLOBAL_VIEW, 8, 16), erp_to_rays(x, y, 8, 16), atol=1e-12)


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda v: f"{v.kind}-{v.yaw_deg:g}-{v.pitch_deg:g}-{v.hfov_deg:g}")
def test_projecting_a_views_own_rays_returns_its_pixels(view: View) -> None:
    rays = view_rays(view, 6, 10)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=-1), 1, atol=1e-12)
    uv, valid = project(view, 3.7 * rays)  # length must not matter
    assert valid.all()
    u, v = np.meshgrid(pixel_centres(10), pixel_centres(6))
    np.testing.assert_allclose(uv, np.stack([u, v], axis=-1), atol=1e-9)
    np.testing.assert_allclose(unproject(view, uv), rays, atol=1e-9)


@pytest.mark.parametrize("view", EVERY_VIEW, ids=lambda v: f"{v.kind}-{v.yaw_deg:g}-{v.pitch_deg:g}-{v.hfov_deg:g}")
def test_valid_is_inside_the_edges_and_in_front(view: View) -> None:
    random = np.random.default_rng(0).normal(size=(4000, 3))
    random /= np.linalg.norm(random, axis=-1, keepdims=True)
    uv, valid = project(view, random)
    assert np.isfinite(uv).all()
    np.testing.assert_allclose(unproject(view, uv[valid]), random[valid], atol=1e-9)
    half = np.deg2rad([view.hfov_deg / 2, view.vfov_deg / 2])
    if view.kind == "perspective":  # the solid angle of a rectangular pyramid
        area = 4 * np.arcsin(np.prod(np.sin(np.arctan(np.tan(half)))) * 1.0)
    else:
        top, bottom = np.deg2rad(view.pitch_deg) + half[1], np.deg2rad(view.pitch_deg) - half[1]
        area = 2 * half[0] * (np.sin(top) - np.sin(bottom))
    assert valid.mean() == pytest.approx(area / (4 * np.pi), abs=0.03)


def test_erp_round_trip() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-0.5, 511.5, 500), rng.uniform(-0.49, 255.49, 500)
    np.testing.assert_allclose(rays_to_erp(erp_to_rays(x, y, 256, 512), 256, 512), (x, y), atol=1e-8)


def test_correspondence_of_neighbours_is_exact() -> None:
    """The warp that DESIGN.md states: at 16 x 16 and 45 degrees 120 of 256 patches have a partner."""
    views = plan_views("e2p")
    for first, second in neighbour_pairs(views):
        for source, target, turn in ((first, second, 45), (second, first, -45)):
            uv, valid = project(views[target], view_rays(views[source], 16, 16))
            assert valid.sum() == 120
            x, y, z = np.moveaxis(view_rays(views[0], 16, 16), -1, 0)  # the same patches in the camera's frame
            sine, cosine = np.sin(np.deg2rad(-turn)), np.cos(np.deg2rad(-turn))
            depth = -x * sine + z * cosine
            expected = np.stack([(x * cosine + z * sine) / depth, -y / depth], axis=-1)
            np.testing.assert_allclose(uv[valid], expected[valid], atol=1e-9)


@pytest.mark.parametrize("name", sorted(CROP_STRATEGIES))
@pytest.mark.parametrize("fov_deg", [50.0, 90.0, 120.0])
def test_pairs_are_those_neighbours_that_share_directions(name: str, fov_deg: float) -> None:
    views = plan_views(name, fov_deg=fov_deg, overlap_ratio=0.3)
    pairs = neighbour_pairs(views)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    for first, second in pairs:
        assert views[first].kind != "global"
        shared = [
            project(views[b], view_rays(views[a], 32, 32))[1].sum() for a, b in ((first, second), (second, first))
        ]
        assert shared[0] > 0
        assert shared[0] == shared[1]  # the overlap is symmetrical
    for view in views:  # and nobody who overlaps the next view to the right was forgotten
        ring = [v for v in views if v.kind == view.kind != "global" and v.pitch_deg == view.pitch_deg]
        others = [v for v in ring if v != view]
        if not others:
            continue
        following = min(others, key=lambda v: (v.yaw_deg - view.yaw_deg) % 360)
        overlaps = project(following, view_rays(view, 32, 32))[1].any()
        pair = frozenset((views.index(view), views.index(following)))
        assert overlaps == (pair in {frozenset(p) for p in pairs})
