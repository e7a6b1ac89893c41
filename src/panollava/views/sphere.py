"""A picture's place on the sphere: partial panoramas laid into the full one, tilted ones levelled.

What a partial panorama does not cover is grey. Levelling samples the panorama once more, bilinearly, at the size at
which it was decoded; a picture that is whole and upright is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from panollava.views.geometry import rays_to_angles, view_rays
from panollava.views.gpano import Crop, Pose
from panollava.views.strategies import View

Pixels = NDArray[np.uint8]
GREY = 128
"""What is not covered, in every channel."""

_ROWS_AT_ONCE = 64
_COVERAGE_GRID = 64


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on the sphere, and the pose that is taken out of it."""

    crop: Crop
    pose: Pose

    @property
    def untouched(self) -> bool:
        """Whether the picture is the panorama as it is."""
        return self.crop.whole and self.pose.upright

    def coverage(self, views: Sequence[View]) -> tuple[float, ...]:
        """The share of each view, in [0, 1], that sees what the picture covers; 1.0 for a whole panorama."""
        if self.crop.whole:
            return (1.0,) * len(views)
        return tuple(float(self._covered(view_rays(view, _COVERAGE_GRID, _COVERAGE_GRID)).mean()) for view in views)

    def _covered(self, rays: NDArray[np.float64]) -> NDArray[np.bool_]:
        yaw_deg, pitch_deg = rays_to_angles(rays @ pose_matrix(self.pose))
        x = (yaw_deg / 360 + 0.5) * self.crop.full_width - self.crop.left
        y = (0.5 - pitch_deg / 180) * self.crop.full_height - self.crop.top
        inside: NDArray[np.bool_] = (x >= 0) & (x <= self.crop.width) & (y >= 0) & (y <= self.crop.height)
        return inside


def pose_matrix(pose: Pose) -> NDArray[np.float64]:
    """The matrix [3, 3] from the picture's frame to the level one: roll, then pitch, then heading.

    Columns are the picture's axes (x right, y up, z forward). Pitch turns its forward axis up; roll turns its right
    axis down; heading turns its forward axis to the right.
    """
    heading, pitch, roll = np.deg2rad([pose.heading_deg, pose.pitch_deg, pose.roll_deg])
    turn_over = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    turn_up = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    turn_right = np.array([[np.cos(heading), 0, np.sin(heading)], [0, 1, 0], [-np.sin(heading), 0, np.cos(heading)]])
    return turn_right @ turn_up @ turn_over


def lay_on_sphere(picture: Pixels, placement: Placement, min_width: int | None = None) -> Pixels:
    """The full, level panorama [H, W, 3] of a picture [h, w, 3]; `placement.crop` is in the picture's pixels.

    A tilted one may come smaller by a whole factor that divides it and leaves it `min_width` wide.
    """
    crop = placement.crop
    panorama = picture
    if not crop.whole:
        panorama = np.full((crop.full_height, crop.full_width, 3), GREY, np.uint8)
        panorama[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] = picture
    if placement.pose.upright:
        return panorama
    height, width = panorama.shape[:2]
    factors = range(width // min_width, 1, -1) if min_width else ()
    factor = next((factor for factor in factors if not width % factor and not height % factor), 1)
    if factor > 1:
        small = (width // factor, height // factor)
        panorama = np.asarray(cv2.resize(panorama, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return turned(panorama, placement.pose)


def turned(panorama: Pixels, pose: Pose) -> Pixels:
    """Turn a panorama [H, W, 3] taken in `pose` into one of a level camera that looks along heading 0."""
    height, width = panorama.shape[:2]
    matrix = pose_matrix(pose).T.astype(np.float32)  # level -> picture
    yaw = (np.float32(2 * np.pi) * ((np.arange(width, dtype=np.float32) + 0.5) / width - np.float32(0.5)))[None]
    pitch = (np.float32(np.pi) * (np.float32(0.5) - (np.arange(height, dtype=np.float32) + 0.5) / height))[:, None]
    level = np.empty_like(panorama)
    for start in range(0, height, _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        across, up = np.cos(pitch[rows]), np.sin(pitch[rows])
        x, y, z = (
            across * (row[0] * np.sin(yaw) + row[2] * np.cos(yaw)) + row[1] * up  # [rows, W]
            for row in matrix
        )
        map_x = (np.arctan2(x, z) / np.float32(2 * np.pi) + np.float32(0.5)) * width - np.float32(0.5)
        map_y = (np.float32(0.5) - np.arctan2(y, np.hypot(x, z)) / np.float32(np.pi)) * height - np.float32(0.5)
        level[rows] = cv2.remap(
            panorama, map_x, np.clip(map_y, 0, height - 1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
        )
    return level
