"""Start-up of the DAG: dry run and no-op of many experiments, beside an empty Snakefile's and an earlier build's.

    python benchmarks/dag.py --project . --experiment EXP1 --many 30 300
    python benchmarks/dag.py --project . --many 30 300 --baseline /tmp/baseline --baseline-project /tmp/finished-by-it

Needs a folder in which the experiment is finished, for the earlier build one that it has finished itself. The many are
copies under other names, marked as up to date by `snakemake --touch`, so that their no-op looks at every file and every
record. CPU seconds and peak memory, medians; `each` is what a further experiment costs between the smallest and the
largest number.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import yaml
from side_by_side import ROOT, THIS, Build, Cost, add_baseline, alternate, baseline, cost

EMPTY = 'rule all:\n    shell: "true"\n'


def linked_copy(source: Path, target: Path) -> None:
    """A copy of a folder whose files are hard links; symbolic links stay."""
    shutil.copytree(source, target, symlinks=True, copy_function=lambda a, b: os.link(a, b, follow_symlinks=False))


def many(build: Build, project: Path, experiment: str, count: int, folder: Path) -> None:
    """`count` finished experiments that differ in name alone."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "profiles", "config"):
        source = (project if name == "config" else build.root) / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    linked_copy(project / "cache", folder / "cache")
    path = folder / f"config/experiments/{experiment}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [f"MANY{number:04d}" for number in range(count)]
    for name in names:
        document["experiment"] = {"name": name}
        path.with_name(f"{name}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        linked_copy(project / "runs" / experiment, folder / "runs" / name)
        linked_copy(project / "results" / experiment, folder / "results" / name)
        shutil.copy(project / f"runs/{experiment}_stage_state.json", folder / f"runs/{name}_stage_state.json")
    default = folder / "config/default.yaml"
    text, listed = default.read_text(encoding="utf-8"), f"experiments: [{', '.join(names)}]"
    changed = re.sub(r"(?m)^(  )experiments: \[.*\]$", rf"\1{listed}", text)
    if changed == text:
        sys.exit(f"{default}: no line `experiments: [...]`")
    default.write_text(changed, encoding="utf-8")
    snakemake(build, folder, "--touch", "--cores", "1")


def snakemake(build: Build, folder: Path, *arguments: str, needle: str | None = None) -> Cost:
    return cost([str(build.python), "-m", "snakemake", *arguments], folder, needle)


def smoke() -> None:
    """Dry runs of an empty Snakefile, and of experiments that nobody has built."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("Snakefile", "workflow", "profiles", "config"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        one = snakemake(THIS, folder, "-n", "--", "results/EXP1/metrics.json", needle="compute_metrics")
    print(f"dry run of what nobody has built: {one.cpu_s:.2f} CPU s, {one.peak_mib:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_baseline(parser)
    parser.add_argument("--project", type=Path, default=Path("."))
    parser.add_argument("--baseline-project", type=Path, help="a folder in which the earlier build has finished it")
    parser.add_argument("--experiment", default="EXP1")
    parser.add_argument("--many", type=int, nargs="+", default=[30, 300])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="one dry run of this build, which needs nothing finished")
    given = parser.parse_args()
    if given.smoke:
        smoke()
        return
    builds = {"ours": (THIS, given.project)}
    with tempfile.TemporaryDirectory() as temporary:
        if given.baseline_project:
            folder = given.baseline or Path(temporary) / "baseline"
            builds["theirs"] = (baseline(folder, given.commit), given.baseline_project)
        empty = Path(temporary) / "empty"
        empty.mkdir()
        (empty / "Snakefile").write_text(EMPTY, encoding="utf-8")
        measured: dict[str, Callable[[], Cost]] = {"empty": lambda: snakemake(THIS, empty, "-n")}
        for label, (build, project) in builds.items():
            for count in given.many:
                crowd = Path(temporary) / f"{label}{count}"
                many(build, project, given.experiment, count, crowd)
                for name, words in (("dry run", ("-n",)), ("no-op", ("--cores", "1"))):
                    measured[f"{name} of {count}|{label}"] = lambda b=build, f=crowd, w=words: snakemake(
                        b, f, *w, needle="Nothing to be done"
                    )
        found = alternate(measured, given.runs)
    for name, one in found.items():
        print(f"{name:<28} {one.cpu_s:8.2f} CPU s {one.peak_mib:8.0f} MiB")
    least, most = min(given.many), max(given.many)
    for name in ("dry run", "no-op"):
        each = {label: (found[f"{name} of {most}|{label}"].cpu_s - found[f"{name} of {least}|{label}"].cpu_s)
                / max(1, most - least) for label in builds}  # fmt: skip
        print(f"{name}: " + ", ".join(f"{label} {1000 * one:.1f} ms each" for label, one in each.items()))
        if len(builds) > 1:
            ours, theirs = (found[f"{name} of {most}|{label}"] for label in builds)
            print(f"{name} of {most}: {ours.cpu_s / theirs.cpu_s:.2f} of the time, "
                  f"{ours.peak_mib / theirs.peak_mib:.2f} of the memory; each further one "
                  f"{each['ours'] / each['theirs']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
