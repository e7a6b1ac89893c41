"""Regions on the sphere and their overlap: what a box of an ERP panorama covers, and what a field of view covers.

Areas are solid angles in steradians. A box in pixels is bounded by meridians and parallels, a field of view by four
great circles, as a pinhole camera's picture is. Two of a kind are compared in closed form; a box with a field of view
by Gauss-Legendre quadrature over yaw between the places where the bounds change (about 1e-9).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from panollava.answers.sphere import Direction, Vector, cross, dot, norm, wrapped

_EPSILON = 1e-12
# Nodes and weights of Gauss-Legendre's rule of ten points on [-1, 1] (Abramowitz and Stegun, table 25.4).
_NODES = (0.14887433898163122, 0.4333953941292472, 0.6794095682990244, 0.8650633666889845, 0.9739065285171717)
_WEIGHTS = (0.29552422471475287, 0.26926671930999635, 0.21908636251598204, 0.1494513491505806, 0.06667134430868814)
_PIECES = 64


@dataclass(frozen=True)
class ErpBox:
    """Yaws from `left_deg` on over `width_deg` to the right (at most 360), pitches from bottom to top; degrees."""

    left_deg: float
    width_deg: float
    bottom_deg: float
    top_deg: float

    def area(self) -> float:
        height = math.sin(math.radians(self.top_deg)) - math.sin(math.radians(self.bottom_deg))
        return math.radians(self.width_deg) * height


@dataclass(frozen=True)
class FovBox:
    """What a camera sees that looks along `centre`, with these fields of view in degrees (each below 180)."""

    centre: Direction
    hfov_deg: float
    vfov_deg: float

    def corners(self) -> list[Vector]:
        """Unit vectors of the four corners, in order around the region."""
        x, y = math.tan(math.radians(self.hfov_deg) / 2), math.tan(math.radians(self.vfov_deg) / 2)
        yaw, pitch = math.radians(self.centre.yaw_deg), math.radians(self.centre.pitch_deg)
        right = (math.cos(yaw), 0.0, -math.sin(yaw))
        up = (-math.sin(yaw) * math.sin(pitch), math.cos(pitch), -math.cos(yaw) * math.sin(pitch))
        ahead = self.centre.ray()
        found = []
        for u, v in ((-x, y), (x, y), (x, -y), (-x, -y)):
            ray = tuple(a + u * r + v * w for a, r, w in zip(ahead, right, up, strict=True))
            length = norm(ray)  # type: ignore[arg-type]
            found.append((ray[0] / length, ray[1] / length, ray[2] / length))
        return found

    def area(self) -> float:
        """4 asin(sin(hfov / 2) sin(vfov / 2)), the solid angle of a rectangular pyramid."""
        return 4 * math.asin(math.sin(math.radians(self.hfov_deg) / 2) * math.sin(math.radians(self.vfov_deg) / 2))


Box = ErpBox | FovBox


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two regions, as areas on the sphere, in [0, 1]; symmetric, 1 for equal regions.

    >>> round(iou(ErpBox(170, 20, -10, 10), ErpBox(-190, 20, -10, 10)), 9)
    1.0
    """
    if one == other:
        return 1.0
    shared = intersection(one, other)
    union = one.area() + other.area() - shared
    return min(1.0, max(0.0, shared / union)) if union > 0 else 0.0


def intersection(one: Box, other: Box) -> float:
    """The area that two regions share."""
    if isinstance(one, ErpBox):
        return _erp(one, other) if isinstance(other, ErpBox) else _mixed(one, other)
    return _mixed(other, one) if isinstance(other, ErpBox) else _polygons(one, other)


def _erp(one: ErpBox, other: ErpBox) -> float:
    bottom, top = max(one.bottom_deg, other.bottom_deg), min(one.top_deg, other.top_deg)
    if bottom >= top:
        return 0.0
    offset = (other.left_deg - one.left_deg) % 360
    # On a circle two arcs may meet twice: ahead of the first one's beginning and across it.
    width = sum(
        max(0.0, min(one.width_deg, start + other.width_deg) - max(0.0, start)) for start in (offset, offset - 360)
    )
    return math.radians(width) * (math.sin(math.radians(top)) - math.sin(math.radians(bottom)))


def _polygons(one: FovBox, other: FovBox) -> float:
    """Convex on the sphere both: one is cut by the great circles of the other (Sutherland and Hodgman 1974)."""
    first, second = sorted(
        (one, other), key=lambda box: (box.centre.yaw_deg, box.centre.pitch_deg, box.hfov_deg, box.vfov_deg)
    )
    shape = first.corners()
    edges = second.corners()
    for place, corner in enumerate(edges):
        # Corners go round clockwise as seen from inside, so that what is inside lies on the positive side.
        inside = cross(edges[(place + 1) % 4], corner)
        shape = _cut(shape, inside)
        if len(shape) < 3:
            return 0.0
    return polygon_area(shape)


