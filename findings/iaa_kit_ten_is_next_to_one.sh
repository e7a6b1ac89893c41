#!/usr/bin/env bash
# iaa-kit 0.1.2: weighted kappa takes 10 for the neighbour of 1: ratings up to 10 agree much less than they do.
#
# Weights count how many categories apart two ratings are. The package orders the categories by their written form, in which
# 10 comes after 1 and before 2. On a scale of one digit nothing happens; with ratings from 1 to 10, as people and judging
# models give them to answers, 10 beside 9 counts as the scale's largest error. Nothing warns.
# Seen: 60 pairs of ratings at most one apart: quadratic kappa 0.74, scikit-learn gives 0.97 for them; the same ratings less
# one, 0 to 9, give 0.97 in both. What to do: use scikit-learn's cohen_kappa_score.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check iaa-kit==0.1.2 scikit-learn==1.9.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import random
import sys

from iaa_kit import weighted_kappa
from sklearn.metrics import cohen_kappa_score

random.seed(1)
one = [random.randint(1, 10) for _ in range(60)]
two = [min(10, max(1, rating + random.choice([-1, 0, 0, 1]))) for rating in one]
seen = {}
for less in (0, 1):
    ratings = [rating - less for rating in one], [rating - less for rating in two]
    seen[less] = round(weighted_kappa(*ratings, "quadratic"), 3), round(cohen_kappa_score(*ratings, weights="quadratic"), 3)
    print(f"ratings {1 - less} to {10 - less}: iaa-kit {seen[less][0]}, scikit-learn {seen[less][1]}")
if seen[1][0] != seen[1][1] or seen[0][1] != seen[1][1] or seen[0][0] > seen[0][1] - 0.1:
    sys.exit("iaa-kit no longer does this")
PY
