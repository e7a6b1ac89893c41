#!/usr/bin/env bash
# img2tok 0.1.0: a panorama costs twenty times the tokens that it costs, and making it smaller "saves" 95 % of nothing.
#
# The estimator counts tiles of the picture as it is. The services count them after scaling it down: OpenAI's formula for
# gpt-4o, whose numbers (85 and 170 a tile of 512) the package uses, first fits the picture into 2048 x 2048 and then brings its
# short side to 768. For small pictures the two agree.
# Seen, gpt-4o: 512 x 512: 255 in both. 8192 x 4096: 21845, by the formula 1105; scaled down to 1536 x 768: 1105 in both, so that
# `compare` reports 94.9 % saved where the bill stays the same. What to do: scale first, by the formula, then estimate.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps img2tok==0.1.0 pillow==12.3.0
"$folder/venv/bin/python" - <<'PY'
import importlib.util
import math
import pathlib
import sys

from PIL import Image

module = pathlib.Path(importlib.util.find_spec("img2tok").origin).with_name("estimator.py")
spec = importlib.util.spec_from_file_location("estimator", module)  # the package's __init__ wants OpenCV and more
sys.modules["estimator"] = estimator = importlib.util.module_from_spec(spec)
spec.loader.exec_module(estimator)


def formula(width, height):
    """Tokens of a picture in high detail by OpenAI's documentation of gpt-4o."""
    scale = min(1, 2048 / max(width, height))
    scale *= min(1, 768 / (min(width, height) * scale))
    return 85 + 170 * math.ceil(round(width * scale) / 512) * math.ceil(round(height * scale) / 512)


count = estimator.TokenEstimator()
seen = {}
for size in ((512, 512), (1536, 768), (8192, 4096)):
    seen[size] = count.estimate(Image.new("L", size), "openai").tokens, formula(*size)
    print(f"{size[0]} x {size[1]}: img2tok {seen[size][0]}, by the formula {seen[size][1]}")
saved = count.compare(Image.new("L", (8192, 4096)), Image.new("L", (1536, 768)), "openai").savings_pct
print(f"from 8192 x 4096 to 1536 x 768: {saved:.1f} % saved, by the formula {100 * (1 - formula(1536, 768) / formula(8192, 4096)):.1f} %")
if seen != {(512, 512): (255, 255), (1536, 768): (1105, 1105), (8192, 4096): (21845, 1105)} or round(saved, 1) != 94.9:
    sys.exit("img2tok no longer does this")
PY
