#!/usr/bin/env bash
# panoocr 0.5.0: a sign that lies across the panorama's seam removes every other sign with similar text at its height.
#
# Readings of overlapping views are merged where their texts are alike and their rectangles of yaw and pitch overlap. The
# rectangles are taken to Web Mercator first, which wraps longitudes: one from 174 to 184 degrees comes out as one from -176
# to 174, a band around the whole sphere. All exits of a corridor say EXIT; the one behind the camera leaves one of them.
# Seen: three signs EXIT, ten degrees wide, at yaw 0, 90 and 170: three are kept. At yaw 0, 90 and 179: one is kept.
# What to do: turn the panorama so that no text lies across its seam, or merge by angles on the sphere yourself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check panoocr==0.5.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import panoocr
from panoocr.dedup.detection import SphereOCRDuplicationDetectionEngine
from panoocr.ocr.models import SphereOCRResult

seen = {}
for yaws in ((0, 90, 170), (0, 90, 179)):
    views = [[SphereOCRResult("EXIT", 0.9, yaw, 0.0, 10.0, 4.0)] for yaw in yaws]  # text, confidence, yaw, pitch, size
    seen[yaws] = [one.yaw for one in SphereOCRDuplicationDetectionEngine().deduplicate_frames(views)]
print(f"panoocr {panoocr.__version__}: by the yaws of three signs EXIT, the yaws of those that are kept: {seen}")
if len(seen[0, 90, 170]) != 3 or len(seen[0, 90, 179]) != 1:
    sys.exit("panoocr no longer does this")
PY
