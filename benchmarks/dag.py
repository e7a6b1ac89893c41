"""Start-up of the DAG: a dry run and a no-op of one experiment and of 300, beside an empty Snakefile's in the same run.

    python benchmarks/dag.py --project . --experiment EXP1 --runs 5

Needs a folder in which the experiment is finished. The many are copies of it under other names, marked as up to date by
`snakemake --touch`, so that their no-op looks at every file and every record. Medians of seconds, and ratios.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

EMPTY = 'rule all:\n    shell: "true"\n'


def seconds(folder: Path, *arguments: str, needle: str | None = None) -> float:
    """Wall time of one snakemake command. Its output must hold `needle`."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - started
    if done.returncode or (needle is not None and needle not in done.stdout + done.stderr):
        sys.exit(f"snakemake {' '.join(arguments)} in {folder}:\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    return took


def linked_copy(source: Path, target: Path) -> None:
    """A copy of a folder whose files are hard links; symbolic links stay."""
    shutil.copytree(source, target, symlinks=True, copy_function=lambda a, b: os.link(a, b, follow_symlinks=False))


def many(project: Path, experiment: str, count: int, folder: Path) -> None:
    """`count` finished experiments that differ in name alone."""
    for name in ("Snakefile", "workflow", "profiles", "config"):
        (shutil.copytree if (project / name).is_dir() else shutil.copy)(project / name, folder / name)
    linked_copy(project / "cache", folder / "cache")
    path = folder / f"config/experiments/{experiment}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [f"MANY{number:03d}" for number in range(count)]
    for name in names:
        document["experiment"] = {"name": name}
        path.with_name(f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        linked_copy(project / "runs" / experiment, folder / "runs" / name)
        linked_copy(project / "results" / experiment, folder / "results" / name)
        shutil.copy(project / f"runs/{experiment}_stage_state.json", folder / f"runs/{name}_stage_state.json")
    default = folder / "config/default.yaml"
    default.write_text(
        default.read_text(encoding="utf-8").replace("experiments: [EXP1]", f"experiments: [{', '.join(names)}]"),
        encoding="utf-8",
    )
    seconds(folder, "--touch", "--cores", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("."))
    parser.add_argument("--experiment", default="EXP1")
    parser.add_argument("--many", type=int, default=300)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    targets = ("--", f"results/{given.experiment}/metrics.json", f"runs/{given.experiment}_stage_state.json")
    with tempfile.TemporaryDirectory() as temporary:
        empty, crowd = Path(temporary) / "empty", Path(temporary) / "many"
        empty.mkdir()
        crowd.mkdir()
        (empty / "Snakefile").write_text(EMPTY, encoding="utf-8")
        many(given.project, given.experiment, given.many, crowd)
        rest = "Nothing to be done"
        commands = {
            "empty Snakefile, dry run": (empty, ("-n",), None),
            "one experiment, dry run": (given.project, ("-n", *targets), rest),
            "one experiment, no-op": (given.project, ("--cores", "1", *targets), rest),
            f"{given.many} experiments, dry run": (crowd, ("-n",), rest),
            f"{given.many} experiments, no-op": (crowd, ("--cores", "1"), rest),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(given.runs + 1):
            for name, (folder, arguments, needle) in commands.items():
                took = seconds(folder, *arguments, needle=needle)
                if number:  # the first round warms the caches
                    times[name].append(took)
        floor = statistics.median(times["empty Snakefile, dry run"])
        for name, found in times.items():
            median = statistics.median(found)
            print(f"{name:<28} {median:6.2f} s   {median / floor:5.2f} times the empty one")


if __name__ == "__main__":
    main()
