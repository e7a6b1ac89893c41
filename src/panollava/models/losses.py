"""The losses: VICReg between views that see the same directions, and cross entropy of answers.

VICReg (Bardes, Ponce, LeCun 2022, section 3; weights and halvings of the authors' code) pulls together what
two neighbouring views say about one direction and keeps the features from collapsing. In: one feature map per
view and the views' description. Which token of one view answers which place of its neighbour is computed on the
sphere: rays of the second view's token centres are projected into the first view, whose map is sampled there
(bilinear), and tokens that the first view does not see are left out. Grids and masks are computed once.
Traded away: pairs of views that are not neighbours; the global view, whose tokens cover other solid angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panollava.errors import ConfigError
from panollava.views.geometry import project, view_rays
from panollava.views.strategies import View, neighbour_pairs

IGNORED = -100


class VicregParts(NamedTuple):
    """Unweighted terms, detached scalars: mean squared distance, hinge below std 1, off-diagonal covariance."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


class OverlapLoss(nn.Module):
    """VICReg between neighbouring views on maps [B, V, S, D] of `grid` = (rows, columns) tokens a view.

    `pairwise`: variance and covariance over the matched tokens of each pair of each panorama, then the mean over
    pairs. `batchwise`: over all matched tokens of the batch. Raises ConfigError when no two views share directions.
    """

    source: Tensor
    target: Tensor
    warp: Tensor
    rows: Tensor
    mask: Tensor

    def __init__(
        self,
        views: Sequence[View],
        grid: tuple[int, int],
        *,
        mode: str = "pairwise",
        similarity_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if mode not in ("pairwise", "batchwise"):
            raise ValueError(f"vicreg_mode must be pairwise or batchwise, got {mode!r}")
        self.grid, self.mode = grid, mode
        self.weights = (similarity_weight, variance_weight, covariance_weight)
        pairs, warps, seen = shared_directions(views, grid)
        if not pairs:
            raise ConfigError(
                f"no two of the {len(views)} views share directions at {grid[0]}x{grid[1]} tokens a view, so the "
                "overlap loss has nothing to compare; leave the stage out: training.stages: [resampler, finetune]"
            )
        most = max(len(tokens) for tokens in seen)
        rows = np.zeros((len(pairs), most), dtype=np.int64)
        mask = np.zeros((len(pairs), most), dtype=bool)
        for index, tokens in enumerate(seen):
            rows[index, : len(tokens)], mask[index, : len(tokens)] = tokens, True
        grids = np.stack([warp.reshape(-1, 2)[row] for warp, row in zip(warps, rows, strict=True)])
        for name, value in {
            "source": torch.tensor([pair[0] for pair in pairs]),
            "target": torch.tensor([pair[1] for pair in pairs]),
            "warp": torch.from_numpy(grids).float(),  # [P, L, 2] places in the source view
            "rows": torch.from_numpy(rows),  # [P, L] tokens of the target view
            "mask": torch.from_numpy(mask),  # [P, L] False where a pair has fewer than L tokens
        }.items():
            self.register_buffer(name, value, persistent=False)

    def forward(self, maps: Tensor) -> tuple[Tensor, VicregParts]:
        """The weighted sum of the three terms, and the terms. Computed in float32 whatever autocast says."""
        with torch.autocast(maps.device.type, enabled=False):
            first, second = self.matched(maps.float())  # [B, P, L, D] each
            if self.mode == "pairwise":
                mask = self.mask.expand(len(maps), -1, -1).flatten(0, 1)  # [B·P, L]
                parts = vicreg_pairwise(first.flatten(0, 1), second.flatten(0, 1), mask)
            else:
                parts = vicreg_rows(first[:, self.mask], second[:, self.mask])
            raw = torch.stack([w * p for w, p in zip(self.weights, parts, strict=True)]).sum()
        return raw, VicregParts(*(part.detach() for part in parts))

    def matched(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the same directions from both views of each pair: two tensors [B, P, L, D]."""
        batch, _, _, width = maps.shape
        pairs, length = self.rows.shape
        source = maps[:, self.source].unflatten(2, self.grid)  # [B, P, h, w, D]
        source = source.permute(0, 1, 4, 2, 3).flatten(0, 1)  # [B·P, D, h, w]
        places = self.warp.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]  # [B·P, 1, L, 2]
        sampled = F.grid_sample(source, places.to(source.dtype), padding_mode="border", align_corners=False)
        first = sampled[:, :, 0].transpose(1, 2).unflatten(0, (batch, pairs))  # [B, P, L, D]
        index = self.rows[None, :, :, None].expand(batch, -1, length, width)
        return first, maps[:, self.target].gather(2, index)


def shared_directions(
    views: Sequence[View], grid: tuple[int, int]
) -> tuple[list[tuple[int, int]], list[np.ndarray], list[np.ndarray]]:
    """For every neighbouring pair (i, j) with at least two common tokens: where j's token centres lie in view i
    (normalised [rows, columns, 2]), and the indices of those tokens of j that i sees."""
    pairs, warps, seen = [], [], []
    for i, j in neighbour_pairs(views):
        warp, valid = project(views[i], view_rays(views[j], *grid))
        tokens = np.flatnonzero(valid)
        if len(tokens) >= 2:  # one token has no variance
            pairs.append((i, j))
            warps.append(warp)
            seen.append(tokens)
    return pairs, warps, seen


def vicreg_pairwise(first: Tensor, second: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Terms of N pairs [N, L, D], statistics over each pair's masked rows; means over pairs."""
    kept = mask[..., None].to(first.dtype)  # [N, L, 1]
    count = kept.sum(dim=(1, 2))  # [N]
    width = first.shape[-1]
    distance = ((first - second).square() * kept).sum(dim=(1, 2)) / (count * width)
    variance, covariance = [], []
    for x in (first, second):
        mean = (x * kept).sum(dim=1, keepdim=True) / count[:, None, None]
        centred = (x - mean) * kept
        variance.append(_hinge(centred.square().sum(dim=1) / (count - 1)[:, None]).mean())
        covariance.append((off_diagonal_covariance(centred, count) / width).mean())
    return distance.mean(), (variance[0] + variance[1]) / 2, covariance[0] + covariance[1]


def vicreg_rows(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Terms over all rows of [..., D]: the batchwise form."""
    first, second = first.flatten(0, -2), second.flatten(0, -2)
    mask = torch.ones(1, len(first), dtype=torch.bool, device=first.device)
    return vicreg_pairwise(first[None], second[None], mask)


def off_diagonal_covariance(centred: Tensor, count: Tensor) -> Tensor:
    """Sum [N] of the squared off-diagonal entries of the covariance matrices of centred rows [N, L, D].

    With L < D it goes by the L x L Gram matrix: ||X'X||² = ||XX'||² (Frobenius), less the diagonal's squares.
    """
    rows, width = centred.shape[1:]
    if rows < width:
        square = (centred @ centred.transpose(1, 2)).square().sum(dim=(1, 2))
    else:
        square = (centred.transpose(1, 2) @ centred).square().sum(dim=(1, 2))
    diagonal = centred.square().sum(dim=1).square().sum(dim=1)
    return (square - diagonal) / (count - 1).square()


def _hinge(variance: Tensor) -> Tensor:
    return F.relu(1 - torch.sqrt(variance + 1e-4))


def supervised_positions(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the next token is supervised, for labels [B, L].

    Returns the union over the batch of such positions (ascending, int64 [K]: what to ask the language model's
    head for) and which of [B, K] count. Raises ValueError when nothing is supervised.
    """
    wanted = labels[:, 1:] != IGNORED  # position t predicts token t + 1
    columns = wanted.any(dim=0).nonzero()[:, 0]
    if not len(columns):
        raise ValueError("labels supervise no token: every answer of the batch is empty or cut away")
    return columns, wanted[:, columns]


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy over the batch's supervised tokens, in float32: logits [N, vocab], targets [N]."""
    return F.cross_entropy(logits.float(), targets)
