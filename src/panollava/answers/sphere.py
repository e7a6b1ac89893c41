"""Angles between directions and areas of regions on the sphere, exact across the seam and at the poles."""

from __future__ import annotations

import math
from dataclasses import dataclass

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Direction:
    """Yaw in (-180, 180], positive to the right; pitch in [-90, 90], positive upwards; degrees."""

    yaw_deg: float
    pitch_deg: float

    def ray(self) -> Vector:
        """The unit vector: x right, y up, z forward."""
        yaw, pitch = math.radians(self.yaw_deg), math.radians(self.pitch_deg)
        return math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)


def wrapped(angle_deg: float) -> float:
    """The same angle in (-180, 180].

    >>> wrapped(270), wrapped(-180), wrapped(180)
    (-90.0, 180.0, 180.0)
    """
    angle = math.fmod(angle_deg, 360.0)
    return angle - 360.0 if angle > 180 else angle + 360.0 if angle <= -180 else float(angle)


def angle_between_deg(one: Direction, other: Direction) -> float:
    """The great-circle angle in degrees [0, 180], accurate for small ones too (atan2 of cross and dot product).

    >>> round(angle_between_deg(Direction(179, 0), Direction(-179, 0)), 9)
    2.0
    """
    a, b = one.ray(), other.ray()
    return math.degrees(math.atan2(norm(cross(a, b)), dot(a, b)))


def cross(a: Vector, b: Vector) -> Vector:
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def dot(a: Vector, b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def norm(a: Vector) -> float:
    return math.sqrt(dot(a, a))
