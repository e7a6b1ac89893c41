"""Queries that gather a view's patches, placed on a grid over it, so that what they gather has a direction.

In: the patch tokens of each view. Out: one token per cell of a coarser grid. A query starts as a learned vector plus
the mean of the patches in its cell (in the manner of Honeybee's locality-enhanced projectors, Cha et al. 2023).
Attention then brings the rest of the view, while the residual path keeps the place. Traded away: queries free of
any place, which could not be compared between views.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, log

import torch
from torch import Tensor, nn


class QueryResampler(nn.Module):
    """Layers (queries [N, Q, D], patches [N, S, D]) -> queries, one after the other; S' = Q."""

    def __init__(
        self,
        vision_dim: int,
        latent_dim: int,
        grid: tuple[int, int],
        num_queries: int | None,
        layers: Iterable[nn.Module],
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vision_dim)
        self.skip = nn.Identity() if vision_dim == latent_dim else nn.Linear(vision_dim, latent_dim, bias=False)
        self.start = AnchoredQueries(num_queries, latent_dim, grid)
        self.layers = nn.ModuleList(layers)
        self.grid = self.start.grid
        self.num_tokens = self.grid[0] * self.grid[1]

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens [B, V, S, D_vision], positions [V, S, D_vision] or None -> latent tokens [B, V, S', D_latent]."""
        tokens = self.norm(tokens)  # [B, V, S, D_vision]
        if positions is not None:
            tokens = tokens + positions
        patches = self.skip(tokens).flatten(0, 1)  # [B·V, S, D_latent]
        queries = self.start(patches)  # [B·V, S', D_latent]
        for layer in self.layers:
            queries = layer(queries, patches)
        return queries.unflatten(0, tokens.shape[:2])  # [B, V, S', D_latent]


class AnchoredQueries(nn.Module):
    """The queries' first values, from patch tokens of `grid`: [N, S, width] -> [N, Q, width]."""

    cells: Tensor

    def __init__(self, count: int | None, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = query_grid(count, grid)
        rows, columns = (_shares(*sides) for sides in zip(self.grid, grid, strict=True))
        self.register_buffer("cells", torch.kron(rows, columns), persistent=False)  # [Q, S]
        self.queries = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], width))

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [N, S, width] -> [N, Q, width]."""
        return self.queries + self.cells @ tokens


def query_grid(count: int | None, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of `count` queries, as nearly of the patch grid's shape as it divides; None: half of each."""
    if count is None:
        return ceil(grid[0] / 2), ceil(grid[1] / 2)
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(shapes, key=lambda shape: abs(log(shape[1] * grid[0] / (shape[0] * grid[1]))))


def _shares(cells: int, patches: int) -> Tensor:
    """The share of each cell that each patch covers along one axis: [cells, patches], rows summing to 1."""
    cell, patch = torch.arange(cells)[:, None], torch.arange(patches)[None]
    low = torch.maximum(cell / cells, patch / patches)
    high = torch.minimum((cell + 1) / cells, (patch + 1) / patches)
    return (high - low).clamp(min=0) * cells
