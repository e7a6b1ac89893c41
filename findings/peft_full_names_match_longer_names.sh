#!/usr/bin/env bash
# peft 0.21.2: a full module name in LoraConfig.target_modules also adapts every module whose name ends with it.
#
# To keep adapters out of a vision tower one lists the language model's layers by their full names. peft compares names
# with their ends, so `model.layers.0.q_proj` adapts `vision.model.layers.0.q_proj` too. And a listed name that no
# module has is passed over without a word as soon as any other one matches.
# Seen: two layers adapted where one was named, none warned of. What to do: compare the adapted modules with those
# that were asked for, after `get_peft_model`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" peft==0.21.2 torch==2.15.0 transformers==5.23.0
"$folder/venv/bin/python" - <<'PY'
import sys
import warnings

import peft
from torch import nn


def body() -> nn.Module:
    block = nn.ModuleDict({"q_proj": nn.Linear(4, 4)})
    return nn.ModuleDict({"layers": nn.ModuleList([block])})


model = nn.ModuleDict({"model": body(), "vision": nn.ModuleDict({"model": body()})})
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    config = peft.LoraConfig(target_modules=["model.layers.0.q_proj", "model.layers.7.q_proj"])
    adapted = peft.get_peft_model(model, config)
found = sorted(
    name.removeprefix("base_model.model.").removesuffix(".lora_A")
    for name, _ in adapted.named_modules()
    if name.endswith(".lora_A")
)
print(f"peft {peft.__version__}: asked for model.layers.0.q_proj and model.layers.7.q_proj (which is not there)")
print(f"adapted: {found}; warnings: {[str(one.message) for one in told if 'target' in str(one.message)]}")
if found != ["model.layers.0.q_proj", "vision.model.layers.0.q_proj"]:
    sys.exit("peft no longer does this")
PY
