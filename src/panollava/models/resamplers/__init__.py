"""Resamplers: patch tokens of each view in, latent tokens of each view out.

Each is built from (vision width, latent width, patch grid) and its options, and has

* `forward(tokens [B, V, S, D_vision], positions [V, S, D_vision] | None) -> [B, V, S', D_latent]`, where
  `positions` is added to the normalised patch tokens, that is before anything mixes them;
* `grid`, the (rows, columns) of its output tokens on the view: what the overlap loss and stitching
  take for their directions. Queries are placed on a grid too (`queries.py`);
* `num_tokens`, the S' = rows x columns of a view, known before any weight is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from panollava.errors import ConfigError
from panollava.models.resamplers.bimamba import BimambaResampler
from panollava.models.resamplers.mlp import MLPResampler
from panollava.models.resamplers.perceiver import perceiver_resampler
from panollava.models.resamplers.qformer import qformer_resampler
from panollava.models.resamplers.queries import QueryResampler

Resampler = MLPResampler | QueryResampler | BimambaResampler

RESAMPLERS: dict[str, Callable[..., Resampler]] = {
    "mlp": MLPResampler,
    "qformer": qformer_resampler,
    "perceiver": perceiver_resampler,
    "bimamba": BimambaResampler,
}


def build_resampler(
    name: str, vision_dim: int, latent_dim: int, grid: tuple[int, int], options: Mapping[str, Any] | None = None
) -> Resampler:
    """The resampler called `name`. Raises ConfigError where it cannot be had: there is no substitute."""
    if name not in RESAMPLERS:
        raise ConfigError(f"no resampler {name!r}; available: {', '.join(RESAMPLERS)}")
    return RESAMPLERS[name](vision_dim, latent_dim, grid, **(options or {}))
