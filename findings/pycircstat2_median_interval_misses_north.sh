#!/usr/bin/env bash
# pycircstat2 0.1.15: around north the median's confidence interval of up to 15 directions is all that the median is not.
#
# Small samples take their bounds from Fisher's table, as the so-and-so many smallest and largest angles between 0 and 360.
# A median has no smallest angle on a circle: where directions lie on both sides of 0, as errors around 0 always do, the
# bounds are one from either side in the wrong order, and the interval from the lower to the upper goes the long way round.
# From 16 directions on the package looks that the median is inside; below it does not, and nothing is said.
# Seen: 9 directions around 2 degrees: from 2 to 358, 356 degrees wide; the same turned by 90 degrees: from 80 to 104. Of 300
# intervals of 12 directions around north none has the true one, around east 0.96. What to do: turn angles by 180 and back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pycircstat2==0.1.15 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from pycircstat2.descriptive import circ_median, circ_median_ci

print(f"pycircstat2 {version('pycircstat2')}")
directions = np.array([350, 352, 355, 358, 2, 5, 8, 10, 14])
seen = {}
for turn in (0, 90):
    turned = np.radians((directions + turn) % 360)
    lower, upper, confidence = circ_median_ci(alpha=turned)
    seen[turn] = np.degrees((upper - lower) % (2 * np.pi))
    print(f"turned by {turn}: median {np.degrees(circ_median(turned)):.0f}, interval ({confidence:.1%}) from {np.degrees(lower):.0f} to {np.degrees(upper):.0f}: {seen[turn]:.0f} degrees wide")
random = np.random.default_rng(1)
held = {}
for true in (0, 90):
    inside = 0
    for _ in range(300):
        sample = (np.radians(true) + random.vonmises(0, 4, 12)) % (2 * np.pi)
        lower, upper, _ = circ_median_ci(alpha=sample)
        inside += (np.radians(true) - lower) % (2 * np.pi) <= (upper - lower) % (2 * np.pi)
    held[true] = inside / 300
    print(f"300 samples of 12 directions around {true}: the interval holds the true median in {held[true]:.2f}")
if seen[0] < 300 or seen[90] > 60 or held[0] > 0.05 or held[90] < 0.9:
    sys.exit("pycircstat2 no longer does this")
PY
