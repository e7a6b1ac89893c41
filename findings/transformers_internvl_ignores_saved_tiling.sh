#!/usr/bin/env bash
# transformers 5.24.0: the saved setting of InternVL's tiling is not used; a small view is cut into ten tiles all the same.
#
# `crop_to_patches: false` in the image processor's file says that a picture is one tile, and the loaded image processor shows
# False and obeys when it is called itself. Called through InternVLProcessor, or through its chat template, the class's own
# default True wins. A view of 224 pixels is then ten tiles, the prompt ten times as long, and nine views 90 tiles.
# Seen with tiles of 56 pixels: attribute False, image processor alone 1 tile, processor 10, with crop_to_patches=False in
# the call 1. What to do: give crop_to_patches=False in every call.
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
from tokenizers import Tokenizer, models
from transformers import AutoProcessor, GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor, PreTrainedTokenizerFast

words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1}, unk_token="<unk>"))
marks = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
words.add_special_tokens(list(marks.values()))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=marks)
images = GotOcr2ImageProcessor(size={"height": 56, "width": 56}, crop_to_patches=False)
InternVLProcessor(images, tokenizer, InternVLVideoProcessor(), image_seq_length=4, chat_template="-").save_pretrained("saved")

processor = AutoProcessor.from_pretrained("saved")
view = Image.new("RGB", (224, 224), "teal")
seen = {
    "attribute": processor.image_processor.crop_to_patches,
    "image processor": len(processor.image_processor(images=[view], return_tensors="pt")["pixel_values"]),
    "processor": len(processor(images=[view], text=["<IMG_CONTEXT>"], return_tensors="pt")["pixel_values"]),
    "processor, told": len(processor(images=[view], text=["<IMG_CONTEXT>"], return_tensors="pt", crop_to_patches=False)["pixel_values"]),
}
print(f"transformers {transformers.__version__}, tiles of one view: {seen}")
if seen != {"attribute": False, "image processor": 1, "processor": 10, "processor, told": 1}:
    sys.exit("transformers no longer does this")
PY
