"""Pixels of views: what is where, no seam, right poles, little aliasing, equal to py360convert where it can be."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import py360convert
import pytest
from numpy.typing import NDArray
from PIL import Image
from supersampling import psnr, quick_reference, reference

from panollava.views.geometry import erp_to_rays, project, view_rays
from panollava.views.panorama import load_panorama
from panollava.views.render import open_views, render_views, required_width
from panollava.views.rendering import Rendering
from panollava.views.strategies import CROP_STRATEGIES, GLOBAL_VIEW, View, neighbour_pairs, plan_views

REAL_IMAGES = Path(__file__).parents[3] / "shared" / "data" / "quic360" / "images"
Pixels = NDArray[np.uint8]


def colour_of(rays: NDArray[np.float64]) -> NDArray[np.float64]:
    """A picture on the sphere without a seam: red grows to the right, green upwards, blue forwards."""
    return 127.5 + 127.5 * rays


@lru_cache
def smooth_panorama(height: int = 256) -> Pixels:
    x, y = np.meshgrid(np.arange(2.0 * height), np.arange(1.0 * height))
    return np.rint(colour_of(erp_to_rays(x, y, height, 2 * height))).astype(np.uint8)


@lru_cache
def busy_panorama(height: int) -> Pixels:
    """Texture at every scale, as photographs have it, drawn on the sphere so that seam and poles are sound."""
    x, y = np.meshgrid(np.arange(2.0 * height), np.arange(1.0 * height))
    rays = erp_to_rays(x, y, height, 2 * height)
    rng = np.random.default_rng(3)
    total = np.zeros((height, 2 * height, 3))
    for frequency in (3, 6, 12, 24, 48, 96):
        for channel in range(3):
            wave = rays @ (frequency * rng.normal(size=3)) + rng.uniform(0, 6)
            total[..., channel] += np.sign(np.sin(wave)) * 40 / frequency**0.2
    return np.clip(128 + total, 0, 255).astype(np.uint8)


def distance(first: Pixels, second: Pixels) -> int:
    return int(np.abs(first.astype(int) - second).max())


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("name", sorted(CROP_STRATEGIES))
def test_every_pixel_shows_its_direction(name: str, antialias: bool) -> None:
    """Seam, poles, signs and half pixels at once, for every view of every strategy and a shape that is not square."""
    views = plan_views(name)
    rendered = render_views(smooth_panorama(), views, (24, 32), Rendering(antialias))
    assert rendered.shape == (len(views), 24, 32, 3)
    assert rendered.dtype == np.uint8
    for view, pixels in zip(views, rendered, strict=True):
        tolerance = 2.0 if view.kind == "perspective" else 4.0  # near a pole a wide pixel is no direction
        assert np.abs(pixels - colour_of(view_rays(view, 24, 32))).max() < tolerance


@pytest.mark.parametrize("antialias", [True, False])
def test_rolling_the_panorama_permutes_the_tiles(antialias: bool) -> None:
    panorama, views = busy_panorama(128), plan_views("e2p")
    tiles = render_views(panorama, views, (32, 32), Rendering(antialias))
    for steps in (1, 4):  # one step of the ring, half of the panorama
        rolled = render_views(np.roll(panorama, -steps * 256 // 8, axis=1), views, (32, 32), Rendering(antialias))
        assert distance(rolled, np.roll(tiles, -steps, axis=0)) == 0  # every tile cuts the same window
        assert distance(rolled, np.roll(tiles, 1 - steps, axis=0)) > 100  # the test can fail


def test_the_seam_is_invisible() -> None:
    """A view across the seam is no rougher than the same content away from it."""
    panorama = busy_panorama(128)
    for view in (View("perspective", 180, 0, 90, 90), View("crop", 180, 0, 90, 90)):
        front = View(view.kind, 0, 0, 90, 90)
        across = render_views(panorama, [view], (64, 64))[0]
        away = render_views(np.roll(panorama, 128, axis=1), [front], (64, 64))[0]
        assert distance(across, away) <= 2


def test_poles_meet_the_horizon() -> None:
    """Where the upper face touches the front face, both show the same; the ground is below."""
    front, up, down = render_views(
        smooth_panorama(), [View("perspective", 0, pitch, 90, 90) for pitch in (0, 90, -90)], (64, 64)
    )
    assert np.abs(front[0].astype(int) - up[-1]).max() <= 5
    assert np.abs(front[-1].astype(int) - down[0]).max() <= 5
    assert up[32, 32, 1] > 250
    assert down[32, 32, 1] < 5


def test_rows_continue_over_a_pole_on_the_other_side() -> None:
    panorama = np.zeros((32, 64, 3), np.uint8)
    panorama[0, 16:48] = 255  # around the pole: front half white, back half black
    up = render_views(panorama, [View("perspective", 0, 90, 8, 8)], (9, 9), Rendering(antialias=False))[0, ..., 0]
    assert (up[-1] > 150).all()  # below the pole lies the front
    assert (up[0] < 105).all()
    np.testing.assert_allclose(up[4, 4], 127.5, atol=1)


@pytest.mark.parametrize("height", [100, 256, 380])
def test_anti_aliased_views_are_close_to_supersampling(height: int) -> None:
    panorama, size = busy_panorama(height), (24, 24)
    views = [plan_views("anyres_e2p")[1], plan_views("cubemap")[5], plan_views("anyres_max")[3], GLOBAL_VIEW]
    for view, pixels in zip(views, render_views(panorama, views, size), strict=True):
        assert psnr(pixels, reference(panorama, view, size)) >= 36, view
    points = render_views(panorama, views[:1], size, Rendering(antialias=False))[0]
    assert height < 256 or psnr(points, reference(panorama, views[0], size)) < 30  # the measure tells them apart


@pytest.mark.parametrize("fov_deg", [40.0, 120.0])
def test_other_fields_of_view_are_close_to_supersampling(fov_deg: float) -> None:
    view = View("perspective", 200.0, 0.0, fov_deg, fov_deg)
    panorama = busy_panorama(256)
    assert psnr(render_views(panorama, [view], (24, 24))[0], reference(panorama, view, (24, 24))) >= 36


@pytest.mark.parametrize("size", [(16, 16), (37, 29), (63, 100)])
def test_equirectangular_views_of_any_size_are_close_to_supersampling(size: tuple[int, int]) -> None:
    """Whole and broken numbers of pixels for each of the view's, windows on the pixels' edges and between them."""
    views = [
        GLOBAL_VIEW,
        *(View("crop", yaw, 20.0, 90.0, 70.0) for yaw in (0.0, 181.3)),
        *plan_views("anyres_max")[2:4],
    ]
    for height in (200, 256, 380):
        panorama = busy_panorama(height)
        for view, pixels in zip(views, render_views(panorama, views, size), strict=True):
            assert psnr(pixels, quick_reference(panorama, view, size)) >= 36, (view, height)


def test_the_quick_reference_is_the_reference() -> None:
    panorama = busy_panorama(256)
    for view in (*plan_views("cubemap")[3:], View("crop", -47.0, -45.0, 90.0, 90.0), GLOBAL_VIEW):
        quick, exact = (found(panorama, view, (12, 16)) for found in (quick_reference, reference))
        assert np.abs(quick - exact).max() < 0.5


def test_neighbouring_tiles_agree_on_what_both_see() -> None:
    """What the overlap loss compares: the same directions, seen by two tiles."""
    panorama, views = busy_panorama(256), plan_views("e2p")
    left, right = neighbour_pairs(views)[0]

    def agreement(antialias: bool) -> float:
        tiles = render_views(panorama, views, (32, 32), Rendering(antialias))
        uv, valid = project(views[right], view_rays(views[left], 32, 32))
        x, y = np.moveaxis(((uv + 1) * 16 - 0.5).astype(np.float32), -1, 0)
        seen = cv2.remap(tiles[right], x, y, cv2.INTER_LINEAR)
        return psnr(seen[valid], tiles[left][valid])

    assert agreement(True) > agreement(False) + 3


def corner_to_corner(fov_deg: float, pixels: int) -> float:
    """py360convert lets a FoV span the outer pixels' centres; this is the angle between ours."""
    return 2 * math.degrees(math.atan(math.tan(math.radians(fov_deg) / 2) * (pixels - 1) / pixels))


