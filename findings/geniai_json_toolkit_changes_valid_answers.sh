#!/usr/bin/env bash
# geniai-json-toolkit 0.1.1: a model's valid JSON comes back changed: the answer "None" is "null", captions end at an apostrophe.
#
# `parse_partial` mends the JSON of language and vision-language models, by default "repair_syntax". The repairs are made
# in the whole text, not only outside its strings, and also where nothing is broken: True, False and None become true,
# false and null inside answers; what stands between two apostrophes is put in double quotes, which ends the string there.
# Seen: {"answer": "None of the chairs"} gives "null of the chairs", "True north" gives "true north", "the man's dog is left
# of the woman's car" gives "the man"; json.loads reads all three. What to do: try json.loads first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps geniai-json-toolkit==0.1.1
"$folder/venv/bin/python" - <<'PY'
import json
import sys

from geniAi_json_toolkit.parser import parse_partial

wanted = {
    "None of the chairs": "null of the chairs",
    "True north": "true north",
    "the man's dog is left of the woman's car": "the man",
    "it's red": "it's red",  # one apostrophe is left alone
}
seen = {}
for answer in wanted:
    text = json.dumps({"answer": answer})
    assert json.loads(text) == {"answer": answer}
    seen[answer] = parse_partial(text).get("answer")
    print(f"{text} -> {seen[answer]!r}")
if seen != wanted:
    sys.exit("geniai-json-toolkit no longer does this")
PY
