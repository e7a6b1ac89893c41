#!/usr/bin/env bash
# pycircstat2 0.1.15: its Hodges-Ajne test gives other p-values once north is elsewhere, and p = 0 for even directions.
#
# `omnibus_test` asks whether directions, as answers or errors of a model, are spread evenly: the fewest of them on one side
# of any line, which no turn of the compass changes. The package turns the line by half a circle only and counts one side,
# so half of the sides are never looked at. Where at least half of the directions are on the sides that it sees, p is 0 and
# the statistic infinite, also where they are spread with perfect evenness (the p-value's formula holds below a third).
# Seen: 20 directions, p 0.0058; all turned by 135 degrees 0.30, by 180 degrees 0.96. Front, right, back and left five times
# each: p 0, "not uniform" (Rayleigh's test 1.0). What to do: use rayleigh_test or kuiper_test, which agree with themselves.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pycircstat2==0.1.15 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import math
import sys
from importlib.metadata import version

import numpy as np
from pycircstat2.hypothesis import omnibus_test, rayleigh_test

directions = np.array([3, 12, 33, 33, 36, 36, 38, 58, 60, 62, 65, 83, 221, 257, 313, 318, 340, 345, 355, 356])


def counted(directions):
    """The test as it is written down: fewest directions on one side of any line, and its p-value."""
    total = len(directions)
    few = min(int(((directions - line) % 360 < 180).sum()) for line in np.arange(0.05, 360, 0.1))
    return few, (total - 2 * few) * math.comb(total, few) / 2 ** (total - 1)


print(f"pycircstat2 {version('pycircstat2')}")
seen = {}
for turn in (0, 135, 180):
    turned = (directions + turn) % 360
    seen[turn], few, p = omnibus_test(np.radians(turned)), *counted(turned)
    print(f"turned by {turn}: pycircstat2 {seen[turn].m} on one side, p {seen[turn].pval:.4f}; counted on every side {few}, p {p:.4f}; Rayleigh {rayleigh_test(np.radians(turned)).pval:.4f}")
even = np.radians([0, 90, 180, 270] * 5)
print(f"four directions five times each: p {omnibus_test(even).pval}, Rayleigh {rayleigh_test(even).pval:.2f}")
if seen[0].pval > 0.01 or seen[135].pval < 0.2 or seen[180].pval < 0.9 or omnibus_test(even).pval != 0:
    sys.exit("pycircstat2 no longer does this")
PY
