#!/usr/bin/env bash
# medvlm 0.1.0: a model that is 1 % sure of its answer counts as certain, and answers that it is 0 % sure of count for nothing.
#
# The package asks vision-language models for an answer and a confidence from 0 to 100 %, and measures whether the confidence
# can be trusted. A number above 1 is divided by a hundred, others are taken as shares although the percent sign is there:
# "1%" becomes 1.0, "0.5%" 0.5. The calibration error (ECE) sorts confidences into ten bins that are open below, the lowest
# at 0: an answer with confidence 0 lies in none and adds no error, though it is counted in the number of answers.
# Seen: "Confidence: 2%" 0.02, "1%" 1.0; ten right answers of confidence 0 have ECE 0, of confidence 0.001 they have 0.999.
# What to do: read the number by its percent sign, and put 0 into the first bin.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error OMP_NUM_THREADS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
"$folder/venv/bin/uv" pip install --quiet --python "$folder/venv/bin/python" medvlm==0.1.0 torch==2.15.0 torchvision==0.29.2 transformers==5.24.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PY'
import sys

import medvlm
from medvlm.confidence.verbalized import VERBALIZED_PROMPTS, parse_confidence_numeric

asked = VERBALIZED_PROMPTS["vanilla"].splitlines()[-1]
read = {said: parse_confidence_numeric(f"Answer: yes\nConfidence: {said}") for said in ("90%", "2%", "1%", "0.5%")}
errors = {sure: medvlm.evaluate_calibration([True] * 10, [sure] * 10)["ece"] for sure in (0.0, 0.001, 0.1)}
print(f"medvlm {medvlm.__version__} asks for {asked!r} and reads {read}; ECE of ten right answers by their confidence: {errors}")
if read != {"90%": 0.9, "2%": 0.02, "1%": 1.0, "0.5%": 0.5} or errors[0.0] != 0 or errors[0.001] < 0.99:
    sys.exit("medvlm no longer does this")
PY
