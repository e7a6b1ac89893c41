#!/usr/bin/env bash
# transformers 5.24.0: a collator that leaves out token types changes Qwen2.5-VL and Gemma 3 without a word.
#
# Collators written for transformers 4 hand over input_ids, attention_mask, pixels and image_grid_thw. Today positions and
# attention come from one tensor more, `mm_token_type_ids` (Qwen, GLM) or `token_type_ids` (Gemma 3). One expects an error
# where it is missing, and Qwen3-VL has one. Qwen2.5-VL instead counts positions as if the picture were text, and Gemma 3
# reads the picture's tokens causally: both train and answer, as other models than were asked for.
# Seen: largest difference of the logits without the tensor: Qwen2.5-VL and Gemma 3 above 0.05 and silent; Qwen3-VL ValueError.
# What to do: pass on everything that the processor returns, and give position_ids yourself.
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

import torch
import transformers
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
VISION = {
    "depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "patch_size": 14,
    "fullatt_block_indexes": [0], "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
}  # fmt: skip
MARKS = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 56, "patch_size": 14,
}  # fmt: skip
CONFIGS = {
    "qwen2_5_vl": {"text_config": TEXT | {"rope_parameters": ROPE}, "vision_config": VISION} | MARKS,
    "qwen3_vl": {"text_config": TEXT | {"rope_parameters": ROPE}, "vision_config": VISION} | MARKS,
    "gemma3": {
        "text_config": TEXT, "vision_config": SIGLIP, "mm_tokens_per_image": 16,
        "boi_token_index": 62, "eoi_token_index": 63, "image_token_index": 60,
    },
}  # fmt: skip
seen = {}
for kind, settings in CONFIGS.items():
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(CONFIG_MAPPING[kind](**settings)).eval()
    for weight in model.parameters():  # the default weights are so small that attention hardly shows
        torch.nn.init.normal_(weight, std=0.3)
    ids = torch.tensor([[1, 2, 62, *[60] * 16, 63, 3, 4]])
    types = (ids == 60).long()
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind == "gemma3":
        inputs |= {"pixel_values": torch.randn(1, 3, 56, 56)}
        name = "token_type_ids"
    else:
        inputs |= {"pixel_values": torch.randn(64, 3 * 2 * 14 * 14), "image_grid_thw": torch.tensor([[1, 8, 8]])}
        name = "mm_token_type_ids"
    with torch.no_grad():
        full = model(**inputs, **{name: types}).logits
        try:
            seen[kind] = round(float((model(**inputs).logits - full).abs().max()), 3)
        except ValueError as error:
            seen[kind] = type(error).__name__
print(f"transformers {transformers.__version__}: largest difference of logits without token types: {seen}")
if seen["qwen3_vl"] != "ValueError" or "ValueError" in (seen["qwen2_5_vl"], seen["gemma3"]) or min(seen["qwen2_5_vl"], seen["gemma3"]) < 0.05:
    sys.exit("transformers no longer does this")
PY
