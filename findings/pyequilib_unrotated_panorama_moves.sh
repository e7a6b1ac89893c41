#!/usr/bin/env bash
# pyequilib 0.6.0: equi2equi with all angles 0 returns another panorama, half a pixel further left and up, and blurred.
#
# A data loader that turns panoramas by random angles, 0 among them, takes the unturned one for the picture itself.
# The grid of the output starts at a pixel's edge and the lookup adds half a pixel, so that every call shifts by half a
# pixel in both axes: ten calls move a dot by five pixels, and half of a turn's error adds up with every further turn.
# Seen: a dot at column 40, row 20 is at 39.5, 19.5 after one call and at 35.0, 15.0 after ten; with `nearest`, which
# has to decide between two neighbours each time, only a quarter of a random picture's pixels stay what they were.
# What to do: do not call it for an angle of 0, and turn about the vertical axis with `numpy.roll`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" pyequilib==0.6.0 torch==2.15.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

import numpy as np
from equilib import equi2equi

still = {"roll": 0.0, "pitch": 0.0, "yaw": 0.0}
rows, columns = np.mgrid[:64, :128]


def centre(picture: np.ndarray) -> tuple[float, float]:
    weights = picture.reshape(64, 128).astype(float)
    return round(float((weights * columns).sum() / weights.sum()), 2), round(float((weights * rows).sum() / weights.sum()), 2)


dot = np.zeros((1, 64, 128), np.float32)
dot[0, 20, 40] = 1
seen = [centre(dot)]
for _ in range(10):
    dot = equi2equi(dot, still).reshape(1, 64, 128)
    seen.append(centre(dot))
noise = np.random.default_rng(0).integers(0, 256, (3, 64, 128)).astype(np.uint8)
kept = float((equi2equi(noise, still, mode="nearest") == noise).all(axis=0).mean())
print(f"pyequilib {version('pyequilib')}: the dot at (column, row) {seen[0]} is at {seen[1]} after one call with all angles 0,")
print(f"at {seen[10]} after ten; brightest pixel then {dot.max():.2f} of 1; with nearest {kept:.0%} of the pixels are kept")
if seen[0] != (40.0, 20.0) or seen[1] != (39.5, 19.5) or seen[10] != (35.0, 15.0) or dot.max() > 0.1 or kept > 0.6:
    sys.exit("pyequilib no longer does this")
PY
