#!/usr/bin/env bash
# py360convert 1.0.4: c2e draws the panorama up to a pixel and a half off, and its last column is its first once more.
#
# One expects of a cube of six 90-degree faces that a pixel of the panorama shows what lies at the pixel's own direction.
# c2e takes 360 degrees from the first column's centre to the last one's, so that both look backwards (W pixels cover
# W - 1 steps), and takes a face's coordinate for a pixel's number without the half pixel between them: faces are read
# half a pixel too far left and up. Where a direction becomes a number, say a hotspot, the error is systematic: every
# object stands too high.
# Seen with faces of 128 pixels that hold their exact directions, panorama 512 x 256 (0.70 degrees a pixel): on average
# 0.54 degrees off, at most 1.0, the horizon 0.4 degrees off, first and last column equal. And with mode="bicubic" a cube
# of one grey comes back with specks along the faces' edges: only one pixel of the neighbouring face is laid around each.
# What to do: compute the rays yourself and read the faces with `cv2.remap` at (u + 1) * n / 2 - 0.5.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  py360convert==1.0.4 numpy==2.4.6 scipy==1.17.1 opencv-python-headless==5.0.0.93
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from py360convert import c2e

side, height = 128, 256


def unit(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    rays = np.stack((x, y, z), axis=-1)
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


steps = (np.arange(side) + 0.5) / side * 2 - 1
across, up = np.meshgrid(steps, -steps)
one = np.ones_like(across)
faces = {  # every pixel holds the direction it shows: right, up, forward
    "F": unit(across, up, one), "R": unit(one, up, -across), "B": unit(-across, up, -one),
    "L": unit(-one, up, across), "U": unit(across, one, -up), "D": unit(across, -one, up),
}  # fmt: skip
longitude, latitude = np.meshgrid(
    ((np.arange(2 * height) + 0.5) / height - 1) * np.pi, (0.5 - (np.arange(height) + 0.5) / height) * np.pi
)
truth = unit(np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude))
panorama = c2e(faces, height, 2 * height, mode="bilinear", cube_format="dict")
panorama = panorama / np.linalg.norm(panorama, axis=-1, keepdims=True)
off = np.degrees(np.arccos(np.clip((panorama * truth).sum(axis=-1), -1, 1)))
ends = bool(np.allclose(panorama[:, 0], panorama[:, -1], atol=1e-3))
low = float(np.degrees(np.arcsin(panorama[height // 2 - 1 : height // 2 + 1, :, 1])).mean())
grey = np.full((side, 6 * side), 200, np.uint8)
specks = {
    mode: int((c2e(grey, height, 2 * height, mode=mode, cube_format="horizon") != 200).sum())
    for mode in ("bilinear", "bicubic")
}
print(f"py360convert {version('py360convert')}: {off.mean():.2f} degrees off on average, {off.max():.2f} at most; pixels are {180 / height:.2f} wide")
print(f"the panorama's horizon shows latitude {low:.2f}; its first and last column are equal: {ends}")
print(f"pixels of a grey cube's panorama that are not that grey: {specks}")
if off.mean() < 0.4 or not ends or low > -0.3 or specks["bilinear"] or specks["bicubic"] < 50:
    sys.exit("py360convert no longer does this")
PY
