#!/usr/bin/env bash
# pytorch360convert 0.2.3: a view across the panorama's seam has a flat stripe there, one panorama pixel wide.
#
# It offers itself as py360convert for tensors, and its sampler is documented as wrapping horizontally. It wraps the
# coordinate and then clamps at the border: between the last column and the first nothing is interpolated, the last
# column's colour fills the gap. In a view of 10 degrees of a panorama 64 pixels wide that is more than half of the
# picture; with real sizes it is a step that runs from top to bottom through every view of what lies behind.
# Seen: with a smooth panorama (the sine of the longitude) 23 of 41 samples around the seam are one value, and the
# error there is 0.097 where py360convert's is 0.0001.
# What to do: put a copy of the first columns behind the last before cutting a view that crosses the seam, or turn the
# panorama by half with `torch.roll` and look the other way.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" pytorch360convert==0.2.3 py360convert==1.0.4 torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
import py360convert
import pytorch360convert
import torch

longitude = (np.arange(64) + 0.5) / 64 * 2 * np.pi - np.pi
panorama = np.tile(np.sin(longitude), (32, 1))
aside = np.arctan(np.linspace(-1, 1, 41) * np.tan(np.radians(5)))  # both span the FoV between the outer pixels' centres
truth = np.sin(np.pi + aside)
ours = pytorch360convert.e2p(torch.tensor(panorama)[None], 10, h_deg=180, out_hw=(1, 41))[0, 0].numpy()
other = py360convert.e2p(panorama, 10, 180, 0, (1, 41))[0]
flat = int(np.unique(ours.round(6), return_counts=True)[1].max())
errors = {name: round(float(abs(view - truth).max()), 4) for name, view in (("pytorch360convert", ours), ("py360convert", other))}
print(f"pytorch360convert {version('pytorch360convert')}: {flat} of 41 samples across the seam are one value; largest errors {errors}")
if flat < 10 or errors["pytorch360convert"] < 0.05 or errors["py360convert"] > 0.002:
    sys.exit("pytorch360convert no longer does this")
PY
