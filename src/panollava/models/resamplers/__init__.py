"""Resamplers: patch tokens of each view in, latent tokens of each view out.

Each class is built from (vision width, latent width, patch grid) and has

* `forward(tokens [B, V, S, D_vision], positions [V, S, D_vision] | None) -> [B, V, S', D_latent]`, where
  `positions` is added to the normalised patch tokens, that is before anything mixes them;
* `num_tokens`, the S' of a view, known before any weight is loaded;
* `grid`, the (rows, columns) of its output tokens on the view, or None where tokens have no direction left.
"""

from __future__ import annotations

from panollava.errors import ConfigError
from panollava.models.resamplers.mlp import MLPResampler

RESAMPLERS: dict[str, type[MLPResampler]] = {"mlp": MLPResampler}
_PLANNED = ("qformer", "perceiver", "bimamba")


def build_resampler(name: str, vision_dim: int, latent_dim: int, grid: tuple[int, int]) -> MLPResampler:
    """The resampler called `name`. Raises ConfigError where it cannot be had: there is no substitute."""
    if name in RESAMPLERS:
        return RESAMPLERS[name](vision_dim, latent_dim, grid)
    if name in _PLANNED:
        raise ConfigError(f"resampler {name!r} is not available yet; available: {', '.join(RESAMPLERS)}")
    raise ConfigError(f"no resampler {name!r}; available: {', '.join(RESAMPLERS)}")
