"""EXP2 with several seeds: are its questions answered from the picture, kind by kind?

    python benchmarks/exp2_seeds.py --seeds 1 2 3

Runs the whole DAG once per seed in a folder of its own (scenes, backbones and training all take the seed) and prints,
for each kind of question, accuracy beside that of shuffled pictures and of text alone; at the end medians and whether
each kind is at least MARGIN above text alone. `--exp1` builds EXP1 too, and prints how much longer EXP2 takes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from exp1_seeds import ROOT

KINDS = ("yes_no", "choice", "number", "direction")
MARGIN = 0.25
SEEDED = ("data.synthetic", "models.miniature.vision", "models.miniature.language", "training")


def run(name: str, seed: int, folder: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Build an experiment with `seed` in `folder`: its metrics.json and the seconds it took."""
    for part in ("Snakefile", "workflow", "profiles", "config"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, folder / part)
    path = folder / f"config/experiments/{name}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in {**{f"{section}.seed": seed for section in SEEDED}, **changes}.items():
        node, (*head, last) = document, key.split(".")
        for one in head:
            node = node.setdefault(one, {})
        node[last] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    target, started = f"results/{name}/metrics.json", time.monotonic()
    with (folder / "run.log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "snakemake", "--cores", "all", "--", target]
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    seconds = time.monotonic() - started
    return json.loads((folder / target).read_text(encoding="utf-8")), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings to try, as YAML")
    parser.add_argument("--exp1", action="store_true", help="build EXP1 too, for the ratio of times")
    arguments = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    above: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory(prefix="exp2-") as folder:
            document, seconds = run("EXP2", seed, Path(folder), changes)
        controls = document["controls"]
        print(f"seed {seed}: {seconds:.0f} s, {document['num_unreadable']} answers that cannot be read", flush=True)
        for kind in KINDS:
            key = f"accuracy.{kind}"
            value, blind, text = document["metrics"][key]["value"], controls["blind"][key], controls["text_only"][key]
            above[kind].append(value - text)
            print(f"  {kind:<10} {value:.3f}  blind {blind:.3f}  text only {text:.3f}", flush=True)
        if arguments.exp1:
            with tempfile.TemporaryDirectory(prefix="exp1-") as folder:
                _, before = run("EXP1", seed, Path(folder), {})
            print(f"  EXP1: {before:.0f} s; EXP2 takes {seconds / before:.2f} times as long", flush=True)
    print(f"median of {len(arguments.seeds)} seeds, above text alone:")
    for kind, found in above.items():
        median = statistics.median(found)
        print(f"  {kind:<10} {median:+.3f}  {'at least' if median >= MARGIN else 'LESS THAN'} {MARGIN}")


if __name__ == "__main__":
    main()
