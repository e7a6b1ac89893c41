#!/usr/bin/env bash
# vlmeter 0.3.1: by "exact" match 30 is -30 and 35 is 3.5, by "contains", the default, "I don't know" is "no".
#
# Before two answers are compared, blanks and punctuation are taken out, also from within: the minus sign and the decimal point,
# so that angles lose their side and distances grow tenfold, and the gaps between words, so that an answer is found inside
# and across other words. "Case/punctuation-insensitive" is documented, of numbers and words nothing is said.
# Seen: right by "exact": 30 for -30, 35 for 3.5, 12 for 1-2; right by "contains": "I don't know" for "no", "scattered leaves"
# for "red", "the two pens" for "open". "numeric" keeps sign and point. What to do: use "numeric" for numbers, "exact" for words.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps vlmeter==0.3.1
"$folder/venv/bin/python" - <<'PY'
import sys

from vlmeter.dataset import Item
from vlmeter.scoring import score

wanted = {
    ("exact", "-30", "30"): True, ("exact", "3.5", "35"): True, ("exact", "1-2", "12"): True, ("exact", "3.5", "4.5"): False,
    ("numeric", "-30", "30"): False, ("numeric", "3.5", "35"): False,
    (None, "no", "I don't know"): True, (None, "red", "scattered leaves"): True, (None, "open", "the two pens"): True, (None, "no", "yes"): False,
}
seen = {}
for match, truth, answer in wanted:
    outcome = score(Item(id="1", image="1.jpg", answer=truth, match=match), answer)
    seen[match, truth, answer] = outcome.correct
    print(f"{outcome.match}: {answer!r} where {truth!r} is right: {outcome.correct}")
if seen != wanted:
    sys.exit("vlmeter no longer does this")
PY
