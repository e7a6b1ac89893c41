#!/usr/bin/env bash
# streetview-tools 0.2.0: views that are not square are squashed or stretched, though its documents say that they are not.
#
# `equirect_to_perspective` and the functions that download a view keep the horizontal field of view at 90 degrees and take
# the vertical one as 90 * height / width. In a perspective view not the angles but their half's tangents are in that ratio:
# the pixels are not square. Documented is "extra sky/ground is captured instead of the image being stretched".
# Seen: a disc of 10 degrees straight ahead is as wide as high in a square view; in a wide view (800 x 400) it is 1.2 times
# as high as wide, in a tall one (400 x 600) 0.63 times. What to do: ask for a square view and crop it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check streetview-tools==0.2.0 py360convert==1.0.4 numpy==2.4.6 pillow==12.3.0 scipy==1.17.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import numpy as np
from PIL import Image
from streetview_tools._downloader import equirect_to_perspective

longitude, latitude = np.meshgrid(np.radians(-180 + (np.arange(4000) + 0.5) * 0.09), np.radians(90 - (np.arange(2000) + 0.5) * 0.09))
disc = np.cos(latitude) * np.cos(longitude) > np.cos(np.radians(10))
panorama = Image.fromarray(np.where(disc, 255, 0).astype(np.uint8)).convert("RGB")
seen = {}
for width, height in ((400, 400), (800, 400), (400, 600)):
    view = np.asarray(equirect_to_perspective(panorama, 0, 0, width=width, height=height))[:, :, 0] > 127
    high, wide = int(view.any(axis=1).sum()), int(view.any(axis=0).sum())
    seen[width, height] = high / wide
    vertical = np.radians(90 * height / width)
    print(f"{width} x {height}: the disc is {wide} wide, {high} high, ratio {high / wide:.2f}; calculated from the angles {height / width / np.tan(vertical / 2):.2f}, square pixels 1.00")
if abs(seen[400, 400] - 1) > 0.03 or seen[800, 400] < 1.15 or seen[400, 600] > 0.7:
    sys.exit("streetview-tools no longer does this")
PY
