#!/usr/bin/env bash
# pycocoevalcap 1.2: perfect answers of fewer than four words reach BLEU-4 0.03 and three quarters of CIDEr's 10.
#
# Questions about panoramas have answers such as "a red car". One expects that an answer equal to its reference gets the
# highest score, or that a measure which needs four words says that it has none. Here a sentence without 4-grams has a
# 4-gram precision of 1e-15 / 1e-9, whose fourth root is 0.03, and its CIDEr is a mean over 1- to 4-grams in which the
# missing ones count 0: three words 7.5, two words 5.0, one word 2.5. A test set's mean says how long its answers are.
# Seen: equal answer and reference of one to four words: CIDEr 2.5, 5.0, 7.5, 10.0; BLEU-4 0.03 or less, and 1.0 at four.
# What to do: report BLEU-1 or exact match for short answers, and compare CIDEr only between models on the same questions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pycocoevalcap==1.2 numpy==2.4.6
"$folder/venv/bin/python" - 2>"$folder/java.log" <<'PY'
import contextlib
import io
import sys

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider

bleu, cider = [], []
for words in (1, 2, 3, 4):
    texts = {i: [" ".join(text.split()[:words])] for i, text in enumerate(("red car parked outside", "two dogs run away"))}
    with contextlib.redirect_stdout(io.StringIO()):
        bleu.append(round(Bleu(4).compute_score({0: texts[0]}, {0: texts[0]})[0][3], 4))
        cider.append(round(float(Cider().compute_score(texts, texts)[0]), 2))
print(f"pycocoevalcap 1.2, answers equal to their references, of 1 to 4 words: CIDEr {cider}, BLEU-4 {bleu}")
if cider != [2.5, 5.0, 7.5, 10.0] or max(bleu[:3]) > 0.05 or bleu[3] < 0.99:
    sys.exit("pycocoevalcap no longer does this")
PY
