"""An earlier build beside this one: what the benchmarks that compare with it share; no benchmark itself.

`baseline` gives a checkout of commit 6c13555 with an environment of its own, made anew or found where it was made
before; `alternate` measures commands in turn, so that what else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BASELINE = "6c13555"


@dataclass(frozen=True)
class Build:
    """A checkout and the Python that it is installed in."""

    root: Path
    python: Path


@dataclass(frozen=True)
class Cost:
    """Of a command and its children: CPU seconds (user and system), wall seconds, peak resident MiB of one process."""

    cpu_s: float
    wall_s: float
    peak_mib: float


THIS = Build(ROOT, Path(sys.executable))


def add_baseline(parser: argparse.ArgumentParser) -> None:
    """The options of benchmarks that compare with the earlier build."""
    parser.add_argument("--baseline", type=Path, help=f"a folder of {BASELINE}, made where it is missing")
    parser.add_argument("--commit", default=BASELINE, help="another commit to compare with")


def baseline(folder: Path, commit: str = BASELINE) -> Build:
    """The commit in `folder/main`, installed in `folder/main/.venv` with this checkout's constraints."""
    root = folder.resolve() / "main"
    python = root / ".venv/bin/python"
    if not root.is_dir():
        root.parent.mkdir(parents=True, exist_ok=True)
        _call(["git", "clone", "--quiet", str(ROOT), str(root)])
        _call(["git", "-C", str(root), "checkout", "--quiet", commit])
    if not python.is_file():
        _call([sys.executable, "-m", "venv", str(root / ".venv")])
        _call([str(python), "-m", "pip", "install", "-q", "-c", str(root / "constraints.txt"), "-e", str(root)])
    theirs = Build(root, python)
    compiled(theirs)
    compiled(THIS)
    return theirs


def compiled(build: Build) -> None:
    """See to it that a build's packages have their bytecode: some installers leave it to the first import, and where
    PYTHONDONTWRITEBYTECODE is set each process would compile them anew (`bytecode.py`)."""
    where = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.run([str(build.python), "-c", where], capture_output=True, text=True, check=True)
    # What does not compile is a template or a test of some package: no fault of ours.
    subprocess.run(
        [str(build.python), "-m", "compileall", "-qq", packages.stdout.strip(), str(build.root / "src")], check=False
    )


def _call(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def cost(command: Sequence[str], folder: Path, needle: str | None = None, env: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end. Its output must hold `needle`; a command that fails ends the benchmark."""
    read, write = os.pipe()
    started = time.perf_counter()
    with open(read, "rb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=write, stderr=write, env={**os.environ, **(env or {})})
        os.close(write)
        text = output.read().decode(errors="replace")
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - started
    if process.returncode or (needle is not None and needle not in text):
        sys.exit(f"{' '.join(command)} in {folder}:\n{text[-3000:]}")
    return Cost(used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024)


def alternate(measured: Mapping[str, Callable[[], Cost]], runs: int, warm: bool = True) -> dict[str, Cost]:
    """Medians of `runs` rounds, each of which calls everything once; a first round warms caches and does not count."""
    found: dict[str, list[Cost]] = {name: [] for name in measured}
    for number in range(runs + warm):
        for name, measure in measured.items():
            one = measure()
            if number >= warm:
                found[name].append(one)
    return {
        name: Cost(*(statistics.median(getattr(one, field) for one in costs) for field in Cost.__dataclass_fields__))
        for name, costs in found.items()
    }


def own_memory_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