def _cut(shape: list[Vector], inside: Vector) -> list[Vector]:
    kept: list[Vector] = []
    for place, corner in enumerate(shape):
        following = shape[(place + 1) % len(shape)]
        here, there = dot(corner, inside), dot(following, inside)
        if here >= -_EPSILON:
            kept.append(corner)
        if (here > _EPSILON and there < -_EPSILON) or (here < -_EPSILON and there > _EPSILON):
            point = tuple(here * b - there * a for a, b in zip(corner, following, strict=True))
            sign = 1.0 if here - there > 0 else -1.0
            length = norm(point) * sign  # type: ignore[arg-type]
            kept.append((point[0] / length, point[1] / length, point[2] / length))
    return kept


def polygon_area(shape: list[Vector]) -> float:
    """The solid angle of a convex spherical polygon, as a fan of triangles (van Oosterom and Strackee 1983)."""
    total, a = 0.0, shape[0]
    for b, c in pairwise(shape[1:]):
        volume = abs(dot(a, cross(b, c)))
        total += 2 * math.atan2(volume, 1 + dot(a, b) + dot(b, c) + dot(c, a))
    return total


def _mixed(box: ErpBox, view: FovBox) -> float:
    """Over the box's yaws, the sine of the pitches that both hold."""
    left, width = math.radians(box.left_deg), math.radians(box.width_deg)
    low, high = math.radians(box.bottom_deg), math.radians(box.top_deg)
    corners = view.corners()
    sides = [cross(corners[(place + 1) % 4], corner) for place, corner in enumerate(corners)]
    stops = sorted({0.0, width, *(s for s in _breaks(corners, sides, (low, high), left) if 0 < s < width)})
    total = 0.0
    for begin, end in pairwise(stops):
        pieces = max(1, math.ceil(_PIECES * (end - begin) / math.tau))
        step = (end - begin) / pieces
        for piece in range(pieces):
            middle = begin + (piece + 0.5) * step
            for node, weight in zip(_NODES, _WEIGHTS, strict=True):
                for sign in (-1, 1):
                    total += weight * step / 2 * _seen(left + middle + sign * node * step / 2, sides, low, high)
    return total


def _breaks(corners: list[Vector], sides: list[Vector], pitches: tuple[float, float], left: float) -> Iterator[float]:
    """Yaws, from the box's left on, where a bound of the pitches in `_seen` changes: corners, and edges that meet
    the box's parallels, and the meridians on which an edge lies."""
    for x, _, z in corners:
        yield (math.atan2(x, z) - left) % math.tau
    for x, y, z in sides:
        flat = math.hypot(x, z)
        facing = math.atan2(x, z)
        for quarter in (math.pi / 2, -math.pi / 2):
            yield (facing + quarter - left) % math.tau
        for pitch in pitches:
            if flat > _EPSILON and abs(y * math.tan(pitch)) <= flat:
                turn = math.acos(max(-1.0, min(1.0, -y * math.tan(pitch) / flat)))
                yield (facing + turn - left) % math.tau
                yield (facing - turn - left) % math.tau


def _seen(yaw: float, sides: list[Vector], low: float, high: float) -> float:
    """sin(top) - sin(bottom) of the pitches in [low, high] at which all `sides` hold on one meridian."""
    for x, y, z in sides:
        # Inside where flat cos(pitch) + y sin(pitch) >= 0, which is a half circle of pitches around atan2(y, flat).
        flat = x * math.sin(yaw) + z * math.cos(yaw)
        middle = math.atan2(y, flat)
        low, high = max(low, middle - math.pi / 2), min(high, middle + math.pi / 2)
    return max(0.0, math.sin(high) - math.sin(low)) if high > low else 0.0


def erp_box_of_pixels(x1: float, y1: float, x2: float, y2: float, width: int, height: int) -> ErpBox | None:
    """The region of a box in pixels of a panorama, edges at whole numbers; None for one that is none.

    A box whose right edge lies left of its left one goes on across the seam, as does one that reaches beyond the
    panorama's side; what lies above or below the panorama is cut off.
    """
    if y1 >= y2 or y2 <= 0 or y1 >= height or x1 == x2 or not (-width <= x1 <= 2 * width and -width <= x2 <= 2 * width):
        return None
    across = (x2 - x1 if x2 > x1 else x2 + width - x1) / width * 360
    if across <= 0:
        return None
    top, bottom = 90 - max(0.0, y1) / height * 180, 90 - min(float(height), y2) / height * 180
    return ErpBox(wrapped(x1 / width * 360 - 180), min(360.0, across), bottom, top)
