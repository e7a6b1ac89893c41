#!/usr/bin/env bash
# transformers 5.24.0: in one Trainer, gradient accumulation weighs tokens for LLaVA and InternVL, micro-batches for Qwen-VL.
#
# Since the repair of gradient accumulation a step of two micro-batches equals one step of the joined batch: the loss is
# divided by all supervised tokens. Model classes may opt out (`accepts_loss_kwargs = False`), and Qwen2.5-VL, Qwen3-VL,
# Qwen3.5, GLM-4V and Gemma 4 do: there a micro-batch with 2 answer tokens counts as much as one with 30. A comparison of
# families on one recipe compares two losses, and their learning rates mean different things.
# Seen: one SGD step on two rows with 2 and with 30 supervised tokens, as one batch or as two accumulated ones: LLaVA's
# update is the same, Qwen2.5-VL's differs by more than its own length; with 16 and 16 tokens both are the same.
# What to do: divide by the step's tokens in a `compute_loss_func` of your own, or avoid accumulation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" transformers==5.24.0 torch==2.15.0 torchvision==0.29.2 pillow==12.3.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io
import sys

import torch
import transformers
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXT = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
CONFIGS = {
    "qwen2_5_vl": {
        "text_config": TEXT | {"rope_parameters": ROPE},
        "vision_config": {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 32},
    },
    "llava": {
        "text_config": TEXT | {"model_type": "llama"},
        "vision_config": {
            "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
        },
    },
}  # fmt: skip


def row(supervised: int) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 50, (32,), generator=torch.Generator().manual_seed(supervised))
    labels = ids.clone()
    labels[:-supervised] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def update(kind: str, rows: list[dict[str, torch.Tensor]], accumulated: int) -> torch.Tensor:
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(CONFIG_MAPPING[kind](**CONFIGS[kind]))
    before = [weight.detach().clone() for weight in model.parameters()]
    arguments = TrainingArguments(
        output_dir="out", use_cpu=True, report_to=[], save_strategy="no", max_steps=1, optim="sgd", learning_rate=1.0, max_grad_norm=0,
        lr_scheduler_type="constant", per_device_train_batch_size=2 // accumulated, gradient_accumulation_steps=accumulated,
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        Trainer(model=model, args=arguments, train_dataset=rows).train()
    return torch.cat([(after - old).detach().flatten() for after, old in zip(model.parameters(), before, strict=True)])


seen = {}
for kind in CONFIGS:
    for counts in ((2, 30), (16, 16)):
        rows = [row(count) for count in counts]
        joined, accumulated = update(kind, rows, 1), update(kind, rows, 2)
        seen[kind, counts] = round(float((joined - accumulated).norm() / joined.norm()), 3)
print(f"transformers {transformers.__version__}: relative difference of the update, two rows at once or accumulated: {seen}")
if seen["qwen2_5_vl", (2, 30)] < 0.3 or max(seen["llava", (2, 30)], seen["llava", (16, 16)], seen["qwen2_5_vl", (16, 16)]) > 0.01:
    sys.exit("transformers no longer does this")
PY
