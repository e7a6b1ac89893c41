"""Unstitched frames of 360 cameras: two fisheye pictures side by side, 2:1 as a panorama is.

Most are known by the camera's name in the EXIF; without a name, two bright discs on black do. `panollava prepare --from
dual_fisheye` converts them where the camera's own stitcher is not at hand.
"""

from __future__ import annotations

import re
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

_MAKE, _MODEL = 0x010F, 0x0110
_FISHEYE_CAMERAS: tuple[tuple[str, str], ...] = (
    (r"SM-C200|SM-R210|Gear ?360", "Gear 360 ActionDirector"),
    (r"Insta360|Arashi ?Vision", "Insta360 Studio"),
    (r"QooCam|Kandao", "QooCam Studio"),
    (r"Mi ?Sphere|MADV|MJXJ|Mijia 360|QJTP01FJ", "the Mi Sphere Camera app"),
    (r"YI 360", "YI 360 Studio"),
    (r"Vuze ?XR|HumanEyes", "VUZE VR Studio"),
)
"""Cameras whose own files are unstitched frames: their name in make and model, and what stitches them."""
_STITCHING_CAMERAS: tuple[tuple[str, str], ...] = (
    (r"RICOH ?THETA|THETA", "RICOH THETA Stitcher"),
    (r"GoPro ?(MAX|Fusion)", "GoPro Player"),
    (r"VIRB ?360", "VIRB Edit"),
    (r"KeyMission ?360", "KeyMission 360/170 Utility"),
    (r"LG-R105|360 ?CAM", "the LG 360 CAM Manager"),
)
"""Cameras that stitch their pictures, but not their raw files."""

_HEIGHT = 64
_BLACK, _BRIGHT = 16, 32


def stitcher_of_frame(exif: Image.Exif) -> str | None:
    """What stitches the files of the camera that an EXIF names, where the camera's own files are unstitched frames."""
    return _match(exif, _FISHEYE_CAMERAS)


def stitcher_of_raw(exif: Image.Exif) -> str | None:
    """The same for cameras that stitch pictures, but not raw files: whether a file is one is seen by its pixels."""
    return _match(exif, _STITCHING_CAMERAS)


def camera_of(exif: Image.Exif) -> str:
    """Make and model."""
    return " ".join(str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)).strip()


def _match(exif: Image.Exif, cameras: tuple[tuple[str, str], ...]) -> str | None:
    camera = camera_of(exif)
    return next((tool for pattern, tool in cameras if re.search(pattern, camera, re.IGNORECASE)), None)


def shows_two_discs(pixels: Pixels) -> bool:
    """Whether a 2:1 picture [H, W, 3] is two bright discs side by side on black, as two fisheye lenses see."""
    red, green, blue = cv2.split(cv2.resize(pixels, (2 * _HEIGHT, _HEIGHT), interpolation=cv2.INTER_AREA))
    small = np.maximum(np.maximum(red, green), blue)  # [64, 128]
    halves = (small[:, :_HEIGHT], small[:, _HEIGHT:])
    outside, inside = _outside_and_inside()
    return all(np.mean(half[outside] <= _BLACK) > 0.97 and np.mean(half[inside] >= _BRIGHT) > 0.7 for half in halves)


@cache
def _outside_and_inside() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of a half of the small picture: what no lens sees, and what it sees well; [64, 64] each."""
    across, down = np.meshgrid(*(2 * (np.arange(_HEIGHT) + 0.5) / _HEIGHT - 1,) * 2)
    radius = np.hypot(across, down)
    return radius > 1.1, radius < 0.7
