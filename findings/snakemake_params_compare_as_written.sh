#!/usr/bin/env bash
# snakemake 9.27.1: a params value that is a set makes its job run again and again; a dictionary in another order, once more.
#
# "Params have changed since last execution" compares the written form of a value, not the value. Python writes a set of
# texts in an order that differs from process to process, so that `params: tags={"kitchen", "hall", …}` is new each time
# and a training of days starts over. A dictionary whose keys were sorted in the YAML file is equal but written otherwise.
# Seen: after a run, four dry runs with nothing changed: at least one of them wants to run the job with the set again, none
# the job with the same texts as a sorted list; and the job with the dictionary wants to run after its two keys changed places.
# What to do: params=sorted(…) for sets; for dictionaries json.dumps(…, sort_keys=True).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check snakemake==9.27.1
cd "$folder"
cat >Snakefile <<'SMK'
configfile: "settings.yaml"
TAGS = {"kitchen", "bath", "hall", "roof", "garage", "stairs", "cellar", "porch"}
rule set_:
    output: "set.txt"
    params: tags=TAGS
    shell: "echo done > {output}"
rule sorted_:
    output: "sorted.txt"
    params: tags=sorted(TAGS)
    shell: "echo done > {output}"
rule dictionary:
    output: "dictionary.txt"
    params: training=config["training"]
    shell: "echo done > {output}"
SMK
echo 'training: {lr: 0.5, seed: 1}' >settings.yaml
venv/bin/snakemake --cores 1 set.txt sorted.txt dictionary.txt >log 2>&1
wanted() { venv/bin/snakemake -n --cores 1 "$1" 2>&1 | grep -c "reason: Params have changed" || true; }
sets=0 lists=0
for _ in 1 2 3 4; do
  sets=$((sets + $(wanted set.txt))) lists=$((lists + $(wanted sorted.txt)))
done
before=$(wanted dictionary.txt)
echo 'training: {seed: 1, lr: 0.5}' >settings.yaml
after=$(wanted dictionary.txt)
echo "snakemake $(venv/bin/snakemake --version): of four dry runs want to run the set's job $sets, the list's $lists; the dictionary's before its keys changed places $before, after $after"
[ "$sets" -gt 0 ] && [ "$lists" = 0 ] && [ "$before" = 0 ] && [ "$after" = 1 ] || { echo "snakemake no longer does this" >&2; exit 1; }