@pytest.mark.parametrize(
    "view", [*plan_views("cubemap"), View("perspective", -37, 21, 70, 50)], ids=lambda v: f"{v.yaw_deg}/{v.pitch_deg}"
)
def test_point_sampling_equals_py360convert(view: View) -> None:
    """Same sampling positions through its public function, by asking for the angle between our outer centres."""
    panorama = cv2.GaussianBlur(busy_panorama(256), (0, 0), 1)  # its cv2 sampler rounds positions to 1/32 pixel
    expected = py360convert.e2p(
        panorama,
        fov_deg=(corner_to_corner(view.hfov_deg, 40), corner_to_corner(view.vfov_deg, 30)),
        u_deg=view.yaw_deg,
        v_deg=view.pitch_deg,
        out_hw=(30, 40),
        mode="bilinear",
    )
    assert distance(render_views(panorama, [view], (30, 40), Rendering(antialias=False))[0], expected) <= 4


def test_the_same_bytes_every_time_and_from_several_threads() -> None:
    panorama, views = busy_panorama(256), plan_views("anyres_e2p")
    expected = render_views(panorama, views, (40, 40))
    with ThreadPoolExecutor(4) as pool:
        for rendered in pool.map(lambda _: render_views(panorama, views, (40, 40)), range(8)):
            np.testing.assert_array_equal(rendered, expected)
    alone = [render_views(panorama, [view], (40, 40))[0] for view in reversed(views)]
    np.testing.assert_array_equal(alone[::-1], expected)  # a view does not depend on its company


