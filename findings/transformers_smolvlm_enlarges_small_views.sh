#!/usr/bin/env bash
# transformers 5.24.0: a view of exactly SmolVLM's tile size costs 17 tiles, a quarter-size panorama as many as a large one.
#
# The processor "splits large images": one expects that a picture which fits into a tile is one tile. Before it splits,
# it resizes the longest edge to `size`, four tiles, upwards as well. Small perspective views, the ordinary way to show a
# panorama to such a model, become 16 blurred tiles and the view itself: nine views are 153 tiles instead of 9.
# Seen with the class's own settings (tiles of 364 pixels): 364 x 364 gives 17 tiles; panoramas of 100 x 50 and of
# 2048 x 1024 give 9 each; with do_image_splitting=False each is 1.
# What to do: do_image_splitting=False, or size={"longest_edge": N} as large as the views are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" transformers==5.24.0 torch==2.15.0 torchvision==0.29.2 pillow==12.3.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import transformers
from PIL import Image
from transformers import SmolVLMImageProcessor

processor = SmolVLMImageProcessor()
sizes = [(364, 364), (100, 50), (2048, 1024)]


def tiles(**settings: object) -> list[int]:
    return [processor(images=[[Image.new("RGB", size)]], return_tensors="pt", **settings)["pixel_values"].shape[1] for size in sizes]


split, whole = tiles(), tiles(do_image_splitting=False)
print(f"transformers {transformers.__version__}: tiles of {processor.max_image_size} for pictures of {sizes}: {split}; unsplit {whole}")
if split != [17, 9, 9] or whole != [1, 1, 1]:
    sys.exit("transformers no longer does this")
PY
