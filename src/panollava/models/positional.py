"""Sinusoidal encoding of where each token looks: yaw and pitch of its direction, not its row and column.

In: the views' description and the patch grid. Out: one learned vector per view and patch, to be added to
the patch tokens before a resampler mixes them. The features are smooth functions of the direction on the
sphere: there is no seam at ±180°, no jump at the poles, and two tokens of different views that look the same
way get the same vector. Fourier features as in Tancik et al. 2020 and Vaswani et al. 2017 (section 3.5),
here on the sphere. Traded away: telling a global view's token from a tile's by position (their content differs).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from panollava.views.geometry import view_rays
from panollava.views.strategies import View

YAW_FREQUENCIES = (1, 2, 4, 8)
PITCH_FREQUENCIES = (1, 2, 4)
NUM_FEATURES = 2 * (len(YAW_FREQUENCIES) + len(PITCH_FREQUENCIES))


def direction_features(rays: np.ndarray) -> np.ndarray:
    """Features [..., NUM_FEATURES] in [-1, 1] of unit rays [..., 3] (x right, y up, z forward).

    Yaw waves fade with cos(pitch), so that they agree where the meridians meet.
    """
    yaw = np.arctan2(rays[..., 0], rays[..., 2])
    pitch = np.arcsin(np.clip(rays[..., 1], -1.0, 1.0))
    waves = [f(k * yaw) * np.cos(pitch) for k in YAW_FREQUENCIES for f in (np.sin, np.cos)]
    waves += [f(k * pitch) for k in PITCH_FREQUENCIES for f in (np.sin, np.cos)]
    return np.stack(waves, axis=-1)


class DirectionalEncoding(nn.Module):
    """A linear map of the direction features, for fixed views and grid: () -> [V, S, width]."""

    features: Tensor

    def __init__(self, views: Sequence[View], grid: tuple[int, int], width: int) -> None:
        super().__init__()
        rays = np.stack([view_rays(view, *grid).reshape(-1, 3) for view in views])  # [V, S, 3]
        features = torch.from_numpy(direction_features(rays)).float()
        self.register_buffer("features", features, persistent=False)  # [V, S, F]
        self.linear = nn.Linear(NUM_FEATURES, width)

    def forward(self) -> Tensor:
        encoded: Tensor = self.linear(self.features)  # [V, S, width]
        return encoded
