"""Positions of a native prompt's tokens: the family's own, or those of the directions that they show (PanoRoPE).

A family counts pictures one after the other, so that two views of one direction are far apart and the ring of views
has an end. `panorope` lays the ring's views over one another as one wide picture that closes on itself: a token's place
along the ring follows from the yaw that it shows, and equal directions have equal places.

    M-RoPE [3, H]: time and height start where the ring's first view starts; width = start + place
    1-D    [1, H]: start + row · W + place, W the columns of a view: what a row of tokens is shifted by

place = floor(yaw / 360° · R) + W // 2 (mod R), and R = N · s, with s tokens from one of the ring's N views to the next:
the first view begins at place 0, and rolling the panorama by whole steps moves all places by multiples of s, modulo R.
Global views, views of the poles and text keep the family's own positions; what follows counts on from the largest
position used. After CORA's PanoRoPE, which spread the views instead and was left out of generation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from panollava.errors import ConfigError
from panollava.views.geometry import view_rays
from panollava.views.strategies import View

_ROUNDING = 1e-6  # of a token: a direction on a border belongs to the token on its right


@dataclass(frozen=True)
class Ring:
    """`columns` is R, the places around the ring; `places` int64 [V, S] of each view's tokens, row by row, -1 for views
    outside of the ring."""

    columns: int
    places: np.ndarray


def ring_of(views: Sequence[View], grid: tuple[int, int]) -> Ring | None:
    """Where each token of `grid` = (rows, columns) looks, as a place around the ring; None where no view is in one."""
    inside = [index for index, view in enumerate(views) if view.kind != "global" and abs(view.pitch_deg) < 90]
    if not inside:
        return None
    rows: dict[float, int] = {}
    for index in inside:
        rows[views[index].pitch_deg] = rows.get(views[index].pitch_deg, 0) + 1
    steps = math.lcm(*rows.values())  # rings of several heights share places
    step = max(1, round(grid[1] * (360 / steps) / views[inside[0]].hfov_deg))
    columns = steps * step
    places = np.full((len(views), grid[0] * grid[1]), -1, dtype=np.int64)
    for index in inside:
        rays = view_rays(views[index], *grid).reshape(-1, 3)
        yaw = np.arctan2(rays[:, 0], rays[:, 2])
        places[index] = (np.floor(yaw / (2 * np.pi) * columns + _ROUNDING).astype(np.int64) + grid[1] // 2) % columns
    return Ring(columns, places)


def head_positions(
    is_picture: Tensor, views: Sequence[View], grid: tuple[int, int] | None, *, axes: int, panorope: bool
) -> tuple[Tensor, int]:
    """Positions [axes, H] of the tokens of a head, and the position that follows them.

    `is_picture` [H] marks the tokens of pictures, equally many a view, `grid` their rows and columns (needed with
    M-RoPE, `axes` 3, and by `panorope`). Without `panorope` they are the family's own. Raises ConfigError without a
    grid.
    """
    marks = is_picture.tolist()
    each = sum(marks) // len(views)
    ring = None
    if (panorope or axes == 3) and grid is None:
        raise ConfigError(f"{each} tokens of a view form no grid of its shape, so they have no directions")
    if panorope and grid is not None:
        ring = ring_of(views, grid)
    positions = torch.zeros(axes, len(marks), dtype=torch.long)
    following, seen, start, base = 0, 0, 0, None
    for index, picture in enumerate(marks):
        if not picture:
            positions[:, index] = following
            following += 1
            continue
        view, token = divmod(seen, each)
        seen += 1
        in_ring = ring is not None and ring.places[view, 0] >= 0
        if axes == 1 and not in_ring:
            positions[:, index] = following
            following += 1
            continue
        if token == 0:
            start = following
            if in_ring:
                start = base = following if base is None else base
        positions[:, index], end = _place(start, view, token, grid, axes, ring if in_ring else None)
        following = max(following, end)
    return positions, following


def _place(
    start: int, view: int, token: int, grid: tuple[int, int] | None, axes: int, ring: Ring | None
) -> tuple[Tensor, int]:
    """Position [axes] of a token of a view that starts at `start`, and the first one behind all that it may use."""
    assert grid is not None
    rows, columns = grid
    if token >= rows * columns:  # a token behind the grid, which looks nowhere
        last = (rows - 1) * columns + (ring.columns if ring else columns)
        return torch.tensor([start + last] * axes), start + last + 1
    row, column = divmod(token, columns)
    place = column if ring is None else int(ring.places[view, token])
    width = columns if ring is None else ring.columns
    if axes == 1:
        return torch.tensor([start + row * columns + place]), start + (rows - 1) * columns + width
    return torch.tensor([start, start + row, start + place]), start + max(rows, width)


def sequence_positions(head: Tensor, following: int, attention_mask: Tensor) -> Tensor:
    """Positions [B, L] (1-D) or [3, B, L] of padded sequences [B, L] that begin with the head [axes, H]."""
    place = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)  # [B, L] of each token in its own sequence
    length = head.shape[1]
    inside = head.to(place.device)[:, place.clamp(max=length - 1)]  # [axes, B, L]
    found = torch.where(place < length, inside, following + place - length)
    return found if head.shape[0] > 1 else found[0]
