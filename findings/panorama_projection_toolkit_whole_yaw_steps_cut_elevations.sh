#!/usr/bin/env bash
# panorama-projection-toolkit 0.4.0: a whole-number yaw_step cuts a skyline's elevations to whole degrees.
#
# `view_skyline_to_elevations(..., yaw_step)` takes its type of number from the step: with 1.0 the elevations are floats,
# with 1 they are integers, cut towards the horizon. Nothing warns; `pano_skyline_to_elevations` gives floats either way,
# so that a view's skyline no longer fits the panorama that it was cut from.
# Seen: a ridge 16.54 degrees up in the view's middle is 16.54 with yaw_step=1.0 and 16 with yaw_step=1; over the view the
# error is half a degree on average, up to a whole one. What to do: pass a float.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check panorama-projection-toolkit==0.4.0 opencv-python-headless==5.0.0.93 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import math
import sys

import numpy as np
from panorama_projection_toolkit.projections import pano_skyline_to_elevations, view_skyline_to_elevations

camera = np.array([[100.0, 0, 100], [0, 100.0, 50], [0, 0, 1]])  # 201 x 101 pixels, focal length 100, middle (100, 50)
ridge = np.full(201, 20.3)  # 29.7 pixels above the middle
ahead = np.zeros(3)
truth = math.degrees(math.atan2(29.7, 100))
seen = {}
for step in (1.0, 1):
    elevations, valid = view_skyline_to_elevations(ridge, ahead, camera, (101, 201), step)
    seen[step.__class__.__name__] = elevations[valid].astype(float)
    print(f"yaw_step={step}: {elevations.dtype}, straight ahead {elevations[0]}, calculated {truth:.2f}")
off = seen["float"] - seen["int"]
panorama = pano_skyline_to_elevations(np.full(361, 70.25), (181, 361), 1)[0]
print(f"over the view: {off.mean():.2f} degrees too low on average, {off.max():.2f} at most; a panorama's skyline with yaw_step=1: {panorama:.2f}")
if abs(seen["float"][0] - truth) > 0.01 or seen["int"][0] != 16 or off.mean() < 0.3 or abs(panorama - 19.75) > 0.01:
    sys.exit("panorama-projection-toolkit no longer does this")
PY
