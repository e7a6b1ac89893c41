#!/usr/bin/env bash
# supervision 0.31.2: a box across the panorama's seam is read as the whole rest of the panorama.
#
# On a panorama an object behind the camera lies on both ends of the picture; its box goes from 950 over 1000 to 50, with the
# left side larger than the right. `Detections.from_vlm` puts the sides of every box in order, smaller first, so that 950 to
# 50 becomes 50 to 950: all but the object. Its code says that this does not move what a box describes. No reply is marked.
# Seen for Qwen3-VL, Gemini 2.5, PaliGemma and DeepSeek-VL2 replies: a sofa 100 of 1000 columns wide is 900 wide, none of its
# columns is inside, and everything opposite is. What to do: split such a box in two before, or roll the
# panorama so that the object is in the middle.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check supervision==0.31.2 numpy==2.4.6 pillow==12.3.0 scipy==1.17.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import supervision as sv

replies = {
    "QWEN_3_VL": '[{"bbox_2d": [950, 400, 50, 600], "label": "sofa"}]',
    "GOOGLE_GEMINI_2_5": '[{"box_2d": [400, 950, 600, 50], "label": "sofa"}]',
    "PALIGEMMA": "<loc0410><loc0973><loc0614><loc0051> sofa",
    "DEEPSEEK_VL_2": "<|ref|>sofa<|/ref|><|det|>[[949, 400, 50, 599]]<|/det|>",
}
sofa = [*range(950, 1000), *range(50)]
seen = []
for name, reply in replies.items():
    left, _, right, _ = sv.Detections.from_vlm(sv.VLM[name], reply, resolution_wh=(1000, 500)).xyxy[0]
    inside = sum(left + 1 <= column < right - 1 for column in sofa)
    seen.append((round(right - left), inside))
    print(f"supervision {sv.__version__}, {name}: the sofa reaches from {left:.0f} to {right:.0f}, {right - left:.0f} of 1000 columns; {inside} of its own 100 inside")
if any(not 895 < wide < 905 or inside for wide, inside in seen):
    sys.exit("supervision no longer does this")
PY
