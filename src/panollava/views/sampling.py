"""A panorama and one view enter; the view's pixels leave: averaged over areas or from samples in its
directions, or point-sampled.

Yaw turns a view along the panorama's rows and changes nothing else: a ring of views shares one set of directions, and
each view cuts its own window, where seam and poles are already sewn together, out of the panorama. Windows have a
fourth, unused channel: cv2 samples four faster than three, and in floating point, without rounding positions to 1/32
pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from panollava.views.geometry import rays_to_erp, view_rays
from panollava.views.panorama import Pixels
from panollava.views.strategies import View

Float32 = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right of a window in a panorama's pixels; it may reach over the seam and the poles."""

_DIRECTIONS_KEPT, _MAPS_KEPT = 8, 4


def sample(panorama: Pixels, view: View, samples: tuple[int, int], target: Pixels) -> None:
    """Fill `target` [h, w, 3] with means of bilinear samples, `samples` = (down, across) of them a pixel."""
    height, width = target.shape[:2]
    map_x, map_y, box = _maps(view, (samples[0] * height, samples[1] * width), panorama)
    cut = cv2.cvtColor(window(panorama, box), cv2.COLOR_RGB2RGBA)
    sampled = cv2.remap(cut, map_x, map_y, cv2.INTER_LINEAR)
    cv2.cvtColor(cv2.resize(sampled, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGBA2RGB, dst=target)


def sample_points(panorama: Pixels, view: View, target: Pixels) -> None:
    """Fill `target` [h, w, 3] with bilinear values at the pixels' centres, exactly: this is there to be compared."""
    map_x, map_y, box = _maps(view, target.shape[:2], panorama)
    cut = window(panorama, box)
    left, top = map_x.astype(np.intp), map_y.astype(np.intp)
    along, down = (map_x - left)[..., None], (map_y - top)[..., None]
    above = cut[top, left] * (1 - along) + cut[top, left + 1] * along
    below = cut[top + 1, left] * (1 - along) + cut[top + 1, left + 1] * along
    target[...] = np.rint(above * (1 - down) + below * down)


def average(panorama: Pixels, box: Box, target: Pixels) -> None:
    """Fill `target` [h, w, 3] with means over the areas that its pixels cover in a window of the panorama."""
    target[...] = shrink(window(panorama, box), target.shape[:2])


def shrink(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture at a smaller (height, width), by means over areas."""
    if size == pixels.shape[:2]:
        return pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def whole_pixels(view: View, size: tuple[int, int]) -> Box | None:
    """What an equirectangular view covers of a panorama of (height, width), where its edges are edges of pixels."""
    if view.kind == "perspective":
        return None
    height, width = size
    top, bottom = ((0.5 - (view.pitch_deg + side * view.vfov_deg / 2) / 180) * height for side in (1, -1))
    left, right = ((0.5 + (view.yaw_deg + side * view.hfov_deg / 2) / 360) * width for side in (-1, 1))
    edges = (top, left, bottom, right)
    if any(abs(edge - round(edge)) > 1e-6 for edge in edges):
        return None
    return round(top), round(left), round(bottom), round(right)


def window(panorama: Pixels, box: Box) -> Pixels:
    """The pixels [bottom - top, right - left, 3] of a box: columns go on across the seam, rows over the poles.

    (cv2's BORDER_WRAP would put the south pole above the north pole.)
    """
    top, left, bottom, right = box
    height, width = panorama.shape[:2]
    parts = [_columns(panorama[max(top, 0) : min(bottom, height)], left, right)]
    half = width // 2
    if top < 0:
        beyond = np.minimum(np.arange(-top)[::-1], height - 1)
        parts.insert(0, _columns(panorama[beyond], left + half, right + half))
    if bottom > height:
        beyond = np.maximum(height - 1 - np.arange(bottom - height), 0)
        parts.append(_columns(panorama[beyond], left + half, right + half))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _columns(rows: Pixels, left: int, right: int) -> Pixels:
    width = rows.shape[1]
    parts = []
    while left < right:
        start = left % width
        stop = min(width, start + right - left)
        parts.append(rows[:, start:stop])
        left += stop - start
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


@dataclass(frozen=True)
class _Maps:
    """Where a view samples: positions [h, w], x and y, within `box`. Shifting the box to the right turns the view."""

    x: Float32
    y: Float32
    box: Box


def _maps(view: View, samples: tuple[int, int], panorama: Pixels) -> tuple[Float32, Float32, Box]:
    """Positions [h, w] of a view's samples within a window of the panorama, x and y, and the window."""
    height, width = panorama.shape[:2]
    shift = view.yaw_deg / 360 * width
    columns = math.floor(shift + 1e-6)
    maps = _pixel_maps(replace(view, yaw_deg=0.0), samples, (height, width), round(shift - columns, 6))
    top, left, bottom, right = maps.box
    return maps.x, maps.y, (top, left + columns, bottom, right + columns)


@lru_cache(maxsize=_MAPS_KEPT)
def _pixel_maps(view: View, samples: tuple[int, int], size: tuple[int, int], shift: float) -> _Maps:
    """The maps of a view at yaw 0 that is turned by a part of a pixel, in a panorama of (height, width)."""
    height, width = size
    x, y = (directions.astype(np.float64) for directions in _directions(view, samples))
    x, y = (x + 0.5) * width + shift - 0.5, (y + 0.5) * height - 0.5
    left, top = math.floor(x.min()), math.floor(y.min())
    box = (top, left, math.floor(y.max()) + 3, math.floor(x.max()) + 3)  # neighbours, and rounding to float32
    return _Maps(_fixed(x - left), _fixed(y - top), box)


@lru_cache(maxsize=_DIRECTIONS_KEPT)
def _directions(view: View, samples: tuple[int, int]) -> tuple[Float32, Float32]:
    """Where a view looks, [h, w] each: right and down of the panorama's centre, as shares of its width and height.

    They are the expensive part, and the same for panoramas of all sizes.
    """
    x, y = rays_to_erp(view_rays(view, *samples), 1, 1)
    return _fixed(x), _fixed(y)


def _fixed(values: NDArray[np.float64]) -> Float32:
    """In single precision, contiguous and, because it is shared, read-only."""
    single = np.ascontiguousarray(values, dtype=np.float32)
    single.flags.writeable = False
    return single
