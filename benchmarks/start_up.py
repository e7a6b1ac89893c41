"""What commands and jobs cost before they work, beside an earlier build in the same run.

    python benchmarks/start_up.py --baseline /tmp/baseline --runs 5

CPU seconds and peak memory of commands as a user types them, and of the imports of each job: of its script, and of
what its function imports. Both builds take turns; a row holds medians and the ratio, ours over theirs. What torch and
transformers' models cost alone stands below: less than that, no job that uses them can cost.
"""

from __future__ import annotations

import argparse
import ast
import tempfile
from collections.abc import Iterator
from pathlib import Path

from side_by_side import THIS, Build, Cost, add_baseline, alternate, baseline, cost

COMMANDS = {"--help": "Usage", "names EXP1 --json": "checkpoint", "status EXP1": "finetune"}
JOBS = (
    "draw_synthetic", "pretrain_vision", "pretrain_language", "prepare_csv", "cache_views", "train_stage",
    "select_checkpoint", "write_stage_state", "predict", "measure_overlap", "compute_metrics", "compare",
)  # fmt: skip
LIMITS = {"torch": "import torch", "transformers' models": "import transformers.modeling_utils"}


def imports_of(build: Build, job: str) -> str:
    """The imports of a job's function, of the functions beside it that it calls, and of the script that calls it."""
    package = build.root / "src/panollava"
    file = next(path for path in (package / "dag/jobs.py", package / "job_functions.py") if path.is_file())
    functions = {one.name: one for one in ast.parse(file.read_text(encoding="utf-8")).body
                 if isinstance(one, ast.FunctionDef)}  # fmt: skip
    script = "import panollava.dag.script" if file.parent.name == "dag" else "import panollava.jobs"
    return "\n".join([script, *dict.fromkeys(_imports(functions, job, set()))])


def _imports(functions: dict[str, ast.FunctionDef], name: str, seen: set[str]) -> Iterator[str]:
    seen.add(name)
    own = {argument.arg for argument in functions[name].args.args}  # may be called as another job is
    for one in _always(functions[name]):
        if isinstance(one, (ast.Import, ast.ImportFrom)):
            yield ast.unparse(one)
        elif isinstance(one, ast.Name) and one.id in functions and one.id not in seen | own:
            yield from _imports(functions, one.id, seen)


def _always(node: ast.AST) -> Iterator[ast.AST]:
    """What runs in every case: not the branches of an `if`."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.If):
            yield child
            yield from _always(child)


def measure(measured: dict[str, tuple[Build, list[str], str | None]], runs: int) -> dict[str, Cost]:
    return alternate(
        {name: (lambda b=build, w=words, n=needle: cost([str(b.python), *w], b.root, n))
         for name, (build, words, needle) in measured.items()},
        runs,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_baseline(parser)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--only", nargs="*", help="commands (`--help` as `help`) and jobs, by the beginning of the name"
    )
    parser.add_argument("--smoke", action="store_true", help="two commands of this build, once each")
    given = parser.parse_args()
    if given.smoke:
        found = measure({c: (THIS, ["-m", "panollava", *c.split()], COMMANDS[c]) for c in list(COMMANDS)[:2]}, 1)
        for name, one in found.items():
            print(f"{name:<22} {one.cpu_s:6.2f} CPU s {one.peak_mib:6.0f} MiB")
        return
    with tempfile.TemporaryDirectory() as temporary:
        theirs = baseline(given.baseline or Path(temporary), given.commit)
        rows: dict[str, tuple[Build, list[str], str | None]] = {}
        for label, build in (("ours", THIS), ("theirs", theirs)):
            for command, needle in COMMANDS.items():
                rows[f"panollava {command}|{label}"] = (build, ["-m", "panollava", *command.split()], needle)
            for job in JOBS:
                rows[f"job {job}|{label}"] = (build, ["-c", imports_of(build, job)], None)
        rows |= {f"limit {name}|ours": (THIS, ["-c", text], None) for name, text in LIMITS.items()}
        if given.only:
            rows = {name: row for name, row in rows.items()
                    if name.split(maxsplit=1)[1].lstrip("-").startswith(tuple(given.only))}  # fmt: skip
        found = measure(rows, given.runs)
    print(f"{'':<30} {'ours':>14} {given.commit:>14}   ratio: time memory")
    for name in dict.fromkeys(name.partition("|")[0] for name in found):
        ours, other = found[f"{name}|ours"], found.get(f"{name}|theirs")
        row = f"{name:<30} {ours.cpu_s:5.2f} s {ours.peak_mib:4.0f} MiB"
        if other is not None:
            row += f" {other.cpu_s:5.2f} s {other.peak_mib:4.0f} MiB"
            row += f"   {ours.cpu_s / other.cpu_s:11.2f} {ours.peak_mib / other.peak_mib:6.2f}"
        print(row)


if __name__ == "__main__":
    main()
