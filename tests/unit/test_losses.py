"""The overlap loss against a plain reference, the warp against the sphere, and where answers are supervised."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from panollava.errors import ConfigError
from panollava.models.losses import (
    OverlapLoss,
    answer_loss,
    info_nce,
    second_moments,
    shared_directions,
    supervised_positions,
    vicreg_pairwise,
    vicreg_rows,
)
from panollava.views.geometry import project, view_rays
from panollava.views.strategies import neighbour_pairs, plan_views


def plain_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """VICReg of rows [L, D], as its authors write it."""
    spread, joint = [], []
    for x in (first, second):
        spread.append(F.relu(1 - torch.sqrt(x.var(dim=0) + 1e-4)).mean() / 2)
        covariance = torch.cov(x.T)
        joint.append((covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1])
    return F.mse_loss(first, second), sum(spread), sum(joint)  # type: ignore[return-value]


@pytest.mark.parametrize(("rows", "width"), [(7, 20), (20, 7)])
def test_either_product_gives_the_covariance_matrix(rows: int, width: int) -> None:
    """Fewer rows than columns go by the Gram matrix; values and gradients are those of the full matrix."""
    torch.manual_seed(0)
    x = torch.randn(3, rows, width, dtype=torch.float64)
    diagonal, off_diagonal = second_moments(x - x.mean(dim=1, keepdim=True))
    wanted = []
    for one in x:
        covariance = torch.cov(one.T)
        wanted.append(covariance.square().sum() - covariance.diagonal().square().sum())
    assert torch.allclose(off_diagonal / (rows - 1) ** 2, torch.stack(wanted))
    assert torch.allclose(diagonal / (rows - 1), x.var(dim=1))
    assert torch.autograd.gradcheck(second_moments, x.requires_grad_())


@pytest.mark.parametrize("width", [5, 40])
def test_masked_pairs_equal_the_plain_reference(width: int) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 4, 12, width, dtype=torch.float64, requires_grad=True)
    counts = (12, 9, 2, 5)
    mask = torch.arange(12) < torch.tensor(counts)[:, None]
    terms = vicreg_pairwise(first, second, mask)
    plain = [plain_terms(first[i, :n], second[i, :n]) for i, n in enumerate(counts)]
    for term, wanted in zip(terms, zip(*plain, strict=True), strict=True):
        assert torch.allclose(term, torch.stack(wanted).mean())
    grads = torch.autograd.grad(sum(terms), [first, second], retain_graph=True)  # type: ignore[arg-type]
    wanted_grads = torch.autograd.grad(sum(sum(p) for p in plain) / 4, [first, second])  # type: ignore
    for grad, wanted in zip(grads, wanted_grads, strict=True):
        assert torch.allclose(grad, wanted)


def test_batchwise_uses_all_rows() -> None:
    first, second = torch.randn(2, 3, 12, 5, dtype=torch.float64)
    wanted = plain_terms(first.flatten(0, 1), second.flatten(0, 1))
    for term, plain in zip(vicreg_rows(first, second), wanted, strict=True):
        assert torch.allclose(term, plain)


@pytest.mark.parametrize("grid", [(24, 24), (24, 40)])
@pytest.mark.parametrize("strategy", ["anyres_e2p", "sliding_window", "e2p", "anyres", "anyres_max"])
def test_the_warp_finds_the_same_direction(strategy: str, grid: tuple[int, int]) -> None:
    """Features that are a smooth function of the direction agree where two views meet, and only there."""
    views = plan_views(strategy, anyres_max_patches=25)  # of anyres_max: several rows of windows
    rays = np.stack([view_rays(view, *grid).reshape(-1, 3) for view in views])
    smooth = np.stack([np.sin(2 * rays[..., 0]) + rays[..., 1], np.cos(2 * rays[..., 2]) * rays[..., 1]], axis=-1)
    loss = OverlapLoss(views, grid)
    first, second = loss.matched(torch.from_numpy(smooth)[None])
    error = (first - second).abs()[:, loss.mask]
    assert error.max() < 0.05 and error.mean() < 0.006
    rolled = torch.from_numpy(smooth).roll(1, dims=0)[None]  # views in the wrong places
    first, second = loss.matched(rolled)
    if strategy == "anyres_e2p":
        assert (first - second).abs()[:, loss.mask].mean() > 0.05
    assert not (loss.source == 0).any() or views[0].kind != "global"


def test_the_ring_is_closed_and_half_the_tokens_meet() -> None:
    loss = OverlapLoss(plan_views("anyres_e2p"), (16, 16))
    pairs = set(zip(loss.source.tolist(), loss.target.tolist(), strict=True))
    assert len(pairs) == 8 and {frozenset(p) for p in pairs} == {frozenset((i, i % 8 + 1)) for i in range(1, 9)}
    assert loss.mask.sum(dim=1).tolist() == [120] * 8  # of 256, at 90 degrees and a step of 45


@pytest.mark.parametrize("mode", ["pairwise", "batchwise"])
def test_the_loss_is_the_weighted_sum_of_its_terms(mode: str) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 9, 16, 6)
    loss = OverlapLoss(plan_views("anyres_e2p"), (4, 4), mode=mode)
    raw, parts = loss(maps)
    assert torch.allclose(raw, 25 * parts.invariance + 25 * parts.variance + parts.covariance)
    first, second = loss.matched(maps)
    if mode == "batchwise":
        plain = plain_terms(first[:, loss.mask].flatten(0, 1), second[:, loss.mask].flatten(0, 1))
    else:
        each = [plain_terms(first[b, p][loss.mask[p]], second[b, p][loss.mask[p]]) for b in range(2) for p in range(8)]
        plain = tuple(torch.stack(term).mean() for term in zip(*each, strict=True))  # type: ignore[assignment]
    for part, wanted in zip(parts, plain, strict=True):
        assert torch.allclose(part, wanted, rtol=1e-4)


def plain_info_nce(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Rows [L, D] of one pair, one row after the other: the matched direction among all of the other side."""
    losses = []
    for x, y in ((first, second), (second, first)):
        for row, own in enumerate(x):
            likeness = torch.stack([F.cosine_similarity(own, other, dim=0) for other in y]) / temperature
            losses.append(-torch.log_softmax(likeness, dim=0)[row])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("mode", ["pairwise", "batchwise"])
