#!/usr/bin/env bash
# elemental-rhodium 0.9.0: expanding a wide box of longitudes returns a box without what was in it.
#
# The package's boxes of longitude and latitude may cross the seam, which suits boxes in panoramas. `bbox.expand(box, point)`,
# documented as "the smallest box containing both", takes the box's corners and the point, and leaves out the largest gap
# between their longitudes. Where that is the inside of the box (a floor, a wall of shelves around the camera), the point and
# the two edges come back, and what was in the box does not. `union` is right.
# Seen: 60 to the left and right, expanded to 120, is -60 to 120; 100 to the left and right is 100 to -100, 160 wide, without 0.
# What to do: use `union` with a box of no width.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check elemental-rhodium==0.9.0
"$folder/venv/bin/python" - <<'PY'
import sys

from rhodium import BBox, Point, bbox

ahead, point = Point(lng=0, lat=-10), Point(lng=120, lat=-10)
seen = {}
for half in (60, 100):
    box = BBox(west=-half, east=half, south=-20, north=0)
    expanded = bbox.expand(box, point)
    united = bbox.union(box, BBox(west=120, east=120, south=-10, north=-10))
    seen[half] = (expanded.west, expanded.east, bbox.contains(expanded, ahead), (united.west, united.east))
    print(f"{-half} to {half} and 120: expand {expanded.west} to {expanded.east}, {expanded.width} wide, holds 0: "
          f"{bbox.contains(expanded, ahead)} (before: {bbox.contains(box, ahead)}); union {united.west} to {united.east}")
if seen != {60: (-60, 120, True, (-60, 120)), 100: (100, -100, False, (-100, 120))}:
    sys.exit("elemental-rhodium no longer does this")
PY