def test_odd_sizes_and_tiny_panoramas() -> None:
    for height in (2, 7, 33, 301):
        rendered = render_views(smooth_panorama(height), plan_views("anyres_e2p"), (16, 16))
        assert rendered.shape == (9, 16, 16, 3)
    assert np.abs(rendered[0] - colour_of(view_rays(GLOBAL_VIEW, 16, 16))).max() < 4


def test_required_width_bounds_the_decoded_size() -> None:
    assert required_width(plan_views("resize"), (64, 64)) == 384  # three rows for each of the view's
    assert required_width(plan_views("e2p"), (256, 256)) == pytest.approx(2.45 * math.pi * 256, abs=2)
    assert required_width(plan_views("e2p"), (256, 256), Rendering(antialias=False)) is None
    assert required_width([], (256, 256)) is None


@pytest.mark.skipif(not REAL_IMAGES.is_dir(), reason=f"no real panoramas in {REAL_IMAGES}")
def test_real_panoramas_from_reduced_decoding_are_close_to_supersampling() -> None:
    path = sorted(REAL_IMAGES.glob("*.jpg"))[0]
    panorama, views = load_panorama(path), plan_views("cubemap")[::4]
    for view, pixels in zip(views, open_views(path, views, (32, 32)), strict=True):
        assert psnr(pixels, reference(panorama, view, (32, 32))) >= 36


@pytest.mark.parametrize("name", ["e2p", "cubemap", "anyres_e2p"])
def test_py360converts_views_are_its_own_pixel_by_pixel(tmp_path: Path, name: str) -> None:
    """And from a file too, of which nothing is decoded smaller. Views that it does not cut stay the same."""
    panorama = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(panorama).save(tmp_path / "p.png")
    views, size, rendering = plan_views(name), (20, 24), Rendering(renderer="py360convert")
    rendered, plain = render_views(panorama, views, size, rendering), render_views(panorama, views, size)
    assert (open_views(tmp_path / "p.png", views, size, rendering) == rendered).all()
    for view, pixels, ours in zip(views, rendered, plain, strict=True):
        expected = ours
        if view.kind == "perspective":
            fov = (view.hfov_deg, view.vfov_deg)
            expected = py360convert.e2p(panorama, fov, view.yaw_deg, view.pitch_deg, size, mode="bilinear")
            assert (pixels != ours).any()
        assert pixels.dtype == np.uint8 and (pixels == expected).all(), view