def test_densecl_contrasts_matched_directions_with_all_others(mode: str) -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 8, 16, 6, requires_grad=True)
    loss = OverlapLoss(plan_views("sliding_window"), (4, 4), loss="densecl", mode=mode, temperature=0.3)
    raw, parts = loss(maps)
    first, second = loss.matched(maps)
    wanted = []
    for pair, kept in enumerate(loss.mask):
        rows = [(first[b, pair][kept], second[b, pair][kept]) for b in range(2)]
        if mode == "batchwise":
            rows = [(torch.cat([rows[0][0], rows[1][0]]), torch.cat([rows[0][1], rows[1][1]]))]
        wanted += [plain_info_nce(x, y, 0.3) for x, y in rows]
    assert parts is None and torch.allclose(raw, torch.stack(wanted).mean())
    (grad,) = torch.autograd.grad(raw, maps, retain_graph=True)
    assert torch.allclose(grad, torch.autograd.grad(torch.stack(wanted).mean(), maps)[0], atol=1e-6)


def test_densecl_passes_over_masked_rows() -> None:
    first, second = torch.randn(2, 3, 9, 5, dtype=torch.float64)
    counts = (9, 4, 2)
    mask = torch.arange(9) < torch.tensor(counts)[:, None]
    wanted = [plain_info_nce(first[i, :n], second[i, :n], 0.2) for i, n in enumerate(counts)]
    assert torch.allclose(info_nce(first, second, mask, 0.2), torch.stack(wanted).mean())


def test_densecl_is_low_where_views_agree_about_directions() -> None:
    """Features that tell directions apart and are the same in every view: nearly nothing is left to learn."""
    views, grid = plan_views("anyres_e2p"), (8, 8)
    rays = np.stack([view_rays(view, *grid).reshape(-1, 3) for view in views])
    centres = np.random.default_rng(0).normal(size=(3, 512))
    told = torch.from_numpy(np.exp(-8 * (1 - rays @ (centres / np.linalg.norm(centres, axis=0))))).float()[None]
    loss = OverlapLoss(views, grid, loss="densecl", temperature=0.02)
    right, wrong = loss(told)[0], loss(told.roll(1, dims=1))[0]
    assert right < 0.5 < 2 < wrong


@pytest.mark.parametrize("loss", ["vicreg", "densecl"])
@pytest.mark.parametrize("mode", ["pairwise", "batchwise"])
@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        ("e2p", {}), ("anyres_e2p", {}), ("anyres_e2p", {"fov_deg": 110, "overlap_ratio": 0.2}), ("sliding_window", {}),
        ("anyres", {}), ("anyres_max", {"anyres_max_patches": 25}), ("anyres_max", {"fov_deg": 110}),
    ],
)  # fmt: skip
def test_every_overlapping_strategy_learns_to_agree(strategy: str, settings: Any, mode: str, loss: str) -> None:
    """Gradient descent on the maps themselves makes neighbouring views agree; views that nobody compares stay."""
    views = plan_views(strategy, **settings)
    overlap = OverlapLoss(views, (6, 6), loss=loss, mode=mode)
    torch.manual_seed(0)
    maps = torch.randn(2, len(views), 36, 8, requires_grad=True)
    optimizer = torch.optim.SGD([maps], lr=8.0 if loss == "densecl" else 0.5)
    before = maps.detach().clone()
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        losses.append(overlap(maps)[0])
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]
    compared = set(overlap.source.tolist()) | set(overlap.target.tolist())
    for index, view in enumerate(views):
        moved = not torch.equal(maps[:, index], before[:, index])
        assert moved == (index in compared) == (view.kind != "global")


