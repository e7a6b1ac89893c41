"""Sample one view's pixels from a panorama: averaged over areas, from samples in its directions, or point-sampled.

Yaw turns a view along the panorama's rows and changes nothing else: a ring of views shares one set of directions, and
each view cuts its own window, where seam and poles are already sewn together, out of the panorama. Windows have a
fourth, unused channel: cv2 samples four faster than three, and in floating point, without rounding positions to 1/32
pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panollava.views.geometry import pixel_centres, rays_to_erp, unproject
from panollava.views.panorama import Pixels
from panollava.views.strategies import View

Float32 = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right of a window in a panorama's pixels; it may reach over the seam and the poles."""

_SAMPLES_PER_STRIP = 2**16
_DIRECTIONS_KEPT, _MAPS_KEPT = 4, 4
_MOST_SAMPLES = 8


@dataclass(frozen=True)
class Tile:
    """A view to be filled in: `target` [h, w, 3] gets means of bilinear samples, as many as the `footprint` needs:
    the panorama's pixels that a pixel at the view's centre covers, (down, across)."""

    panorama: Pixels
    view: View
    footprint: tuple[float, float]
    target: Pixels

    @property
    def samples(self) -> tuple[int, int]:
        """Samples down and across a pixel."""
        down, across = self.footprint
        return min(_MOST_SAMPLES, samples_for(down)), min(_MOST_SAMPLES, samples_for(across))


def sample(tiles: Sequence[Tile]) -> None:
    """Fill tiles, strip by strip: a strip's positions and pixels stay in the processor's cache, for all of a ring."""
    placed = [(tile, *_place(tile.view, tile.target.shape[:2], tile.samples, tile.panorama)) for tile in tiles]
    for part in range(max((len(strips) for _, strips, _ in placed), default=0)):
        for tile, strips, columns in placed:
            if part < len(strips):
                _fill(tile, strips[part], columns)


def _fill(tile: Tile, strip: _Strip, columns: int) -> None:
    target = tile.target[strip.rows]
    cut = cv2.cvtColor(window(tile.panorama, _moved(strip.box, columns)), cv2.COLOR_RGB2RGBA)
    sampled = cv2.remap(cut, strip.x, strip.y, cv2.INTER_LINEAR)
    averaged = cv2.resize(sampled, target.shape[1::-1], interpolation=cv2.INTER_AREA)
    cv2.cvtColor(averaged, cv2.COLOR_RGBA2RGB, dst=target)


def sample_points(panorama: Pixels, view: View, target: Pixels) -> None:
    """Fill `target` [h, w, 3] with bilinear values at the pixels' centres, exactly: this is there to be compared."""
    strips, columns = _place(view, target.shape[:2], (1, 1), panorama)
    for strip in strips:
        cut = window(panorama, _moved(strip.box, columns))
        left, top = strip.x.astype(np.intp), strip.y.astype(np.intp)
        along, down = (strip.x - left)[..., None], (strip.y - top)[..., None]
        above = cut[top, left] * (1 - along) + cut[top, left + 1] * along
        below = cut[top + 1, left] * (1 - along) + cut[top + 1, left + 1] * along
        target[strip.rows] = np.rint(above * (1 - down) + below * down)


