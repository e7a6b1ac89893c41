#!/usr/bin/env bash
# iaa-kit 0.1.2: its Krippendorff's alpha is another number where ratings are missing, and "ordinal" is "interval".
#
# Alpha's strength are gaps: items that fewer people rated count for less, by their number of ratings. Here each pair of ratings
# counts the same, so that an item of three ratings weighs three times one of two instead of one and a half times; alpha
# changes with where the gaps are. For "ordinal" the distance between two ratings is their squared difference, as for "interval".
# Seen: of 60 items with three raters, one of whom left out half: nominal 0.655, the package krippendorff gives 0.694; without
# gaps the two agree. Ordinal and interval are both 0.971 with two raters, krippendorff gives 0.964 and 0.971.
# What to do: use the package krippendorff.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check iaa-kit==0.1.2 krippendorff==0.9.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import random
import sys

import krippendorff
import numpy as np
from iaa_kit import alpha_value

random.seed(1)
one = [random.randint(1, 10) for _ in range(60)]
two = [min(10, max(1, rating + random.choice([-1, 0, 0, 1]))) for rating in one]
gaps = [[a, b if random.random() < 0.5 else None, a if random.random() < 0.7 else b] for a, b in zip(one, two)]


def direct(items):
    """Nominal alpha by its definition: each item's pairs divided by its ratings less one."""
    items = [[rating for rating in item if rating is not None] for item in items]
    every = [rating for item in items for rating in item]
    observed = sum(sum(a != b for a in item for b in item) / (len(item) - 1) for item in items) / len(every)
    expected = sum(a != b for a in every for b in every) / (len(every) * (len(every) - 1))
    return 1 - observed / expected


seen = {}
for name, items, scale in (("pairs", list(zip(one, two)), "nominal"), ("gaps", gaps, "nominal"), ("pairs", list(zip(one, two)), "ordinal"), ("pairs", list(zip(one, two)), "interval")):
    table = np.array([[np.nan if rating is None else rating for rating in item] for item in items], float).T
    seen[name, scale] = round(alpha_value(items, scale), 3), round(krippendorff.alpha(table, level_of_measurement=scale), 3)
    by_definition = f", by definition {direct(items):.3f}" if scale == "nominal" else ""
    print(f"{name}, {scale}: iaa-kit {seen[name, scale][0]}, krippendorff {seen[name, scale][1]}{by_definition}")
right = seen["pairs", "nominal"][0] == seen["pairs", "nominal"][1] and seen["gaps", "nominal"][1] == round(direct(gaps), 3)
if not right or seen["gaps", "nominal"][0] > seen["gaps", "nominal"][1] - 0.02 or seen["pairs", "ordinal"][0] != seen["pairs", "interval"][0]:
    sys.exit("iaa-kit no longer does this")
PY
