#!/usr/bin/env bash
# pyequilib 0.6.0: pers2equi puts a view back on the other side of the panorama: it turns by the angles the other way round.
#
# equi2pers cuts a view out, pers2equi (new in 2026) draws one in; with the same `rots` the second is expected to undo the
# first. It turns by yaw, pitch and roll of the opposite sign: what was cut at yaw 0.5 comes back at yaw -0.5. An edited
# view, a mask or an attention map lands on the wrong object, and with yaw 0 and pitch 0, the usual first try, all is well.
# Seen: a view of 70 degrees cut and put back, mean distance between where a pixel is drawn and where it was taken: all
# angles 0 below 2 degrees; yaw, pitch or roll of 0.5 more than 20; the same with negated angles below 2 again.
# What to do: negate the angle for pers2equi; with several angles this leaves degrees of error, so turn the panorama first
# (numpy.roll for yaw) and use one angle alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" pyequilib==0.6.0 torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from equilib import equi2pers, pers2equi

longitude, latitude = np.meshgrid(((np.arange(512) + 0.5) / 256 - 1) * np.pi, (0.5 - (np.arange(256) + 0.5) / 256) * np.pi)
panorama = np.stack([np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)]).astype(np.float32)


def off(cut: dict[str, float], back: dict[str, float]) -> float:
    """Degrees, on average, between where pixels of a view are drawn and where they were taken."""
    still = {"roll": 0.0, "pitch": 0.0, "yaw": 0.0}
    drawn = pers2equi(equi2pers(panorama, still | cut, 200, 200, 70.0), still | back, 256, 512, 70.0)
    there = np.abs(drawn).sum(axis=0) > 1e-6
    taken = drawn[:, there] / np.linalg.norm(drawn[:, there], axis=0)
    return round(float(np.degrees(np.arccos(np.clip((taken * panorama[:, there]).sum(axis=0), -1, 1))).mean()), 1)


nothing = off({}, {})
same = {name: off({name: 0.5}, {name: 0.5}) for name in ("yaw", "pitch", "roll")}
negated = {name: off({name: 0.5}, {name: -0.5}) for name in ("yaw", "pitch", "roll")}
print(f"pyequilib {version('pyequilib')}, degrees between drawn and taken: angles 0 {nothing}; 0.5 {same}; back with -0.5 {negated}")
if nothing > 2 or min(same.values()) < 20 or max(negated.values()) > 2:
    sys.exit("pyequilib no longer does this")
PY
