#!/usr/bin/env bash
# pycocoevalcap 1.2: with several references an answer gets a ROUGE-L that none of them gives it, up to 1.0.
#
# With one reference ROUGE-L is an F-measure of precision and recall. With several one expects the best reference's, as
# rouge-score and torchmetrics give it. Here the largest precision and the largest recall are taken each for itself and
# then combined: a long reference gives the precision, a one-word reference the recall. The more and the more unequal
# the references (a query with answers from "red" to a full sentence), the higher everybody's score.
# Seen: one answer of six words, references a sentence that begins with it and one word of it: 0.56 and 0.33 alone, 1.0
# together. What to do: score each reference alone and take the largest; never compare with scores of other packages.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pycocoevalcap==1.2 numpy==2.4.6
"$folder/venv/bin/python" - 2>"$folder/java.log" <<'PY'
import sys

from pycocoevalcap.rouge.rouge import Rouge

answer = ["a big red chair near it"]
references = ["a big red chair near it which stands by the wall of the room", "red"]
alone = [round(Rouge().calc_score(answer, [one]), 2) for one in references]
together = round(Rouge().calc_score(answer, references), 2)
print(f"pycocoevalcap 1.2, ROUGE-L by reference {alone}, with both references {together}")
if alone != [0.56, 0.33] or together != 1.0:
    sys.exit("pycocoevalcap no longer does this")
PY
