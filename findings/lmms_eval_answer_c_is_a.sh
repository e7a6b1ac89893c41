#!/usr/bin/env bash
# lmms-eval 0.7.3: the reply "Answer: C" is option A in four of its spatial benchmarks, and C in three others.
#
# EmbSpatial, V*, CV-Bench and OmniSpatial take a reply's first letter for the option, upper or lower case and whatever
# follows it: "Answer: C" is A, "Behind the sofa" is B. V*'s code names "Answer: A" among the forms that it knows, but looks
# for it after the first letter. A model that always answers so, and rightly, gets the share of questions whose answer is A,
# and the log shows no parsing failure. ViewSpatial, MindCube and 3DSRBench read C.
# Seen: a hundred right replies "Answer: X", options A to D in turns: accuracy 0.25 in the four, "C" alone: 1.00.
# What to do: ask for the letter alone, and compare the parsed options with the raw replies before a table is believed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check loguru==0.7.3 pyyaml==6.0.3 pillow==12.3.0 numpy==2.4.6 pandas==3.1.1
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps lmms-eval==0.7.3
export LOGURU_LEVEL=WARNING
"$folder/venv/bin/python" -W ignore - <<'PY'
import importlib.util
import sys
from importlib.metadata import distribution


def task(name):
    """A task's code as the harness loads it: by its file."""
    spec = importlib.util.spec_from_file_location(name, distribution("lmms-eval").locate_file(f"lmms_eval/tasks/{name}/utils.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


embspatial, vstar, cv, omni = task("embspatial"), task("vstar_bench"), task("cv_bench"), task("omni_spatial")
scores = {
    "EmbSpatial": lambda reply, right: embspatial.embspatial_process_results({"answer": "ABCD".index(right), "question_id": 0, "relation": "left"}, [reply])["embspatial_acc"]["is_correct"],
    "V*": lambda reply, right: vstar.vstar_process_results({"label": right, "question_id": 0, "category": "position", "text": ""}, [reply])["vstar_overall_acc"]["score"],
    "CV-Bench": lambda reply, right: cv._extract_answer_letter(reply) == right,
    "OmniSpatial": lambda reply, right: omni.omni_spatial_process_results({"answer": "ABCD".index(right)}, [reply])["omni_spatial_score"]["score"],
    "ViewSpatial": lambda reply, right: task("viewspatial").extract_option(reply) == right,
    "MindCube": lambda reply, right: task("mindcube").extract_answer(reply) == right,
    "3DSRBench": lambda reply, right: task("3dsrbench").extract_answer(reply) == right,
}
print(f"lmms-eval {distribution('lmms-eval').version}, a hundred right replies:")
seen = {}
for name, score in scores.items():
    seen[name] = [sum(score(form + right, right) for right in "ABCD" * 25) / 100 for form in ("", "Answer: ")]
    print(f"  {name}: the letter alone {seen[name][0]:.2f}, after \"Answer: \" {seen[name][1]:.2f}")
if [values for values in seen.values()] != [[1, 0.25]] * 4 + [[1, 1]] * 3:
    sys.exit("lmms-eval no longer does this")
PY
