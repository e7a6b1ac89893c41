"""Every conversion between the sphere and pixels: from a view or pixels to unit rays, and from rays to pixels.

Axes: x right, y up, z forward (the panorama's centre column at the horizon). Positive yaw turns right,
positive pitch turns up. Pixels are areas: the centre of pixel `i` of `n` lies at `(i + 0.5) / n` of the extent,
for views and for the panorama alike, so that a FoV spans the *edges* of the first and last pixel. (py360convert
lets it span their centres.) Image coordinates are normalised to [-1, 1] between those edges, x right and y
down: what `torch.nn.functional.grid_sample` calls `align_corners=False`.

float64 throughout: exactness was chosen over speed, since maps are computed once per view and size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from panollava.views.strategies import View

Float = NDArray[np.float64]


def view_rays(view: View, height: int, width: int) -> Float:
    """Unit rays [height, width, 3] of a view's pixel (or patch) centres, in the panorama's frame."""
    u, v = np.meshgrid(pixel_centres(width), pixel_centres(height))
    return unproject(view, np.stack([u, v], axis=-1))


def pixel_centres(count: int) -> Float:
    """Normalised coordinates [count] of pixel centres: -1 + 1/count, ..., 1 - 1/count."""
    return (2 * np.arange(count) + 1) / count - 1


def unproject(view: View, uv: Float) -> Float:
    """Unit rays [..., 3] of normalised image coordinates [..., 2] (x right, y down) of a view."""
    u, v = uv[..., 0], uv[..., 1]
    if view.kind == "perspective":
        half_width, half_height = _half_tangents(view)
        rays = np.stack([u * half_width, -v * half_height, np.ones_like(u)], axis=-1)
        return _to_panorama(view, rays / np.linalg.norm(rays, axis=-1, keepdims=True))
    yaw_deg = view.yaw_deg + u * view.hfov_deg / 2
    pitch_deg = view.pitch_deg - v * view.vfov_deg / 2
    return angles_to_rays(yaw_deg, pitch_deg)


def project(view: View, rays: Float) -> tuple[Float, NDArray[np.bool_]]:
    """Where a view sees directions: normalised image coordinates [..., 2] and validity [...].

    `rays` [..., 3] need not have unit length. Coordinates are finite everywhere but mean something only where
    valid: inside the view's edges and, for a perspective view, in front of its camera.
    """
    if view.kind == "perspective":
        half_width, half_height = _half_tangents(view)
        x, y, z = np.moveaxis(_to_camera(view, rays), -1, 0)
        in_front = z > 1e-12
        depth = np.where(in_front, z, 1.0)
        uv = np.stack([x / depth / half_width, -y / depth / half_height], axis=-1)
        return uv, in_front & (np.abs(uv) <= 1).all(axis=-1)
    yaw_deg, pitch_deg = rays_to_angles(rays)
    offset_deg = (yaw_deg - view.yaw_deg + 180) % 360 - 180
    uv = np.stack([2 * offset_deg / view.hfov_deg, -2 * (pitch_deg - view.pitch_deg) / view.vfov_deg], axis=-1)
    if view.kind == "global":
        uv = np.clip(uv, -1, 1)  # it sees everything: rounding must not put the edge outside
    return uv, (np.abs(uv) <= 1).all(axis=-1)


def angles_to_rays(yaw_deg: Float, pitch_deg: Float) -> Float:
    """Unit rays [..., 3] that look along yaw and pitch (degrees, [...] each)."""
    yaw, pitch = np.deg2rad(yaw_deg), np.deg2rad(pitch_deg)
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)], axis=-1)


def rays_to_angles(rays: Float) -> tuple[Float, Float]:
    """Yaw in [-180, 180] and pitch in [-90, 90], degrees, of rays [..., 3] of any length but zero."""
    x, y, z = np.moveaxis(rays, -1, 0)
    return np.rad2deg(np.arctan2(x, z)), np.rad2deg(np.arctan2(y, np.hypot(x, z)))


def angles_to_erp(yaw_deg: Float, pitch_deg: Float, height: int, width: int) -> tuple[Float, Float]:
    """Pixel coordinates in an equirectangular panorama: x in [-0.5, width - 0.5], y in [-0.5, height - 0.5].

    Whole numbers are pixel centres; yaw is taken as it is, so yaws beyond +-180 lie outside that range.
    """
    return (yaw_deg / 360 + 0.5) * width - 0.5, (0.5 - pitch_deg / 180) * height - 0.5


def rays_to_erp(rays: Float, height: int, width: int) -> tuple[Float, Float]:
    """Pixel coordinates (x, y), [...] each, of rays [..., 3] in a panorama of `height` x `width`."""
    return angles_to_erp(*rays_to_angles(rays), height, width)


def erp_to_rays(x: Float, y: Float, height: int, width: int) -> Float:
    """Unit rays [..., 3] of a panorama's pixel coordinates; the inverse of `rays_to_erp`."""
    return angles_to_rays(((x + 0.5) / width - 0.5) * 360, (0.5 - (y + 0.5) / height) * 180)


def _half_tangents(view: View) -> tuple[float, float]:
    return float(np.tan(np.deg2rad(view.hfov_deg) / 2)), float(np.tan(np.deg2rad(view.vfov_deg) / 2))


def _rotation(view: View) -> Float:
    """The matrix [3, 3] from the camera's frame to the panorama's: first pitch (up), then yaw (right)."""
    yaw, pitch = np.deg2rad(view.yaw_deg), np.deg2rad(view.pitch_deg)
    turn_up = np.array([[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]])
    turn_right = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return turn_right @ turn_up


def _to_panorama(view: View, rays: Float) -> Float:
    return rays @ _rotation(view).T


def _to_camera(view: View, rays: Float) -> Float:
    return rays @ _rotation(view)
