"""The losses: two overlap losses between views that see the same directions, and cross entropy of answers.

VICReg (Bardes, Ponce, LeCun 2022, section 3; weights and halvings of the authors' code) pulls together what
two neighbouring views say about one direction and keeps the features from collapsing; DenseCL (Wang et al. 2021,
section 3.3) contrasts it with what they say about other directions. In: one feature map per
view and the views' description. Which token of one view answers which place of its neighbour is computed on the
sphere: rays of the second view's token centres are projected into the first view, whose map is sampled there
(bilinear), and tokens that the first view does not see are left out. Grids and masks are computed once.
Traded away: pairs of views that are not neighbours; the global view, whose tokens cover other solid angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from panollava.errors import ConfigError
from panollava.models.prompt import IGNORED as IGNORED
from panollava.models.selection import select_rows
from panollava.views.geometry import project, view_rays
from panollava.views.strategies import View, neighbour_pairs

if TYPE_CHECKING:
    from panollava.models.config import ModelConfig


class VicregParts(NamedTuple):
    """Unweighted terms, detached scalars: mean squared distance, hinge below std 1, off-diagonal covariance."""

    invariance: Tensor
    variance: Tensor
    covariance: Tensor


class OverlapLoss(nn.Module):
    """`vicreg` or `densecl` between neighbouring views on maps [B, V, S, D] of `grid` = (rows, columns) tokens a view.

    `pairwise`: a pair of views of one panorama is compared within itself (VICReg's variance and covariance, DenseCL's
    negatives), then the mean over pairs. `batchwise`: VICReg's statistics go over all matched tokens of the batch,
    DenseCL's negatives over the same pair of views in all panoramas of the batch (memory: pairs x (B·L)²).
    Raises ConfigError when no two views share directions.
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
        loss: str = "vicreg",
        mode: str = "pairwise",
        similarity_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        if loss not in ("vicreg", "densecl"):
            raise ValueError(f"the vision stage's loss must be vicreg or densecl, got {loss!r}")
        if mode not in ("pairwise", "batchwise"):
            raise ValueError(f"vicreg_mode must be pairwise or batchwise, got {mode!r}")
        self.grid, self.loss, self.mode, self.temperature = grid, loss, mode, temperature
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
        self.counts = mask.sum(axis=1).tolist()  # matched tokens of each pair

    def describe(self) -> str:
        """One line for the log."""
        few, many = min(self.counts), max(self.counts)
        tokens = str(few) if few == many else f"{few} to {many}"
        return f"{self.loss}, {self.mode}: {len(self.counts)} pairs of views, {tokens} matched tokens each"

    def forward(self, maps: Tensor, kept_views: Tensor | None = None) -> tuple[Tensor, VicregParts | None]:
        """The loss, a scalar, and VICReg's terms of which it is the weighted sum (None for DenseCL).

        `kept_views` (bool [B, V]) leaves out pairs with a view that sees too little of a partial panorama: such a pair
        adds nothing, and the loss stays the mean over all pairs, so a panorama weighs as much as there is of it.
        Computed in float32 whatever autocast says.
        """
        if kept_views is not None and not bool(kept_views.all()):
            return self._without(maps, kept_views)
        with torch.autocast(maps.device.type, enabled=False):
            first, second = self.matched(maps.float())  # [B, P, L, D] each
            mask = self.mask.expand(len(maps), -1, -1)  # [B, P, L]
            if self.loss == "densecl":
                if self.mode == "batchwise":  # one long pair for each place in the ring: [P, B·L, ...]
                    first, second, mask = (x.transpose(0, 1).flatten(1, 2)[None] for x in (first, second, mask))
                first, second, mask = (x.flatten(0, 1) for x in (first, second, mask))
                return info_nce(first, second, mask, self.temperature), None
            if self.mode == "pairwise":
                whole = min(self.counts) == max(self.counts)
                parts = vicreg_pairwise(
                    first.flatten(0, 1), second.flatten(0, 1), None if whole else mask.flatten(0, 1)
                )
            else:
                parts = vicreg_rows(first[:, self.mask], second[:, self.mask])
            raw = torch.stack([w * p for w, p in zip(self.weights, parts, strict=True)]).sum()
        return raw, VicregParts(*(part.detach() for part in parts))

    def _without(self, maps: Tensor, kept_views: Tensor) -> tuple[Tensor, VicregParts | None]:
        """`forward` over the pairs of which both views are kept."""
        pairs = kept_views[:, self.source] & kept_views[:, self.target]  # [B, P]
        share = pairs.float().mean()
        if not bool(pairs.any()):
            nothing = maps.float().sum() * 0.0
            zero = nothing.detach()
            return nothing, None if self.loss == "densecl" else VicregParts(zero, zero, zero)
        with torch.autocast(maps.device.type, enabled=False):
            first, second = self.matched(maps.float())  # [B, P, L, D] each
            mask = self.mask & pairs[..., None]  # [B, P, L]
            if self.mode == "batchwise":
                if self.loss == "densecl":
                    first, second, mask = (x.transpose(0, 1).flatten(1, 2) for x in (first, second, mask))
                    some = mask.any(dim=1)
                    return info_nce(first[some], second[some], mask[some], self.temperature) * share, None
                parts = vicreg_rows(first[mask], second[mask])
            elif self.loss == "densecl":
                return info_nce(first[pairs], second[pairs], mask[pairs], self.temperature) * share, None
            else:
                parts = vicreg_pairwise(first[pairs], second[pairs], mask[pairs])
            raw = torch.stack([w * p for w, p in zip(self.weights, parts, strict=True)]).sum()
        return raw * share, VicregParts(*(part.detach() * share for part in parts))

    def matched(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the same directions from both views of each pair: two tensors [B, P, L, D]."""
        batch, _, _, width = maps.shape
        pairs, length = self.rows.shape
        source = select_rows(maps, self.source, dim=1).unflatten(2, self.grid)  # [B, P, h, w, D]
        source = source.permute(0, 1, 4, 2, 3).flatten(0, 1)  # [B·P, D, h, w]
        places = self.warp.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]  # [B·P, 1, L, 2]
        sampled = F.grid_sample(source, places.to(source.dtype), padding_mode="border", align_corners=False)
        first = sampled[:, :, 0].transpose(1, 2).unflatten(0, (batch, pairs))  # [B, P, L, D]
        index = self.rows[None, :, :, None].expand(batch, -1, length, width)
        return first, select_rows(maps, self.target, dim=1).gather(2, index)


def overlap_loss_of(config: ModelConfig, views: Sequence[View], grid: tuple[int, int]) -> OverlapLoss | None:
    """The overlap loss that a configuration asks for, of views with `grid` (rows, columns) tokens; None where these
    share no direction."""
    if not shared_directions(views, grid)[0]:
        return None
    return OverlapLoss(
        views,
        grid,
        loss=config.vision_loss,
        mode=config.vicreg_mode,
        similarity_weight=config.vicreg_similarity_weight,
        variance_weight=config.vicreg_variance_weight,
        covariance_weight=config.vicreg_covariance_weight,
        temperature=config.densecl_temperature,
    )


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


def vicreg_pairwise(first: Tensor, second: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Terms of N pairs [N, L, D], statistics over each pair's rows (those of `mask` [N, L]); means over pairs."""
    pairs, rows, width = first.shape
    if mask is None:
        kept, count = None, first.new_full((pairs,), rows)
        share = first.new_full((pairs, 1, rows), 1 / rows)
    else:
        kept = mask[..., None].to(first.dtype)  # [N, L, 1]
        count = kept.sum(dim=(1, 2))  # [N]
        share = (kept / count[:, None, None]).transpose(1, 2)  # [N, 1, L]
    difference = first - second if kept is None else (first - second) * kept
    distance = difference.square().sum(dim=(1, 2)) / (count * width)
    variance, covariance = [], []
    for x in (first, second):
        centred = x - share @ x
        if kept is not None:
            centred = centred * kept
        squares, off_diagonal = second_moments(centred)
        variance.append(_hinge(squares / (count - 1)[:, None]).mean())
        covariance.append((off_diagonal / (count - 1).square() / width).mean())
    return distance.mean(), (variance[0] + variance[1]) / 2, covariance[0] + covariance[1]


def vicreg_rows(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Terms over all rows of [..., D]: the batchwise form."""
    return vicreg_pairwise(first.flatten(0, -2)[None], second.flatten(0, -2)[None])


def second_moments(centred: Tensor) -> tuple[Tensor, Tensor]:
    """For centred rows X [N, L, D]: the diagonal [N, D] of X'X, and the sum [N] of its squared other entries."""
    diagonal, norm = _SecondMoments.apply(centred)
    return diagonal, norm - diagonal.square().sum(dim=1)


class _SecondMoments(torch.autograd.Function):
    """The diagonal [N, D] and the squared Frobenius norm [N] of X'X for rows X [N, L, D].

    With L < D the norm goes by the L x L Gram matrix, ||X'X|| = ||XX'||. The gradient, 4 XX'X for the norm and 2 X
    for the diagonal, is written out: it needs the smaller product once more and nothing of the size of X.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        other = rows.transpose(1, 2)
        product = rows @ other if rows.shape[1] < rows.shape[2] else other @ rows
        ctx.save_for_backward(rows, product)
        return torch.linalg.vector_norm(rows, dim=1).square(), product.square().sum(dim=(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, diagonal_grad: Tensor, norm_grad: Tensor) -> Tensor:
        rows, product = ctx.saved_tensors
        product = product * (4 * norm_grad)[:, None, None]
        grad: Tensor = product @ rows if rows.shape[1] < rows.shape[2] else rows @ product
        return grad.addcmul_(rows, 2 * diagonal_grad[:, None])


def info_nce(first: Tensor, second: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """DenseCL's loss of N pairs [N, L, D]: row l of one side shall find row l of the other among all of `mask` [N, L].

    Cross entropy of cosine similarities over `temperature`, both ways; the mean over each pair's rows, then over pairs.
    """
    logits = F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).transpose(1, 2) / temperature  # [N, L, L]
    own = logits.diagonal(dim1=1, dim2=2)  # [N, L]
    there = logits.masked_fill(~mask[:, None, :], -torch.inf).logsumexp(dim=2) - own
    back = logits.masked_fill(~mask[:, :, None], -torch.inf).logsumexp(dim=1) - own
    kept = mask.to(first.dtype)
    return (((there + back) / 2 * kept).sum(dim=1) / kept.sum(dim=1)).mean()


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
