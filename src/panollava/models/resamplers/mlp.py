"""A residual two-layer perceptron on every patch token: tokens keep their places and directions.

The skip makes the first step of training start from the encoder's own features; without it the perceptron
must first learn to pass them on.
"""

from __future__ import annotations

from torch import Tensor, nn


class MLPResampler(nn.Module):
    """`skip(x) + MLP(x)` of the normalised tokens, x = norm(tokens) + positions; S' = S."""

    def __init__(self, vision_dim: int, latent_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.num_tokens = grid[0] * grid[1]
        hidden = 2 * max(vision_dim, latent_dim)
        self.norm = nn.LayerNorm(vision_dim)
        self.skip = nn.Identity() if vision_dim == latent_dim else nn.Linear(vision_dim, latent_dim, bias=False)
        self.mlp = nn.Sequential(nn.Linear(vision_dim, hidden), nn.GELU(), nn.Linear(hidden, latent_dim))

    def forward(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """tokens [B, V, S, D_vision], positions [V, S, D_vision] or None -> latent tokens [B, V, S, D_latent]."""
        tokens = self.norm(tokens)  # [B, V, S, D_vision]
        if positions is not None:
            tokens = tokens + positions
        return self.skip(tokens) + self.mlp(tokens)  # [B, V, S, D_latent]
