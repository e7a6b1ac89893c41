#!/usr/bin/env bash
# img360-transformer 0.1.1: "yaw" tilts the panorama up, "pitch" leans its horizon, "roll" turns it.
#
# The three angles of `rotate_360_image(image, pitch, yaw, roll)`, also of its command and its window, act on one axis each,
# but not on the one that they are named for. To recentre a panorama on an object 30 degrees to the right one gives yaw 30,
# and gets a panorama whose horizon is bent.
# Seen, as longitude and latitude of the middle, and of what lies 90 degrees to its right: with roll 30 (30, 0) and (120, 0);
# with yaw 30 (0, 30) and (90, 0); with pitch 30 (0, 0) and (90, -30). What to do: give the yaw as roll, the pitch as yaw,
# the roll as pitch.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps img360-transformer==0.1.1 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from img360_transformer.utils import rotate_360_image

longitude = np.repeat(-180 + np.arange(720, dtype=np.float32)[None] / 2, 360, axis=0)
latitude = np.repeat(90 - np.arange(360, dtype=np.float32)[:, None] / 2, 720, axis=1)
seen = {}
for name, angles in {"pitch": (30, 0, 0), "yaw": (0, 30, 0), "roll": (0, 0, 30)}.items():
    turned = [rotate_360_image(one, *angles) for one in (longitude, latitude)]
    seen[name] = [tuple(round(float(one[180, column])) for one in turned) for column in (360, 540)]
    print(f"{name} 30: (longitude, latitude) in the middle {seen[name][0]}, 90 degrees to its right {seen[name][1]}")
turns = seen["roll"] == [(30, 0), (120, 0)]
tilts = abs(seen["yaw"][0][1]) == 30 and seen["yaw"][0][0] == 0 and seen["yaw"][1][1] == 0
leans = seen["pitch"][0] == (0, 0) and abs(seen["pitch"][1][1]) == 30
if not (turns and tilts and leans):
    sys.exit("img360-transformer no longer does this")
PY
