#!/usr/bin/env bash
# pycocoevalcap 1.2: the tokens of a caption, and so its scores, depend on the caption of the next picture.
#
# All captions go to Stanford's tokenizer as the lines of one text. Whether a full stop behind a single letter or a short
# word belongs to an abbreviation is decided by how the following line begins. "to door A." is "to door a" before a caption
# that begins with a capital letter and "to door a." before one in lower case, and "a." matches no "a". Scores change with
# the order of the pictures, with a subset, and between references and answers, whose neighbours differ.
# Seen: the same caption before "The room is red" and before "the room is red": two different lists of tokens, and a BLEU-1
# of 1.00 or 0.67 against the reference "to door a".
# What to do: put a line that begins no sentence (for instance "x") behind each caption and drop it again. Needs java.
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
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

seen = {}
for following in ("The room is red", "the room is red"):
    captions = {0: [{"caption": "to door A."}], 1: [{"caption": following}]}
    tokens = PTBTokenizer().tokenize(captions)[0]
    with contextlib.redirect_stdout(io.StringIO()):
        bleu = Bleu(4).compute_score({0: ["to door a"]}, {0: tokens})[0][0]
    seen[following] = tokens[0], round(bleu, 2)
print(f"pycocoevalcap 1.2, 'to door A.' by the next picture's caption, tokens and BLEU-1: {seen}")
if seen != {"The room is red": ("to door a", 1.0), "the room is red": ("to door a.", 0.67)}:
    sys.exit("pycocoevalcap no longer does this")
PY
