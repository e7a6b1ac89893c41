#!/usr/bin/env bash
# equiforge 0.2.0: views cut with sampling_method="bilinear", the default, are nearest-pixel views, and none says so.
#
# The place in the panorama is made a whole number before the sampling function sees it, so that the four weights are
# always 1, 0, 0, 0. Where a view is finer than the panorama, the ordinary case, one gets blocks; and as the number is cut off
# rather than rounded, the blocks are half a pixel off.
# Seen: a view of 40 degrees, 61 pixels wide, of a panorama 64 pixels wide with a smooth slope: bilinear and nearest are
# equal in every pixel, and the middle row has no more colours than the panorama has columns in it (8), not dozens.
# What to do: enlarge the panorama bilinearly before cutting, or cut with another package.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check equiforge==0.2.0 numpy==2.4.6 pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
import contextlib
import io
import sys
from importlib.metadata import version

import numpy as np
from equiforge import equi2pers

slope = np.tile((np.arange(64) * 4).astype(np.uint8)[None, :, None], (32, 1, 3))
views = {}
with contextlib.redirect_stdout(io.StringIO()):
    for method in ("bilinear", "nearest"):
        views[method] = np.asarray(equi2pers(slope, 61, 61, fov_x=40.0, use_gpu=False, sampling_method=method))
same = bool((views["bilinear"] == views["nearest"]).all())
colours = len(np.unique(views["bilinear"][30, :, 0]))
print(f"equiforge {version('equiforge')}: bilinear equals nearest: {same}; colours in the bilinear view's middle row: {colours} of 61")
if not same or colours > 9:
    sys.exit("equiforge no longer does this")
PY
