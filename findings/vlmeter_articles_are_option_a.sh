#!/usr/bin/env bash
# vlmeter 0.3.1: an answer that is the option's text counts as option A where the text begins with the article "A".
#
# For questions with options a model may answer with the letter or with the option's text. The letter is looked for first, as a
# capital from A to H that stands alone, and after "answer:" also as a small letter. The English article is such a letter: of
# options like "a wooden door", an answer in words that begins with a capital is option A, right or wrong.
# Seen, options "a red chair", "a window", "a wooden door", "the floor": "C" and "a wooden door" are C; "A wooden door" and
# "Answer: a wooden door" are A. What to do: write options without articles.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps vlmeter==0.3.1
"$folder/venv/bin/python" - <<'PY'
import sys

from vlmeter.scoring import parse_choice

options = ["a red chair", "a window", "a wooden door", "the floor"]
wanted = {"C": "C", "wooden door": None, "a wooden door": "C", "A wooden door": "A", "Answer: a wooden door": "A", "Answer: the floor": "D"}
seen = {}
for answer in wanted:
    place = parse_choice(answer, options)
    seen[answer] = None if place is None else "ABCD"[place]
    print(f"{answer!r}: {seen[answer]}")
if seen != wanted:
    sys.exit("vlmeter no longer does this")
PY
