#!/usr/bin/env bash
# trl 1.16.0: prompts longer than max_length leave a vision batch without a single target, and the loss is nan.
#
# SFTConfig's max_length is 1,024 tokens by default; the views of one panorama are easily 2,000. With conversations the
# processor refuses to cut image tokens. With prompt and completion the collator joins both and cuts the end itself: the
# answer goes first, then the picture's tokens. No row is dropped, nothing is said, and the mean over no target is nan,
# which the optimiser writes into the weights.
# Seen with a prompt of 137 tokens and an answer of 4: max_length 141 four targets, 139 two, 137 none and the loss nan.
# What to do: max_length=None for vision data, and drop long rows yourself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" trl==1.16.0 transformers==5.24.0 torch==2.15.0 torchvision==0.29.2 pillow==12.3.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import torch
import trl
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

words = Tokenizer(models.WordLevel({word: i for i, word in enumerate("<unk> user assistant what is behind me a red box".split())}, unk_token="<unk>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
words.add_special_tokens(["<|pad|>", "<|end|>", "<|vision_start|>", "<|image_pad|>", "<|video_pad|>", "<|vision_end|>"])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<unk>")
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)
processor = Qwen2_5_VLProcessor(Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE)
panorama = Image.new("RGB", (448, 224), "teal")
question = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is behind me"}]}]
answer = [{"role": "assistant", "content": [{"type": "text", "text": "a red box"}]}]
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

text = {
    "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
}  # fmt: skip
vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{mark}|>") for name, mark in (
    ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))}  # fmt: skip
model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
seen = {}
for longest in (141, 139, 137):
    collator = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True, max_length=longest)
    batch = collator([{"images": [panorama], "prompt": question, "completion": answer}])
    with torch.no_grad():
        seen[longest] = int((batch["labels"] != -100).sum()), bool(torch.isnan(model(**batch).loss))
print(f"trl {trl.__version__}, SFTConfig's max_length {trl.SFTConfig(output_dir='out', bf16=False).max_length}; targets and whether the loss is nan: {seen}")
if seen != {141: (4, False), 139: (2, False), 137: (0, True)}:
    sys.exit("trl no longer does this")
PY
