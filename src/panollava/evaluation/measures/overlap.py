"""Whether views agree on what both see, in the encoder's patch tokens and in the resampler's.

Two neighbouring views show the same part of the scene from other places of their pictures. Token l of the one and what
the other says about the same direction (the exact correspondence of the overlap loss: `models.losses`) are *matched*;
with what the other says about any other direction of the overlap it is *unmatched*. Then, with cosine similarities,

    score = mean similarity of matched tokens - mean similarity of unmatched ones     in [-2, 2]

for each picture, then the mean over pictures. Of the encoder's patch tokens it is called `dino_similarity` (dense
features compared between views, in the manner of Caron et al. 2021 and Oquab et al. 2023), of the resampler's tokens,
without their encoding of directions, `overlap_consistency`. An encoder that says the same everywhere has 0, as has a
random one; 1 means that matched tokens are alike and unmatched ones at right angles.

The blind value compares each view with its neighbour in *another* panorama, at the same place: what is left is layout
(the sky is above, the ground below) and place in the picture, so a score is worth its distance from it.

Computes both scores of a model on a set of images, and similarities by angle, pair of views and direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from panollava.data.dataset import PictureStore
from panollava.errors import ConfigError
from panollava.evaluation.measures.encode import encode_in_chunks
from panollava.evaluation.measures.measured import Measured, without_value
from panollava.evaluation.metrics.result import MetricResult
from panollava.logs import LOGGER
from panollava.models.losses import OverlapLoss
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.versions import package_version
from panollava.views.geometry import view_rays
from panollava.views.strategies import View

KEYS = ("dino_similarity", "overlap_consistency")
# What each score compares, by `PanoramaModel.token_grids`: a native model's features come behind its connector.
TOKENS = {"dino_similarity": ("encoder",), "overlap_consistency": ("resampler", "connector")}
SCALE = "-2 to 2, 0 where directions are not distinguished"
_PICTURES_AT_ONCE = 16
_BIN_DEG = 10.0


@dataclass(frozen=True)
class Agreement:
    """Similarities of one kind of token, summed over pictures: [pairs, L, L], first view's token l by second's m."""

    views: tuple[View, ...]
    geometry: OverlapLoss
    sums: np.ndarray
    blind: np.ndarray | None
    example: np.ndarray
    count: int

    @property
    def pairs(self) -> list[tuple[int, int]]:
        return list(zip(self.geometry.source.tolist(), self.geometry.target.tolist(), strict=True))

    @property
    def mask(self) -> np.ndarray:
        """[pairs, L]: which tokens there are."""
        return self.geometry.mask.cpu().numpy()

    def contrast(self, similarity: np.ndarray) -> np.ndarray:
        """Matched minus unmatched of each token [pairs, L], from similarities [pairs, L, L]; NaN where none is."""
        matched = np.einsum("pll->pl", similarity)
        both = self.mask[:, :, None] & self.mask[:, None, :]
        others = np.where(both, similarity, 0.0)
        total = (others.sum(axis=1) + others.sum(axis=2)) / 2 - matched
        count = self.mask.sum(axis=1, keepdims=True) - 1
        return np.where(self.mask, matched - total / count, np.nan)

    def angles_deg(self) -> np.ndarray:
        """Angle between the directions of tokens l and m of each pair: [pairs, L, L]."""
        rows, grid = self.geometry.rows.cpu().numpy(), self.geometry.grid
        rays = np.stack(
            [view_rays(self.views[j], *grid).reshape(-1, 3)[row] for (_, j), row in zip(self.pairs, rows, strict=True)]
        )
        return np.rad2deg(np.arccos(np.clip(rays @ rays.transpose(0, 2, 1), -1, 1)))

    def by_angle(self) -> list[dict[str, float]]:
        """Mean similarity of tokens whose directions are that far apart, and blind; 0 degrees are the matched ones."""
        both = self.mask[:, :, None] & self.mask[:, None, :]
        angle, same = self.angles_deg(), np.broadcast_to(np.eye(self.mask.shape[1], dtype=bool), both.shape)
        bins = np.where(same, 0, 1 + (angle / _BIN_DEG).astype(int))
        found = []
        for index in np.unique(bins[both]):
            inside = both & (bins == index)
            point = {"angle_deg": float(angle[inside].mean()) if index else 0.0}
            point["similarity"] = float(self.sums[inside].mean()) / self.count
            if self.blind is not None:
                point["blind"] = float(self.blind[inside].mean()) / self.count
            found.append(point)
        return found


def overlap(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    paths: list[str],
    pictures: PictureStore,
    *,
    device: torch.device,
    stand_ins: Mapping[str, str] | None = None,
) -> tuple[Measured, dict[str, Agreement]]:
    """Both scores of the pictures `paths`, and what plots show of them by the scores' keys.

    `pictures` gives uint8 views [V, h, w, 3] by image path; `stand_ins` names another picture for each. A score
    is null with the reason, and has nothing to plot, where no two views share directions at its grid of tokens.
    """
    model.to(device).eval()
    library, grids = package_version("panollava"), model.token_grids
    tokens = {key: next((name for name in TOKENS[key] if name in grids), None) for key in KEYS}
    about = {
        key: MetricResult(
            None, SCALE, "panollava", library, f"tokens:{tokens[key] or TOKENS[key][0]}|cosine|unmatched:same-overlap"
        )
        for key in KEYS
    }
    sums: dict[str, _Sums] = {}
    unshared = without_value(about, _reason(model))
    for key, name in tokens.items():
        if name is None:
            unshared.metrics[key] = replace(
                about[key], reason=f"this model hands out no tokens of its {TOKENS[key][0]}"
            )
            continue
        with suppress(ConfigError):  # no two views share directions at this grid
            sums[key] = _Sums(model.views, OverlapLoss(model.views, grids[name]).to(device))
            counts = sums[key].geometry.counts
            LOGGER.info("%s: %d pictures, %d pairs of views, %d matched tokens", key, len(paths), len(counts),
                        sum(counts))  # fmt: skip
    if not sums:
        return unshared, {}
    table = _measure(model, processor, paths, pictures, device, stand_ins, sums)
    agreements = {key: one.agreement(len(paths)) for key, one in sums.items()}
    measured = Measured(dict(unshared.metrics), dict.fromkeys(KEYS), table)
    for key in sums:
        measured.metrics[key] = replace(about[key], value=measured.sums(key).total())
        if stand_ins is not None:
            measured.blind[key] = float(np.mean([row[f"{key}_blind"] for row in table]))
        parts = ("matched", "unmatched", "found")
        measured.details[key] = {name: float(np.mean([row[f"{key}_{name}"] for row in table])) for name in parts}
        measured.details[key]["by_angle"] = agreements[key].by_angle()
    return measured, agreements


def _reason(model: PanoramaModel) -> str:
    return (
        f"crop_strategy {model.config.crop_strategy} gives no views that share directions at this grid of tokens; e2p, "
        "anyres_e2p and sliding_window do"
    )


def _measure(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    paths: list[str],
    pictures: PictureStore,
    device: torch.device,
    stand_ins: Mapping[str, str] | None,
    sums: Mapping[str, _Sums],
) -> list[dict[str, Any]]:
    """A row per picture, in the order of `paths`; similarities are added to `sums`."""
    order = _next_to_their_stand_ins(paths, stand_ins)
    score_of = {name: key for key in sums for name in TOKENS[key]}
    rows: dict[str, dict[str, Any]] = {}
    for start in range(0, len(order), _PICTURES_AT_ONCE):
        some = order[start : start + _PICTURES_AT_ONCE]
        others = [] if stand_ins is None else [stand_ins[path] for path in some]
        needed = list(dict.fromkeys([*some, *others]))
        place = {path: index for index, path in enumerate(needed)}
        features = torch.stack([one for _, one in encode_in_chunks(model, processor, pictures, needed, device)])
        for name, maps in model.token_maps(features).items():
            key = score_of.get(name)
            if key is None:
                continue
            own = [place[path] for path in some]
            found = sums[key].add(maps[own], maps[[place[path] for path in others]] if others else None)
            for index, path in enumerate(some):
                row = rows.setdefault(path, {"image_path": path})
                row |= {f"{key}{name}": float(values[index]) for name, values in found.items()}
    return [rows[path] for path in paths]


class _Sums:
    """Adds up the similarities of batches of pictures."""

    def __init__(self, views: tuple[View, ...], geometry: OverlapLoss) -> None:
        self.views, self.geometry = views, geometry
        pairs, length = geometry.rows.shape
        self.own = torch.zeros(pairs, length, length, dtype=torch.float64)
        self.blind: Tensor | None = None
        self.example: Tensor | None = None

    @torch.no_grad()
    def add(self, maps: Tensor, others: Tensor | None) -> dict[str, Tensor]:
        """Values of each picture [B]: the score ("") and its parts, of maps [B, V, S, D] and of other pictures'."""
        first, second = self.geometry.matched(maps.float())  # [B, P, L, D] each
        similarity = _cosines(first, second)  # [B, P, L, L]
        matched, unmatched, found = self._parts(similarity)
        values = {"": matched - unmatched, "_matched": matched, "_unmatched": unmatched, "_found": found}
        self.own += similarity.sum(dim=0).double().cpu()
        if self.example is None:
            self.example = similarity[0].double().cpu()
        if others is not None:
            crossed = _cosines(first, self.geometry.matched(others.float())[1])
            matched, unmatched, _ = self._parts(crossed)
            values["_blind"] = matched - unmatched
            crossed_sum = crossed.sum(dim=0).double().cpu()
            self.blind = crossed_sum if self.blind is None else self.blind + crossed_sum
        return values

    def agreement(self, count: int) -> Agreement:
        assert self.example is not None
        blind = None if self.blind is None else self.blind.numpy()
        return Agreement(self.views, self.geometry, self.own.numpy(), blind, self.example.numpy(), count)

    def _parts(self, similarity: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean of matched and of unmatched tokens, and the share whose most similar token is the matched one: [B]."""
        mask = self.geometry.mask  # [P, L]
        both = mask[:, :, None] & mask[:, None, :]
        same = torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        matched = similarity[:, both & same].mean(dim=1)
        unmatched = similarity[:, both & ~same].mean(dim=1)
        nearest = similarity.masked_fill(~mask[:, None, :], -torch.inf).argmax(dim=-1)  # [B, P, L]
        found = (nearest == torch.arange(mask.shape[1], device=mask.device))[:, mask].float().mean(dim=1)
        return matched, unmatched, found


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    return F.normalize(first, dim=-1) @ F.normalize(second, dim=-1).transpose(-1, -2)


def _next_to_their_stand_ins(paths: list[str], stand_ins: Mapping[str, str] | None) -> list[str]:
    """The pictures in an order in which a batch and its replacements are mostly the same pictures."""
    order: dict[str, None] = {}
    for path in paths:
        while path not in order:
            order[path] = None
            path = path if stand_ins is None else stand_ins[path]
    return list(order)