def average(panorama: Pixels, box: Box, target: Pixels) -> None:
    """Fill `target` [h, w, 3] with means over the areas that its pixels cover in a window of the panorama.

    At least 2 x 2 of the panorama's pixels for each. Where they are no whole number, by samples at most 1.4 pixels
    apart, none of which lies beyond the window's edge: that is faster than cv2's areas.
    """
    cut = window(panorama, box)
    while all(now % (2 * wanted) == 0 for now, wanted in zip(cut.shape, target.shape[:2], strict=False)):
        cut = shrink(cut, (cut.shape[0] // 2, cut.shape[1] // 2))  # cv2 is fastest at that
    if any(now % wanted for now, wanted in zip(cut.shape, target.shape[:2], strict=False)):
        height, width = (
            wanted * samples_for(now / wanted) for now, wanted in zip(cut.shape, target.shape[:2], strict=False)
        )
        cut = np.asarray(cv2.resize(cut, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
    target[...] = shrink(cut, target.shape[:2])


def samples_for(ratio: float) -> int:
    """Samples along one side of a pixel that covers `ratio` of the panorama's, so that they lie at most 1.4 apart."""
    return max(2, math.ceil(ratio / 1.4))


def shrink(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The picture at a smaller (height, width), by means over areas."""
    if size == pixels.shape[:2]:
        return pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)


def whole_pixels(view: View, size: tuple[int, int]) -> Box | None:
    """What an equirectangular view covers of a panorama of (height, width), where its edges are edges of pixels."""
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


def _moved(box: Box, columns: int) -> Box:
    top, left, bottom, right = box
    return top, left + columns, bottom, right + columns


@dataclass(frozen=True)
class _Strip:
    """Some rows of a view, and where they are sampled: positions, x and y, within `box` of the panorama."""

    rows: slice
    x: Float32
    y: Float32
    box: Box


def _place(
    view: View, image_size: tuple[int, int], samples: tuple[int, int], panorama: Pixels
) -> tuple[tuple[_Strip, ...], int]:
    """A view's strips at yaw 0, and by how many columns to move them: so all views of a ring share theirs."""
    height, width = panorama.shape[:2]
    shift = view.yaw_deg / 360 * width
    columns = math.floor(shift + 1e-6)
    straight = replace(view, yaw_deg=0.0)
    return _strips(straight, image_size, samples, (height, width), round(shift - columns, 6)), columns


@lru_cache(maxsize=_MAPS_KEPT)
def _strips(
    view: View, image_size: tuple[int, int], samples: tuple[int, int], size: tuple[int, int], shift: float
) -> tuple[_Strip, ...]:
    """The strips of a view that is turned by a part of a pixel, in a panorama of (height, width)."""
    directions = _directions(view, (samples[0] * image_size[0], samples[1] * image_size[1]))
    parts = min(image_size[0], math.ceil(directions[0].size / _SAMPLES_PER_STRIP))
    across, down = size[1] / 2 + shift - 0.5, size[0] / 2 - 0.5
    strips = []
    for start, stop in pairwise(image_size[0] * part // parts for part in range(parts + 1)):
        x, y = (axis[samples[0] * start : samples[0] * stop] for axis in directions)
        left, right = (math.floor(float(edge) * size[1] + across) for edge in (x.min(), x.max()))
        top, bottom = (math.floor(float(edge) * size[0] + down) for edge in (y.min(), y.max()))
        map_x = x * np.float32(size[1]) + np.float32(across - left + 1)
        map_y = y * np.float32(size[0]) + np.float32(down - top + 1)
        box = (top - 1, left - 1, bottom + 3, right + 3)  # the neighbours, and a pixel for float32's rounding
        strips.append(_Strip(slice(start, stop), _shared(map_x), _shared(map_y), box))
    return tuple(strips)


@lru_cache(maxsize=_DIRECTIONS_KEPT)
def _directions(view: View, samples: tuple[int, int]) -> tuple[Float32, Float32]:
    """Where a view looks, [h, w] each: right and down of the panorama's centre, as shares of its width and height.

    They are the expensive part, and the same for panoramas of all sizes.
    """
    x, y = np.empty(samples, np.float32), np.empty(samples, np.float32)
    across, down = pixel_centres(samples[1]), pixel_centres(samples[0])
    rows = max(1, _SAMPLES_PER_STRIP // samples[1])  # in double precision, never all of a large view at once
    for start in range(0, samples[0], rows):
        part = slice(start, start + rows)
        rays = unproject(view, np.stack(np.meshgrid(across, down[part]), axis=-1))
        x[part], y[part] = rays_to_erp(rays, 1, 1)
    return _shared(x), _shared(y)


def _shared(values: NDArray[np.floating[Any]]) -> Float32:
    """In single precision, contiguous and, because it is shared, read-only."""
    single = np.ascontiguousarray(values, dtype=np.float32)
    single.flags.writeable = False
    return single
