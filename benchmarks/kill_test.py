"""Random interruptions of a whole experiment, and whether the numbers are those of an undisturbed run.

    python benchmarks/kill_test.py --project . --experiment EXP1 --kills 20 --seed 1

Copies a finished project twice, changes one setting so that all stages are stale, lets one copy run undisturbed, and
interrupts the other again and again (Ctrl-C, SIGTERM, kill -9 of the job, of snakemake, of the front door, of all);
after each the same command is typed again. It prints a row per interruption, then whether checkpoints, predictions
and metrics are equal, byte for byte, and the DAG is at rest. Exit code 1 where they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

WAYS = ("ctrl-c", "sigterm", "kill job", "kill snakemake", "kill front door", "kill all")


class Running:
    """`panollava run EXPERIMENT` in a session of its own, as in a terminal of its own."""

    def __init__(self, root: Path, experiment: str) -> None:
        self.log = (root / "interruptions.log").open("a", encoding="utf-8")
        self.leader = subprocess.Popen(
            [sys.executable, "-m", "panollava", "run", experiment],
            cwd=root,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    @property
    def ended(self) -> bool:
        return self.leader.poll() is not None

    def processes(self, word: str) -> list[int]:
        """PIDs of this session whose command line holds `word`."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):
                continue
            if session == self.leader.pid and word in command:
                found.append(int(folder.name))
        return found

    def jobs(self) -> list[str]:
        """Names of the jobs that run now."""
        names = []
        for pid in self.processes("workflow/scripts/"):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            names += [Path(word.decode()).stem for word in words if b"workflow/scripts/" in word]
        return names

    def interrupt(self, way: str) -> None:
        """Interrupt in one of WAYS, then wait until the front door has ended."""
        if way == "ctrl-c":
            os.killpg(self.leader.pid, signal.SIGINT)
        elif way == "sigterm":
            self.leader.terminate()
        elif way == "kill all":
            os.killpg(self.leader.pid, signal.SIGKILL)
        elif way == "kill front door":
            self.leader.kill()
        else:
            word = "-m snakemake" if way == "kill snakemake" else "workflow/scripts/"
            for pid in self.processes(word)[:1]:
                os.kill(pid, signal.SIGKILL)
        self.leader.wait(timeout=120)
        self.log.close()


def change_yaml(root: Path, experiment: str, key: str, value: object) -> None:
    """Set a dotted key in the experiment's YAML."""
    path = root / f"config/experiments/{experiment}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    node = document
    *head, last = key.split(".")
    for part in head:
        node = node.setdefault(part, {})
    node[last] = value
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def outcome(root: Path, experiment: str) -> dict[str, str]:
    """What must be equal: digests of checkpoints, adapters and predictions, and the metrics' values."""
    files = [p for p in sorted((root / "runs" / experiment).glob("*/*/*")) if p.name in ("best.ckpt", "last.ckpt")]
    files += sorted((root / "runs" / experiment).glob("*/*/lora_weights/*.safetensors"))
    files += sorted((root / "results" / experiment).glob("predictions*.csv"))
    found = {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
    document = json.loads((root / f"results/{experiment}/metrics.json").read_text(encoding="utf-8"))
    for name, metric in document["metrics"].items():
        found[f"metrics.json: {name}"] = str(metric["value"])
    return found


def copy_of(project: Path, target: Path) -> Path:
    shutil.copytree(project, target, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", "logs"))
    return target


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path("."), help="A folder in which the experiment is finished.")
    parser.add_argument("--experiment", default="EXP1")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--change", default="training.stage_configs.vision.lr=0.000456", help="KEY=VALUE")
    given = parser.parse_args()
    random.seed(given.seed)
    key, _, text = given.change.partition("=")
    with tempfile.TemporaryDirectory() as folder:
        calm, wild = (copy_of(given.project, Path(folder) / name) for name in ("calm", "wild"))
        for root in (calm, wild):
            change_yaml(root, given.experiment, key, yaml.safe_load(text))
        started = time.monotonic()
        if Running(calm, given.experiment).leader.wait():
            print((calm / "interruptions.log").read_text(encoding="utf-8")[-2000:])
            return 1
        span = time.monotonic() - started
        print(f"undisturbed: {span:.0f} s; then {given.kills} interruptions, each followed by the same command")
        landed = 0
        while landed < given.kills:
            running = Running(wild, given.experiment)
            wait = random.uniform(3, 8 + 1.5 * span / given.kills)
            deadline = time.monotonic() + wait
            while time.monotonic() < deadline and not running.ended:
                time.sleep(0.05)
            if running.ended:
                print(f"the run ended by itself with {running.leader.returncode} after {landed} interruptions")
                break
            landed += 1
            jobs, way = running.jobs(), random.choice(WAYS)
            running.interrupt(way)
            print(f"{landed:>3}  after {wait:5.1f} s  {way:<16} during {', '.join(jobs) or 'no job'}", flush=True)
        last = Running(wild, given.experiment).leader.wait()
        ours, theirs = outcome(calm, given.experiment), outcome(wild, given.experiment)
        differing = [name for name in ours if ours[name] != theirs.get(name)]
        state = json.loads((wild / f"runs/{given.experiment}_stage_state.json").read_text(encoding="utf-8"))
        for stage, row in state["stages"].items():
            print(f"{stage}: {row['status']}, last start went on at step {row['resumed_from_step']}")
        plan = subprocess.run(
            [sys.executable, "-m", "snakemake", "-n", "--", f"results/{given.experiment}/metrics.json"],
            cwd=wild,
            capture_output=True,
            text=True,
        )
        rests = "Nothing to be done" in plan.stdout + plan.stderr
        print(
            f"{len(ours) - len(differing)} of {len(ours)} files and metrics equal; at rest: {rests}; exit code {last}"
        )
        for name in differing:
            print(f"differs: {name}")
        return int(bool(differing) or not rests or last != 0)


if __name__ == "__main__":
    sys.exit(main())
