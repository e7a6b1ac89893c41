#!/usr/bin/env bash
# ai4math 0.1.0: "on" is a right answer where "no" is right, "2 meters" is wrong where "2" is, "2 meter" is right.
#
# `verify(truth, answer)` compares answers as text, as numbers and at last as formulas. There a word of up to three letters is
# a product of its letters, so that words of the same letters are equal. Units are taken off beforehand, "with optional
# plural"; but the singular must end where the word ends, so that most plurals stay, and an answer with one is wrong.
# Seen: "on" for "no" and "en" for "ne" (north-east) are right by "symbolic"; "2 meter" and "2 cm" are right for "2",
# "2 meters" is not. What to do: compare words yourself, and give it numbers only.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check ai4math==0.1.0 sympy==1.14.0
"$folder/venv/bin/python" - <<'PY'
import sys

from ai4math.verify import verify

wanted = {
    ("no", "on"): (True, "symbolic"), ("ne", "en"): (True, "symbolic"), ("no", "yes"): (False, None),
    ("2", "2 cm"): (True, "string"), ("2", "2 meter"): (True, "string"), ("2", "2 meters"): (False, None), ("10", "10 minutes"): (False, None),
}
seen = {}
for truth, answer in wanted:
    result = verify(truth, answer)
    seen[truth, answer] = (result.correct, result.method if result.correct else None)
    print(f"{answer!r} where {truth!r} is right: {result.correct}, by {result.method}")
if seen != wanted:
    sys.exit("ai4math no longer does this")
PY
