"""Which visual tokens the language model sees: all of them, or fewer where views overlap.

In: the views' description and the token grid of a view (None after a resampler that mixes tokens: then only
whole views can be chosen). Out: a `Stitching` that knows its number of tokens before any weight is loaded and
maps latent tokens [B, V, S, D] to [B, T, D]; views stay in order, rows before columns. The global view is another
scale, not an overlap, and stays whole in every mode.

* `concat`        every token of every view
* `drop_overlap`  each direction once: a token goes where another view sees its direction nearer to its centre
* `stride_views`  the fewest evenly spaced views of each ring that still close it
* `resample`      one equirectangular grid of tokens at the density of the views, blended from all that see it
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panollava.errors import ConfigError
from panollava.views.geometry import angles_to_rays, project, view_rays
from panollava.views.strategies import View


class Stitching(nn.Module):
    """A choice of tokens (`index` into the V·S tokens); with `resample`, blends of a few `cells` each behind it."""

    index: Tensor
    cells: Tensor | None
    weights: Tensor | None

    def __init__(self, mode: str, views: Sequence[View], tokens_per_view: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        if grid is None and mode in ("drop_overlap", "resample"):
            raise ConfigError(
                f"stitching_mode {mode!r} needs tokens that have directions, which this resampler mixes away; "
                "use concat or stride_views"
            )
        cells = weights = None
        if mode == "concat":
            kept = np.ones((len(views), tokens_per_view), dtype=bool)
        elif mode == "drop_overlap":
            kept = _nearest_view(views, grid or (1, 1))
        elif mode == "stride_views":
            kept = np.repeat(_strided(views)[:, None], tokens_per_view, axis=1)
        elif mode == "resample":
            kept = np.repeat(np.array([[view.kind == "global"] for view in views]), tokens_per_view, axis=1)
            if not kept.all():
                cells, weights = _blend(views, grid or (1, 1))
        else:
            raise ConfigError(f"stitching_mode must be concat, drop_overlap, stride_views or resample, got {mode!r}")
        self.mode = mode
        self.register_buffer("index", torch.from_numpy(np.flatnonzero(kept)), persistent=False)
        for name, table in (("cells", cells), ("weights", weights)):
            value = None if table is None else torch.from_numpy(table)
            self.register_buffer(name, value, persistent=False)  # [T_blend, K]: K tokens for each one of the grid

    @property
    def num_tokens(self) -> int:
        """T, the visual tokens of one panorama."""
        return len(self.index) + (0 if self.cells is None else len(self.cells))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, V, S, D] -> [B, T, D]."""
        tokens = tokens.flatten(1, 2)  # [B, V·S, D]
        kept = tokens[:, self.index]  # [B, T, D]
        if self.cells is None or self.weights is None:
            return kept
        table = tokens.transpose(0, 1).flatten(1)  # [V·S, B·D]
        weights = self.weights.to(tokens.dtype)
        blended = F.embedding_bag(self.cells, table, mode="sum", per_sample_weights=weights)  # [T_blend, B·D]
        return torch.cat([kept, blended.unflatten(1, (len(tokens), -1)).transpose(0, 1)], dim=1)  # [B, T, D]


def _local(views: Sequence[View]) -> list[int]:
    return [index for index, view in enumerate(views) if view.kind != "global"]


def _axis(view: View) -> np.ndarray:
    return angles_to_rays(np.asarray(view.yaw_deg), np.asarray(view.pitch_deg))


def _nearest_view(views: Sequence[View], grid: tuple[int, int]) -> np.ndarray:
    """Kept tokens [V, S]: those whose direction no other view sees nearer to its centre (ties: the earlier)."""
    kept = np.ones((len(views), grid[0] * grid[1]), dtype=bool)
    for i in _local(views):
        rays = view_rays(views[i], *grid).reshape(-1, 3)
        own = rays @ _axis(views[i])
        for j in _local(views):
            if i == j:
                continue
            nearness = rays @ _axis(views[j])
            nearer = nearness >= own - 1e-9 if j < i else nearness > own + 1e-9
            kept[i] &= ~(nearer & project(views[j], rays)[1])
    return kept


def _strided(views: Sequence[View]) -> np.ndarray:
    """Kept views [V]: of each ring of n views every k-th, k the largest step that leaves no gap."""
    kept = np.ones(len(views), dtype=bool)
    rings: dict[float, list[int]] = {}
    for index in _local(views):
        rings.setdefault(views[index].pitch_deg, []).append(index)
    for ring in rings.values():
        reach = int(views[ring[0]].hfov_deg / (360 / len(ring)) + 1e-9)
        kept[ring] = [place % max(1, reach) == 0 for place in range(len(ring))]
    return kept


def _blend(views: Sequence[View], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the V·S and their weights, both [T, K], rows summing to 1, of an equirectangular grid over everything
    that the local views see.

    Within a view bilinear; between views by closeness to the view's centre, falling to zero at its edge.
    """
    rows, columns = grid
    local = _local(views)
    height = round(180 / min(views[i].vfov_deg / rows for i in local))
    width = round(360 / min(views[i].hfov_deg / columns for i in local))
    whole = view_rays(View("global", 0.0, 0.0, 360.0, 180.0), height, width).reshape(-1, 3)
    cells, weights = [], []
    for i in local:
        uv, valid = project(views[i], whole)
        share = np.where(valid, (1.001 - np.abs(uv)).prod(axis=-1), 0.0)
        place = (np.clip(uv, -1, 1) + 1) / 2 * [columns, rows] - 0.5
        for (row, column), part in _bilinear(place, rows, columns):
            cells.append(i * rows * columns + row * columns + column)
            weights.append(part * share)
    cell, weight = np.stack(cells, axis=1), np.stack(weights, axis=1)  # [directions, 4·views]
    seen = weight.sum(axis=1) > 0
    cell, weight = cell[seen], weight[seen] / weight[seen].sum(axis=1, keepdims=True)
    most = int((weight > 0).sum(axis=1).max())  # few views see one direction
    first = np.argsort(-weight, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(cell, first, axis=1), np.take_along_axis(weight, first, axis=1).astype(np.float32)


def _bilinear(place: np.ndarray, rows: int, columns: int) -> list[tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """The four cells around fractional (x, y) [N, 2] and their weights [N]; outside, the border's cells."""
    low = np.floor(place).astype(int)
    part = place - low
    cells = []
    for dx in (0, 1):
        for dy in (0, 1):
            column = np.clip(low[:, 0] + dx, 0, columns - 1)
            row = np.clip(low[:, 1] + dy, 0, rows - 1)
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            cells.append(((row, column), weight))
    return cells
