"""A Perceiver resampler (Flamingo, Alayrac et al. 2022, section 2.1): queries ask patches and each other at once.

Differences: queries start from their cell of the view, and there is no time embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from panollava.models.resamplers.queries import QueryResampler


def perceiver_resampler(
    vision_dim: int,
    latent_dim: int,
    grid: tuple[int, int],
    *,
    num_queries: int | None = None,
    layers: int = 2,
    heads: int = 8,
) -> QueryResampler:
    """Layers of one attention over patches and queries together, and perceptron."""
    blocks = [PerceiverLayer(latent_dim, heads) for _ in range(layers)]
    return QueryResampler(vision_dim, latent_dim, grid, num_queries, blocks)


class PerceiverLayer(nn.Module):
    """Attention of the queries [N, Q, D] over patches [N, S, D] and themselves, then a perceptron; both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_queries, self.norm_patches = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """queries [N, Q, D], patches [N, S, D] -> queries [N, Q, D]."""
        asking = self.norm_queries(queries)
        seen = torch.cat([self.norm_patches(patches), asking], dim=1)  # [N, S + Q, D]
        queries = queries + self.attention(asking, seen, seen, need_weights=False)[0]
        out: Tensor = queries + self.mlp(self.norm_mlp(queries))
        return out
