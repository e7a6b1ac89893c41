"""EXP1 from nothing to metrics.json beside an earlier build's: seconds, CPU seconds, and what both have learnt.

    python benchmarks/main_job.py --baseline /tmp/baseline --seeds 1 2 3

The builds take turns, seed by seed, each in an empty folder with all cores; installation does not count. Prints a row
each, at the end the medians and their ratio. For a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import yaml
from exp1_seeds import SEEDS
from side_by_side import THIS, Build, Cost, add_baseline, baseline, cost

TARGET = "results/EXP1/metrics.json"
GOALS = {"wall": 0.6, "exact_match": 0.8, "cider_ratio": 1.7}


def run(build: Build, seed: int, folder: Path, *arguments: str) -> Cost:
    """EXP1 of a build with `seed` in all its parts, in an empty folder."""
    for name in ("Snakefile", "workflow", "profiles", "config"):
        source = build.root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    path = folder / "config/experiments/EXP1.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key in SEEDS:
        node = document
        *head, last = key.split(".")
        for part in head:
            node = node.setdefault(part, {})
        node[last] = seed
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    # As in an activated environment: the earlier build's rules call `python`.
    environment = {"PATH": f"{build.python.parent}:/usr/local/bin:/usr/bin:/bin"}
    return cost([str(build.python), "-m", "snakemake", *arguments, "--", TARGET], folder, env=environment)


def scores_of(folder: Path) -> dict[str, float]:
    document = json.loads((folder / TARGET).read_text(encoding="utf-8"))
    values = {name: document["metrics"][name]["value"] for name in ("exact_match", "cider")}
    values["cider_ratio"] = values["cider"] / document["controls"]["blind"]["cider"]
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_baseline(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--smoke", action="store_true", help="this build's plan, which runs nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if given.smoke:
            print(f"a plan of EXP1: {run(THIS, 1, Path(temporary), '-n').cpu_s:.1f} CPU s")
            return
        builds = {
            "ours": THIS,
            "theirs": baseline(given.baseline or Path(temporary) / "baseline", given.commit),
        }
        rows: dict[str, list[dict[str, float]]] = {label: [] for label in builds}
        for seed in given.seeds:
            for label, build in builds.items():
                folder = Path(temporary) / f"{label}{seed}"
                folder.mkdir()
                took = run(build, seed, folder, "--cores", "all")
                rows[label].append({"wall_s": took.wall_s, "cpu_s": took.cpu_s, **scores_of(folder)})
                told = "  ".join(f"{name} {value:.3f}" for name, value in rows[label][-1].items())
                print(f"seed {seed}  {label:<7} {told}", flush=True)
                shutil.rmtree(folder)
    medians = {
        label: {name: statistics.median(row[name] for row in found) for name in found[0]}
        for label, found in rows.items()
    }
    ours, theirs = medians["ours"], medians["theirs"]
    print(f"medians of {len(given.seeds)}: {ours['wall_s']:.0f} of {theirs['wall_s']:.0f} s, "
          f"{ours['wall_s'] / theirs['wall_s']:.2f} of the time (goal {GOALS['wall']}), "
          f"{ours['cpu_s'] / theirs['cpu_s']:.2f} of the CPU time; exact match {ours['exact_match']:.3f} and "
          f"{theirs['exact_match']:.3f}, CIDEr {ours['cider_ratio']:.2f} and {theirs['cider_ratio']:.2f} times the "
          f"blind one")  # fmt: skip
    if ours["exact_match"] < GOALS["exact_match"] or ours["cider_ratio"] < GOALS["cider_ratio"]:
        sys.exit("ours has learnt too little")


if __name__ == "__main__":
    main()
