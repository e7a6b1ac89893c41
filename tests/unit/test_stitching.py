"""Stitching: which tokens are kept, and that the count is right before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from panollava.errors import ConfigError
from panollava.models.stitching import Stitching
from panollava.views.geometry import project, view_rays
from panollava.views.strategies import View, plan_views

VIEWS = plan_views("anyres_e2p")
GRID = (8, 8)
MODES = ("concat", "drop_overlap", "stride_views", "resample")


def stitch(mode: str, views: tuple[View, ...] = VIEWS, grid: tuple[int, int] | None = GRID) -> Stitching:
    return Stitching(mode, views, 64, grid)


@pytest.mark.parametrize(
    "strategy", ["resize", "e2p", "anyres_e2p", "cubemap", "sliding_window", "anyres", "anyres_max"]
)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("grid", [(8, 8), (4, 16)])
def test_the_count_is_the_output_length(mode: str, strategy: str, grid: tuple[int, int]) -> None:
    views = plan_views(strategy)
    stitching = stitch(mode, views, grid)
    assert stitching(torch.randn(2, len(views), 64, 3)).shape == (2, stitching.num_tokens, 3)
    if strategy == "resize":
        assert stitching.num_tokens == 64


def test_concat_keeps_order() -> None:
    tokens = torch.arange(9 * 64.0).reshape(1, 9, 64, 1)
    assert torch.equal(stitch("concat")(tokens)[0, :, 0], torch.arange(9 * 64.0))


def test_stride_keeps_a_closed_ring() -> None:
    kept = stitch("stride_views").index.numpy() // 64
    assert sorted(set(kept.tolist())) == [0, 1, 3, 5, 7]  # the global view and every second of eight
    views = plan_views("e2p", fov_deg=90, overlap_ratio=0.1)  # five views, 72 degrees apart: none can go
    assert stitch("stride_views", views).num_tokens == 5 * 64


def test_drop_overlap_keeps_each_direction_once() -> None:
    stitching = stitch("drop_overlap")
    kept = np.zeros(9 * 64, dtype=bool)
    kept[stitching.index.numpy()] = True
    kept = kept.reshape(9, 64)
    assert kept[0].all()  # the global view is another scale
    for i in range(1, 9):
        rays = view_rays(VIEWS[i], *GRID).reshape(-1, 3)[kept[i]]
        yaw = np.rad2deg(np.arctan2(rays[:, 0], rays[:, 2])) - VIEWS[i].yaw_deg
        assert np.abs((yaw + 180) % 360 - 180).max() <= 22.5 + 1e-6
    every = view_rays(View("perspective", 20.0, 10.0, 60.0, 60.0), 16, 16).reshape(-1, 3)
    chosen = np.concatenate([view_rays(VIEWS[i], *GRID).reshape(-1, 3)[kept[i]] for i in range(1, 9)])
    assert np.rad2deg(np.arccos((every @ chosen.T).clip(-1, 1))).min(axis=1).max() < 15  # no hole


def test_resample_reproduces_a_smooth_function_of_direction() -> None:
    views, grid = plan_views("e2p"), (12, 12)
    stitching = Stitching("resample", views, 144, grid)
    assert stitching.weights is not None and torch.allclose(stitching.weights.sum(1), torch.ones(stitching.num_tokens))
    assert stitching.weights.shape[1] <= 12  # of 8·144 tokens: nothing grows with their product
    rays = np.stack([view_rays(view, *grid).reshape(-1, 3) for view in views])
    out = stitching(torch.from_numpy(rays).float()[None])[0].numpy()
    whole = view_rays(View("global", 0, 0, 360, 180), 24, 48).reshape(-1, 3)
    seen = np.any([project(view, whole)[1] for view in views], axis=0)
    assert seen.sum() == len(out) == stitching.num_tokens
    assert np.abs(out - whole[seen]).max() < 0.06


def test_tokens_without_directions_cannot_be_dropped() -> None:
    for mode in ("drop_overlap", "resample"):
        with pytest.raises(ConfigError, match="concat or stride_views"):
            stitch(mode, grid=None)
    assert Stitching("stride_views", VIEWS, 4, None).num_tokens == 5 * 4


def test_drop_overlap_keeps_what_the_nearer_view_does_not_see() -> None:
    wide, narrow = View("perspective", 0.0, 0.0, 100.0, 40.0), View("perspective", 60.0, 0.0, 40.0, 40.0)
    index = stitch("drop_overlap", (wide, narrow)).index
    yaw_deg = np.rad2deg(np.arctan2(*np.moveaxis(view_rays(wide, *GRID)[..., [0, 2]], -1, 0))).reshape(-1)
    assert ((yaw_deg > 30) & (yaw_deg < 40)).any()  # nearer to the narrow view, but outside it
    assert np.isin(np.flatnonzero(yaw_deg < 40), index).all()
