#!/usr/bin/env bash
# datasets 5.2.0: JSON answers "007", "3.50" and "true" become 7, 3.5 and True, but only where some other answer is a number.
#
# A column whose values are texts in some rows and numbers in others was an error once; now it is a column of the new
# type Json. On the way texts that read as JSON are stored without quotes and come back as what they look like. Whether
# the answer "3.50" is a text depends on one other row, somewhere in the file; room numbers lose their zeros.
# Seen: ["007", "3.50", "true", "hall"] alone: the same texts; with a row whose answer is the number 4: 7, 3.5, True, "hall",
# 4. And who reads the Parquet file that to_parquet writes without datasets gets "hall" with quotes in the text.
# What to do: make one type of the column before loading, or give `features=Features({"answer": Value("string"), …})`.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export HF_HUB_OFFLINE=1 HF_HOME="$folder/home" HF_DATASETS_DISABLE_PROGRESS_BARS=1
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 pandas==3.1.1
cd "$folder"
"$folder/venv/bin/python" -W ignore - 2>log <<'PY'
import json
import sys
from pathlib import Path

import datasets
import pyarrow.parquet

texts = ["007", "3.50", "true", "hall"]


def loaded(name: str, answers: list) -> datasets.Dataset:
    Path(f"{name}.jsonl").write_text("".join(json.dumps({"answer": one}) + "\n" for one in answers))
    return datasets.load_dataset("json", data_files=f"{name}.jsonl", split="train", cache_dir="cache")


alone, mixed = loaded("alone", texts), loaded("mixed", [*texts, 4])
mixed.to_parquet("mixed.parquet")
stored = pyarrow.parquet.read_table("mixed.parquet")["answer"].to_pylist()
print(f"datasets {datasets.__version__}: texts alone {alone['answer'][:]}; beside the number 4 {mixed['answer'][:]}")
print(f"in the Parquet file {stored}")
if alone["answer"][:] != texts or mixed["answer"][:] != [7, 3.5, True, "hall", 4] or stored[3] != '"hall"':
    sys.exit("datasets no longer does this")
PY
