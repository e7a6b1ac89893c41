"""The overlap loss against a plain reference, the warp against the sphere, and where answers are supervised."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from panollava.errors import ConfigError
from panollava.models.losses import (
    OverlapLoss,
    answer_loss,
    off_diagonal_covariance,
    supervised_positions,
    vicreg_pairwise,
    vicreg_rows,
)
from panollava.views.geometry import view_rays
from panollava.views.strategies import plan_views


def plain_terms(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """VICReg of rows [L, D], as its authors write it."""
    spread, joint = [], []
    for x in (first, second):
        spread.append(F.relu(1 - torch.sqrt(x.var(dim=0) + 1e-4)).mean() / 2)
        covariance = torch.cov(x.T)
        joint.append((covariance.square().sum() - covariance.diagonal().square().sum()) / x.shape[1])
    return F.mse_loss(first, second), sum(spread), sum(joint)  # type: ignore[return-value]


@pytest.mark.parametrize(("rows", "width"), [(7, 20), (20, 7)])
def test_gram_form_equals_the_covariance_matrix(rows: int, width: int) -> None:
    x = torch.randn(3, rows, width, dtype=torch.float64)
    centred = x - x.mean(dim=1, keepdim=True)
    wanted = []
    for one in x:
        covariance = torch.cov(one.T)
        wanted.append(covariance.square().sum() - covariance.diagonal().square().sum())
    count = torch.full((3,), rows, dtype=torch.float64)
    assert torch.allclose(off_diagonal_covariance(centred, count), torch.stack(wanted))


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


@pytest.mark.parametrize("strategy", ["anyres_e2p", "sliding_window", "e2p", "anyres"])
def test_the_warp_finds_the_same_direction(strategy: str) -> None:
    """Features that are a smooth function of the direction agree where two views meet, and only there."""
    views, grid = plan_views(strategy), (24, 24)
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
