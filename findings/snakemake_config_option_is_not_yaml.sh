#!/usr/bin/env bash
# snakemake 9.27.1: `--config resume=false` is a text that counts as true, and inside braces every number is a text.
#
# `--config` values look like YAML ("{…}" and "[…]" are read as such) and one expects what a config file would give. Alone
# stand only Python's int, float, True and False: false is the text "false", 007 the number 7, and an experiment named 2_1
# is the number 21. Inside braces and brackets nothing has a type: {seed: 3} is "3", {lr: 1e-4} is "1e-4", and
# {resume: false} is "false", which `if config["training"]["resume"]` takes for yes.
# Seen: resume=false -> 'false', resume=False -> False, name=2_1 -> 21, name=007 -> 7, and
# training={resume: false, seed: 3, lr: 0.5} -> three texts, where --configfile with the same line gives False, 3 and 0.5.
# What to do: give such settings in a --configfile, or convert and check every value of config at the Snakefile's top.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check snakemake==9.27.1
cd "$folder"
cat >Snakefile <<'SMK'
import json
print("CONFIG", json.dumps(config))
rule all:
SMK
echo 'training: {resume: false, seed: 3, lr: 0.5}' >settings.yaml
seen() { venv/bin/snakemake -n --cores 1 "$@" 2>&1 | sed -n 's/^CONFIG //p' | head -1; }
{
  seen --config resume=false
  seen --config resume=False
  seen --config name=2_1
  seen --config name=007
  seen --config 'training={resume: false, seed: 3, lr: 0.5}'
  seen --configfile settings.yaml
} | tee seen
cat >expected <<'END'
{"resume": "false"}
{"resume": false}
{"name": 21}
{"name": 7}
{"training": {"resume": "false", "seed": "3", "lr": "0.5"}}
{"training": {"resume": false, "seed": 3, "lr": 0.5}}
END
cmp -s seen expected || { echo "snakemake no longer does this" >&2; exit 1; }
