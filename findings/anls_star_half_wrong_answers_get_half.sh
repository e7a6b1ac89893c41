#!/usr/bin/env bash
# anls-star 1.0.1 and anls 0.0.2: an answer that is half wrong, as 13 for 12, gets 0.5 in one and 0 in the other.
#
# ANLS forgives small misreadings and gives 0 from a distance of one half on; the metric's paper gives 0 at exactly one half,
# and so does anls. anls-star, which takes a question's possible answers as "the classical ANLS metric" does, gives 0.5.
# Exactly one half is no rare case: each two-digit count with one wrong digit has it, and "red car" for "blue car".
# Seen: the counts 12, 25, 40 and 18 answered with one digit wrong: 0.0 each with anls, 0.5 each with anls-star.
# What to do: score counts by equality; never compare ANLS between the two packages.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check anls==0.0.2 anls-star==1.0.1
"$folder/venv/bin/python" - <<'PY'
import sys

from anls import anls_score as classical
from anls_star import anls_score as star

pairs = [("12", "13"), ("25", "28"), ("40", "30"), ("18", "19"), ("blue car", "red car"), ("no", "yes")]
scores = {truth: (classical(prediction=answer, gold_labels=[truth], threshold=0.5), star((truth,), answer)) for truth, answer in pairs}
for truth, answer in pairs:
    print(f"{answer!r} for {truth!r}: anls {scores[truth][0]}, anls-star {scores[truth][1]}")
counts = list(scores.values())[:5]
if {one for one, _ in counts} != {0.0} or {two for _, two in counts} != {0.5} or scores["no"] != (0.0, 0.0):
    sys.exit("anls or anls-star no longer does this")
PY
