#!/usr/bin/env bash
# nltk 3.10.4 and pycocoevalcap 1.2: METEOR of a one-word answer equal to its reference is 0.5 in one, 1.0 in the other.
#
# Both are called METEOR in papers' tables. The penalty for scattered matches is 0.5 * (chunks / matches)^3; a perfect match
# is one chunk, which for one word gives 1 / 1. Meteor 1.5, which pycocoevalcap starts, takes no penalty off a single chunk
# that covers both texts; nltk does. On questions whose answers are "yes" or "kitchen" a model that is always right has
# 0.5, and the difference to published captioning scores changes with the answers' length.
# Seen for equal texts of 1, 2, 3 and 7 words: nltk 0.5, 0.9375, 0.9815, 0.9985; pycocoevalcap 1.0 each.
# What to do: say which METEOR it is, and give exact match beside it for short answers. Needs java.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check nltk==3.10.4 pycocoevalcap==1.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import sys

import nltk
from nltk.translate.meteor_score import single_meteor_score
from pycocoevalcap.meteor.meteor import Meteor


class NoSynonyms:
    """In WordNet's place: equal texts need none."""

    @staticmethod
    def synsets(word: str) -> list:
        return []


answers = ["kitchen", "a kitchen", "a large kitchen", "the red chair stands behind the table"]
ours = [round(single_meteor_score(one.split(), one.split(), wordnet=NoSynonyms), 4) for one in answers]
java = Meteor()
coco = [round(java.compute_score({0: [one]}, {0: [one]})[0], 4) for one in answers]
print(f"equal texts of 1, 2, 3 and 7 words: nltk {nltk.__version__} {ours}; pycocoevalcap 1.2 {coco}")
if ours != [0.5, 0.9375, 0.9815, 0.9985] or coco != [1.0] * 4:
    sys.exit("nltk or pycocoevalcap no longer does this")
PY