PLANS = [
    (strategy, {"fov_deg": fov, "overlap_ratio": overlap, "anyres_max_patches": cap, "cubemap_poles": poles})
    for strategy, caps, bools in (
        ("resize", [9], [True]), ("sliding_window", [9], [True]), ("e2p", [9], [True]), ("cubemap", [9], [True, False]),
        ("anyres", [1, 2, 3, 5, 9, 13], [True]), ("anyres_max", [1, 2, 3, 9, 13, 25], [True]),
        ("anyres_e2p", [9], [True]),
    )
    for cap in caps for poles in bools for fov in (60, 90, 120) for overlap in (0.1, 0.5, 0.7)
]  # fmt: skip


@pytest.mark.parametrize(("strategy", "settings"), PLANS)
def test_pairs_are_neighbours_that_see_the_same_directions(strategy: str, settings: Any) -> None:
    """Against the sphere itself: every pair shares directions, and nothing is refused although views overlap."""
    views = plan_views(strategy, **settings)
    pairs, _, seen = shared_directions(views, (40, 40))
    assert pairs == neighbour_pairs(views), "a pair that shares no directions"
    local = [index for index, view in enumerate(views) if view.kind != "global"]
    shared = {
        (i, j): int(project(views[i], view_rays(views[j], 40, 40))[1].sum()) for i in local for j in local if i != j
    }
    assert bool(pairs) == any(count >= 2 for count in shared.values())
    assert all(len(tokens) == shared[pair] for pair, tokens in zip(pairs, seen, strict=True))
    paired = {frozenset(pair) for pair in pairs}
    for i in local:  # whom a view shares most with, that is its neighbour
        best = max((shared[i, j] for j in local if j != i), default=0)
        if best >= 2:
            assert any(shared[i, j] == best and frozenset((i, j)) in paired for j in local if j != i)
    assert len(paired) == len(pairs)


@pytest.mark.parametrize("strategy", ["resize", "cubemap"])
def test_nothing_to_compare(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"training.stages: \[resampler, finetune\]"):
        OverlapLoss(plan_views(strategy), (4, 4))


def test_supervised_positions_predict_the_next_token() -> None:
    labels = torch.tensor([[-100, -100, 5, 6, -100], [-100, 7, -100, -100, -100]])
    columns, counts = supervised_positions(labels)
    assert columns.tolist() == [0, 1, 2]
    assert counts.tolist() == [[False, True, True], [True, False, False]]
    logits = torch.randn(2, 5, 9)
    whole = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    mine = answer_loss(logits[:, columns][counts], labels[:, columns + 1][counts])
    assert torch.allclose(mine, whole)
    with pytest.raises(ValueError, match="supervise no token"):
        supervised_positions(torch.full((2, 4), -100))


@pytest.mark.parametrize("mode", ["pairwise", "batchwise"])
@pytest.mark.parametrize("loss", ["vicreg", "densecl"])
def test_views_that_see_too_little_of_a_partial_panorama_are_left_out(loss: str, mode: str) -> None:
    torch.manual_seed(0)
    views = plan_views("anyres_e2p")
    compare = OverlapLoss(views, (4, 4), loss=loss, mode=mode)
    maps = torch.randn(2, len(views), 16, 8, requires_grad=True)
    kept = torch.ones(2, len(views), dtype=torch.bool)
    assert torch.equal(compare(maps, kept)[0], compare(maps)[0])
    kept[0, 3] = False
    value, parts = compare(maps, kept)
    (gradient,) = torch.autograd.grad(value, maps)
    assert gradient[0, 3].abs().max() == 0 and gradient[0, 2].abs().max() > 0 and gradient[1, 3].abs().max() > 0
    assert (parts is None) == (loss == "densecl")
    if mode == "pairwise":  # a pair that is left out adds nothing to the mean over all pairs
        whole = [compare(maps[one : one + 1])[0] for one in (0, 1)]
        alone = compare(maps[:1], kept[:1])[0]
        assert torch.allclose(value, (alone + whole[1]) / 2, rtol=1e-4) and 0 < alone < whole[0] * 1.2
    nothing = compare(maps, torch.zeros_like(kept))[0]
    nothing.backward()
    assert nothing == 0 and maps.grad is not None and not maps.grad.any()
