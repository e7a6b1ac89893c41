#!/usr/bin/env bash
# defisheye 1.4.1: the pixel in the middle of every view is the fisheye picture's corner.
#
# The view's pixel that looks along the axis needs no division by its radius, which is 0; the package then puts it not at the
# middle of the fisheye picture but at its pixel (0, 0). That is the black outside the lens's circle as a rule: a black dot
# where the camera looks, in all four projections, in views for training as for depth or light meters that read the middle.
# Seen: of a picture of grey 100 with a white corner pixel, the middle pixel of each view is 255, its neighbours are 100.
# What to do: give `xcenter` and `ycenter` half a pixel off (99.5 instead of 99), or fill the pixel from its neighbours.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps defisheye==1.4.1 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from defisheye import Defisheye

picture = np.full((200, 200, 3), 100, np.uint8)
picture[0, 0] = 255
seen = set()
for projection in ("linear", "equalarea", "orthographic", "stereographic"):
    for shift in (0, 0.5):
        view = Defisheye(picture, dtype=projection, format="circular", fov=180, pfov=90, xcenter=99 + shift, ycenter=99 + shift).convert()
        around = view[98:101, 98:101, 0].astype(int)
        seen.add((shift, around[1, 1], np.delete(around.ravel(), 4).max()))
        print(f"{projection}, middle at {99 + shift}: middle pixel {around[1, 1]}, its neighbours at most {np.delete(around.ravel(), 4).max()}")
if seen != {(0, 255, 100), (0.5, 100, 100)}:
    sys.exit("defisheye no longer does this")
PY
