#!/usr/bin/env bash
# transformers 5.24.0: two panoramas read in turns with Qwen-VL models disturb each other, though each has its own cache.
#
# A service that keeps one key-value cache a panorama, or a search that grows several answers, calls the model with `past_key_values`
# and expects that everything a sequence needs is in it. The offset between M-RoPE positions and token counts is not: the
# model itself keeps that of its last call without a cache (`rope_deltas`), and the next token of any other cache gets it.
# Seen: the next token's logits of a panorama of 16 x 16 patches, continued at once, and continued after another panorama of
# 4 x 4 patches was read: they differ; with explicit position_ids they are equal. Qwen2.5-VL and Qwen3-VL alike.
# What to do: always give position_ids, or keep `model.model.rope_deltas` with each cache and put it back before each call.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" transformers==5.24.0 torch==2.15.0 torchvision==0.29.2 pillow==12.3.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import copy
import sys

import torch
import transformers
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
}  # fmt: skip
VISION = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
    "fullatt_block_indexes": [0], "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
}  # fmt: skip
IMAGE = 60


def panorama(side: int) -> dict[str, torch.Tensor]:
    """A prompt with one picture of side x side patches, which become (side / 2)^2 tokens."""
    ids = torch.tensor([[1, 2, 62, *[IMAGE] * (side // 2) ** 2, 63, 3, 4]])
    return {
        "input_ids": ids, "mm_token_type_ids": (ids == IMAGE).long(), "image_grid_thw": torch.tensor([[1, side, side]]),
        "pixel_values": torch.randn(side * side, 3 * 2 * 14 * 14, generator=torch.Generator().manual_seed(side)),
    }  # fmt: skip


different = {}
for kind in ("qwen2_5_vl", "qwen3_vl"):
    torch.manual_seed(0)
    config = CONFIG_MAPPING[kind](
        text_config=TEXT, vision_config=VISION, image_token_id=IMAGE, video_token_id=61, vision_start_token_id=62, vision_end_token_id=63
    )
    model = AutoModelForImageTextToText.from_config(config).eval()
    for weight in model.parameters():  # the default weights are so small that positions hardly show
        torch.nn.init.normal_(weight, std=0.3)
    first, following = panorama(16), torch.tensor([[5]])
    with torch.no_grad():
        cache = model(**first, use_cache=True).past_key_values
        delta = model.model.rope_deltas
        place = torch.full((3, 1, 1), first["input_ids"].shape[1] + int(delta))
        caches = [copy.deepcopy(cache) for _ in range(3)]
        alone = model(input_ids=following, past_key_values=caches[0]).logits
        model(**panorama(4), use_cache=True)  # another panorama with a cache of its own
        after = model(input_ids=following, past_key_values=caches[1]).logits
        placed = model(input_ids=following, past_key_values=caches[2], position_ids=place).logits
    different[kind] = round(float((alone - after).abs().max()), 3), round(float((alone - placed).abs().max()), 5)
print(f"transformers {transformers.__version__}: largest difference of the next token's logits after another panorama was read,")
print(f"by the cache alone and with position_ids: {different}")
if any(cached < 0.005 or placed > 0.001 for cached, placed in different.values()):
    sys.exit("transformers no longer does this")
PY
