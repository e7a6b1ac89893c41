"""Positional encoding depends on the direction alone, and on nothing else."""

from __future__ import annotations

import numpy as np
import torch

from panollava.models.positional import NUM_FEATURES, DirectionalEncoding, direction_features
from panollava.views.geometry import angles_to_rays, view_rays
from panollava.views.strategies import View, plan_views


def features_at(yaw_deg: float, pitch_deg: float) -> np.ndarray:
    return direction_features(angles_to_rays(np.asarray(yaw_deg), np.asarray(pitch_deg)))


def test_continuous_across_the_seam_and_at_the_poles() -> None:
    for pitch_deg in (-60.0, 0.0, 45.0):
        across = np.abs(features_at(179.99, pitch_deg) - features_at(-179.99, pitch_deg)).max()
        inside = np.abs(features_at(10.01, pitch_deg) - features_at(9.99, pitch_deg)).max()
        assert across < 0.01 and inside < 0.01
    around = np.stack([features_at(yaw, 89.99) for yaw in range(-180, 180, 30)])
    assert np.ptp(around, axis=0).max() < 0.01


def test_equal_directions_get_equal_vectors_in_every_view() -> None:
    """One direction, found as a token of a tile, of its neighbour (turned by whole tokens) and of a crop."""
    first = View("crop", 0.0, 0.0, 90.0, 90.0)
    second = View("crop", 45.0, 0.0, 90.0, 90.0)
    encoding = DirectionalEncoding([first, second], (4, 4), 8)().reshape(2, 4, 4, 8)
    assert torch.allclose(encoding[0][:, 2:], encoding[1][:, :2], atol=1e-6)
    assert not torch.allclose(encoding[0][:, :2], encoding[1][:, :2], atol=1e-3)
    kinds = [View("perspective", 45.0, 20.0, 90.0, 90.0), View("crop", 45.0, 20.0, 60.0, 60.0)]
    centres = DirectionalEncoding(kinds, (5, 5), 8)()[:, 12]
    assert torch.allclose(centres[0], centres[1], atol=1e-6)


def test_directions_are_told_apart() -> None:
    views = plan_views("anyres_e2p")
    encoding = DirectionalEncoding(views, (4, 4), 32)
    assert encoding.features.shape == (9, 16, NUM_FEATURES)
    assert encoding().shape == (9, 16, 32)
    tiles = encoding.features[1:].reshape(-1, NUM_FEATURES)
    rays = torch.from_numpy(np.concatenate([view_rays(v, 4, 4).reshape(-1, 3) for v in views[1:]])).float()
    far = torch.acos((rays @ rays.T).clamp(-1, 1)) > np.deg2rad(5)
    assert torch.cdist(tiles, tiles)[far].min() > 0.05
    assert list(encoding.state_dict()) == ["linear.weight", "linear.bias"]  # features are computed, not stored
