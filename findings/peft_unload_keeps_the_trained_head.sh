#!/usr/bin/env bash
# peft 0.21.2: unload() returns the trained head, not the base model, where modules_to_save was used.
#
# unload() is documented to remove the adapters without merging and to give back the original model, and with LoRA layers
# alone it does. Modules named in `modules_to_save` keep the trained copy and the original is dropped. A score of "the base
# model", taken after unload() in the same process, is the score of a mixture; `disable_adapter()` gives the real one.
# Seen: largest difference to the untouched model's output: with LoRA on `body` alone 0; with modules_to_save=["head"]
# above 0.1 after unload(), 0 inside disable_adapter().
# What to do: measure the base inside `with model.disable_adapter():`, or load it anew.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" peft==0.21.2 torch==2.15.0 transformers==5.23.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import copy
import sys

import peft
import torch
from torch import nn

torch.manual_seed(0)
base = nn.Sequential()
base.add_module("body", nn.Linear(8, 8))
base.add_module("head", nn.Linear(8, 4))
inputs = torch.randn(3, 8)
seen = {}
with torch.no_grad():
    untouched = base(inputs)
    for trained in (None, ["head"]):
        model = peft.get_peft_model(copy.deepcopy(base), peft.LoraConfig(target_modules=["body"], modules_to_save=trained))
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight += 0.5  # as training does
        with model.disable_adapter():
            disabled = float((model(inputs) - untouched).abs().max())
        seen[str(trained)] = round(disabled, 5), round(float((model.unload()(inputs) - untouched).abs().max()), 3)
print(f"peft {peft.__version__}: by modules_to_save, difference to the base model inside disable_adapter() and after unload(): {seen}")
if seen["None"] != (0.0, 0.0) or seen["['head']"][0] != 0.0 or seen["['head']"][1] < 0.1:
    sys.exit("peft no longer does this")
PY
