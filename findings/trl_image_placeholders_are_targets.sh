#!/usr/bin/env bash
# trl 1.16.0: on conversations with pictures SFTTrainer trains the model to write image placeholders: nine tenths of its loss.
#
# One expects that the tokens which only hold a picture's place are no targets: the model sees the picture there, it never
# writes them. The vision collator masks padding alone and leaves the rest "to the model"; Qwen2.5-VL's loss masks nothing
# either. With a panorama the loss, its curve and the gradient are mostly about <|image_pad|> after <|image_pad|>, which is
# learnt in a few steps; answers differ little in it, so the best checkpoint by this loss is not the best at answering.
# Seen with one small panorama (448 x 224) and the answer "a red box": 128 of 141 targets are <|image_pad|>.
# What to do: data as prompt and completion with `completion_only_loss=True`, or mask those ids in a collator of your own.
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
batch = DataCollatorForVisionLanguageModeling(processor)([{"images": [panorama], "messages": question + answer}])
targets = batch["labels"][batch["labels"] != -100]
places = int((targets == tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum())
only = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)([{"images": [panorama], "prompt": question, "completion": answer}])
answers = tokenizer.decode(only["labels"][only["labels"] != -100])
print(f"trl {trl.__version__}: {places} of {len(targets)} targets are <|image_pad|>; targets with completion_only_loss: {answers!r}")
if places != 128 or len(targets) != 141 or answers != "a red box <|end|>":
    sys.exit("trl no longer does this")
PY
