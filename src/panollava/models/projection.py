"""Project latent tokens into the language model's embedding space.

In: latent tokens [B, T, D_latent]. Out: [B, T, D_lm], at first of the same size as the language model's own embeddings
*at the output of its embedding module* (Gemma scales them there), so that a frozen language model receives inputs of a
size it knows from the first step on.
"""

from __future__ import annotations

from torch import Tensor, nn


class Projection(nn.Module):
    """LayerNorm, then a linear layer whose first outputs have the standard deviation `embedding_scale`."""

    def __init__(self, latent_dim: int, language_dim: int, embedding_scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(latent_dim)
        self.linear = nn.Linear(latent_dim, language_dim)
        nn.init.normal_(self.linear.weight, std=embedding_scale / latent_dim**0.5)
        nn.init.zeros_(self.linear.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T, D_latent] -> [B, T, D_lm]."""
        projected: Tensor = self.linear(self.norm(tokens))
        return projected


class VicregProjector(nn.Sequential):
    """The expander of VICReg (Bardes et al. 2022, section 4.2), two layers: [..., D_latent] -> [..., width].

    LayerNorm takes the place of BatchNorm: statistics must not mix a batch's panoramas.
    """

    def __init__(self, latent_dim: int, width: int) -> None:
        super().__init__(nn.Linear(latent_dim, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width))
