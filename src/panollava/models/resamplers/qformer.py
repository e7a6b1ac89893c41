"""A Q-Former (BLIP-2, Li et al. 2023, section 3.1): queries attend to each other and to the patches, layer by layer.

Differences: queries start from their cell of the view, norms come before each part, every layer attends to the patches,
and there is no text input.
"""

from __future__ import annotations

from torch import nn

from panollava.models.resamplers.queries import QueryResampler


def qformer_resampler(
    vision_dim: int,
    latent_dim: int,
    grid: tuple[int, int],
    *,
    num_queries: int | None = None,
    layers: int = 2,
    heads: int = 8,
) -> QueryResampler:
    """Layers of self-attention among the queries, cross-attention to the patches, and perceptron."""
    decoder = [
        nn.TransformerDecoderLayer(
            latent_dim, heads, 4 * latent_dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        for _ in range(layers)
    ]
    return QueryResampler(vision_dim, latent_dim, grid, num_queries, decoder)
