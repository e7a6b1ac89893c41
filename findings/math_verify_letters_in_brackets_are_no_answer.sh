#!/usr/bin/env bash
# math-verify 0.9.0: the answer "(B)" is no answer to a multiple-choice question, "B." is; a caption that begins with A is A.
#
# `StringExtractionConfig` finds the letters of multiple-choice answers. It takes a letter after a space or at the start and
# before a full stop, comma, colon or space; a bracket is neither. Models write the letter as the question lists it, and most
# benchmarks list "(A)": such answers are lost and count as wrong, those that answer in a sentence may count as right.
# Seen: with B right, "B", "B.", "**B**" and "The answer is B" are right; "(B)", "B)", "The answer is (B)" and \boxed{B} are no
# answer; "A chair is on the left, so (B)" is A. What to do: take the brackets away first, or match the letter yourself.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check math-verify==0.9.0
"$folder/venv/bin/python" - <<'PY'
import sys

from math_verify import StringExtractionConfig, parse, verify

letters = [StringExtractionConfig()]
wanted = {
    "B": True, "B.": True, "**B**": True, "The answer is B": True,
    "(B)": None, "B)": None, "The answer is (B)": None, "\\boxed{B}": None,
    "A chair is on the left, so (B)": False,
}
seen = {}
for answer in wanted:
    found = parse(answer, letters)
    seen[answer] = verify(parse("B", letters), found) if found else None
    print(f"{answer!r}: found {found}, right: {seen[answer]}")
if seen != wanted:
    sys.exit("math-verify no longer does this")
PY
