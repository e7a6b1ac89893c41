#!/usr/bin/env bash
# panorama-projection-toolkit 0.4.0: a camera's yaw grows to the left, the yaw of its skyline to the right.
#
# Views and skylines of one package go by "yaw", 0 to the north. In an orientation (pitch, roll, yaw) +30 turns the camera
# to the left, to the west; the yaw samples of the skyline functions, 0 to 360, grow to the right, to the east. The documents
# call the axes right-handed, which settles the first; of the second they say nothing. Whoever looks up the elevations of a
# view at its yaw finds those of the other side; in views that look north or south nobody notices.
# Seen: the middle of a view of yaw 30 lies at longitude -30 of the panorama, and its skyline's peak at yaw 330.
# What to do: look up a view's skyline at -yaw; negate yaws that come from packages where they grow to the right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check panorama-projection-toolkit==0.4.0 opencv-python-headless==5.0.0.93 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
from panorama_projection_toolkit import pano_to_view
from panorama_projection_toolkit.projections import view_skyline_to_elevations

longitudes = np.repeat(np.linspace(-180, 180, 361)[None], 181, axis=0)  # grows to the right, as panorama columns do
camera = np.array([[100.0, 0, 100], [0, 100.0, 50], [0, 0, 1]])
ridge = np.full(201, 20.3)
seen = []
for yaw in (0.0, 30.0, -30.0):
    turned = np.array([0.0, 0.0, yaw])
    middle = float(pano_to_view(longitudes, 60.0, turned, (41, 41))[20, 20])
    elevations, valid = view_skyline_to_elevations(ridge, turned, camera, (101, 201), 1.0)
    peak = float(np.arange(0, 360, 1.0)[valid][np.argmax(elevations[valid])])  # a level ridge is highest in the middle
    seen.append((yaw, round(middle), peak))
    print(f"orientation's yaw {yaw:+.0f}: middle at longitude {middle:+.1f}, its skyline's middle at yaw {peak:.0f}")
if seen != [(0.0, 0, 0.0), (30.0, -30, 330.0), (-30.0, 30, 30.0)]:
    sys.exit("panorama-projection-toolkit no longer does this")
PY
