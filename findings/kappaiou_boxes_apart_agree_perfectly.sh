#!/usr/bin/env bash
# kappaiou 1.0.0: annotators whose boxes lie apart get a kappa of 1.0; the same boxes twice get 33 million.
#
# The package is said to index IoU with Cohen's kappa, where 0 is chance and 1 is all agreement. Its formula puts
# 1 / (1 - mean IoU) in the place of the observed agreement, which is a share in Cohen's kappa: it is 1 where no box touches
# another and grows without bound. So no score is below 1, and a set without one common pixel looks perfect; nothing warns.
# Seen with one box of 10 x 10 moved to the right, tau 0.70: by 30 pixels (IoU 0) 1.0, by 5 (IoU 0.33) 2.67, by 0 33,333,331.
# What to do: report the mean IoU of matched boxes; take no threshold for kappa to this number.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check kappaiou==1.0.0 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
import sys
from importlib.metadata import version

from kappaiou import calculate_adjusted_kappa_iou, calculate_iou, compute_image_kappa_iou

box, seen = [0, 0, 10, 10], {}
for moved in (30, 5, 0):
    other = [moved, 0, 10, 10]
    seen[moved] = compute_image_kappa_iou([box], [other]), calculate_adjusted_kappa_iou([box], [other])
    print(f"kappaiou {version('kappaiou')}: boxes {moved} pixels apart, IoU {calculate_iou(box, other):.2f}: kappa {seen[moved][0]:,.2f}, adjusted {seen[moved][1]:,.2f}")
if min(seen[30]) < 0.99 or not 2.6 < seen[5][0] < 2.7 or min(seen[0]) < 1e6:
    sys.exit("kappaiou no longer does this")
PY
