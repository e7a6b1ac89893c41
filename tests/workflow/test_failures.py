"""Each rule fails in each way, after a change; the same command goes on with exactly what is stale, to the end.

The faults come from outside (faults/sitecustomize.py). Results, runs and caches lie on a small disk of their own where
this machine allows that, so that a full disk is a real one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from conftest import Project
from plans import plan
from trouble import FAULTS, mounted, unmount

from panollava.config import WorkflowConfig
from panollava.provenance import read_digest

pytestmark = pytest.mark.workflow

LIGHT = ["exit", "late-kill", "late-memory", "full"]
FAULTS_OF = {
    "draw_synthetic": LIGHT,
    "pretrain_vision": ["exit", "late-kill", "memory", "nan", "full"],
    "pretrain_language": ["exit", "kill", "memory", "nan", "full"],
    "prepare_csv": LIGHT,
    "prepare_experiment": LIGHT,
    "cache_views": LIGHT,
    "train_vision": ["exit", "late-kill", "memory", "nan", "nearly-full"],
    "train_resampler": ["exit", "kill", "late-memory", "nan", "nearly-full"],
    "train_finetune": ["exit", "kill", "memory", "nan", "full"],
    "write_stage_state": LIGHT,
    "select_checkpoint": LIGHT,
    "predict": ["exit", "late-kill", "memory", "full"],
    "predict_blind": ["exit", "kill", "late-memory", "full"],
    "compute_metrics": LIGHT,
    "compare": LIGHT,
}
# What the one message of a job says, for the faults that a job lives to tell.
TOLD = {
    "memory": r"out of memory.*(Lower|Run)",
    "late-memory": r"out of memory.*(Lower|Run)",
    "nan": r"loss is nan.*Lower",
    "full": r"^\S+: No space left on device\. Make room there, then run the same command again\.$",
    "nearly-full": r"^\S+: No space left on device\. Make room there, then run the same command again\.$",
}
QUICK_METRICS = {"evaluation.metrics": ["bleu4"], "evaluation.custom_metrics": []}
EVERYTHING_NEW = {
    "data.synthetic.seed": 1,
    "models.miniature.vision.seed": 1,
    "models.miniature.language.seed": 1,
}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A file system of 16 MB; None where this machine does not let us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted("-t", "tmpfs", "-o", "size=16m", "panollava-test", str(disk)):
        yield None
        return
    yield disk
    unmount(disk)


@dataclass
class Run:
    """What one command did."""

    code: int
    console: str
    planned: Counter[str]
    finished: Counter[str]
    failed: dict[str, tuple[list[str], str]]  # rule -> outputs, log


def run(project: Project, files: list[str], faults: dict[str, str], disk: Path | None = None) -> Run:
    """The command of all these tests, with faults."""
    done = project.call(
        "snakemake", "--cores", "1", "--keep-going", "--", *files,
        check=False,
        env={
            "PYTHONPATH": str(FAULTS),
            "FAULTS": " ".join(f"{rule}:{fault}" for rule, fault in faults.items()),
            "FAULT_DISK": str(disk or ""),
        },
    )  # fmt: skip
    text = done.stdout + done.stderr
    table = re.search(r"^Job stats:\n.*\n-.*\n((?:\w+ +\d+\n)+)", text, re.MULTILINE)
    planned = dict(line.split() for line in table[1].splitlines()) if table else {"total": 0}
    assert table or "Nothing to be done" in text, text[-3000:]
    planned.pop("total")
    failed = re.findall(r"^Error in rule (\w+):\n(?: .*\n)*?    output: (.*)\n    log: (\S+)", text, re.MULTILINE)
    return Run(
        done.returncode,
        text,
        Counter({rule: int(number) for rule, number in planned.items()}),
        Counter(re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", text, re.MULTILINE)),
        {rule: (outputs.split(", "), log) for rule, outputs, log in failed},
    )


def partial_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*.partial") if ".snakemake" not in path.parts]


def check_failure(project: Project, done: Run, rule: str, fault: str) -> None:
    """No target of the job is there; where it lived to tell, its log ends with one message and no traceback."""
    outputs, log = done.failed[rule]
    left = [output for output in outputs if os.path.lexists(project.root / output)]
    assert not left, f"{rule} leaves {left} after {fault}"
    if fault not in TOLD:
        return
    text = (project.root / log).read_text()
    errors = re.findall(r"^\S+ ERROR +(.*)$", text, re.MULTILINE)
    assert len(errors) == 1 and re.search(TOLD[fault], errors[0]), f"{rule}, {fault}: {text}"
    assert "Traceback" not in text and errors[0] in done.console


# Two experiments' worth of failures: from the drawing to the resampler, and from there to the comparison. One file is
# asked for, far behind most of what fails: an old one must never satisfy the command.
HALVES = {
    "to the resampler": (
        EVERYTHING_NEW,
        ["runs/SMALL/resampler/anyres-e2p_mlp/best.ckpt", "results/SMALL/prepared/rejected.csv"],
        ["draw_synthetic", "pretrain_vision", "pretrain_language", "prepare_csv", "prepare_experiment", "cache_views",
         "train_vision", "train_resampler"],
    ),
    "to the comparison": (
        {"training.stage_configs.finetune.lr": 0.002, **QUICK_METRICS},
        ["results/comparison.csv"],
        ["train_finetune", "write_stage_state", "select_checkpoint", "predict", "predict_blind", "compute_metrics",
         "compare"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("half", HALVES)
def test_each_rule_fails_in_each_way_and_the_same_command_goes_on(
    project: Project, small_disk: Path | None, half: str
) -> None:
    changes, files, rules = HALVES[half]
    if small_disk is not None:
        for name in ("cache", "results", "runs"):
            shutil.move(project.root / name, small_disk / name)
            (project.root / name).symlink_to(small_disk / name)
    default = project.root / "config/default.yaml"
    document = yaml.safe_load(default.read_text(encoding="utf-8"))
    default.write_text(yaml.safe_dump({**document, "workflow": {"experiments": ["SMALL"]}}), encoding="utf-8")
    assert run(project, [*files, "results/comparison.csv"], {}).code == 0

    project.configure(changes)
    to_come = {rule: [f for f in FAULTS_OF[rule] if small_disk is not None or "full" not in f] for rule in rules}
    stale = Counter({rule: {"prepare_csv": 3, "cache_views": 2}.get(rule, 1) for rule in rules})
    while stale:
        faults = {rule: left[0] for rule, left in to_come.items() if left}
        done = run(project, files, faults, small_disk)
        assert done.planned == stale, f"with {faults}"
        assert "Traceback" not in done.console, done.console[-6000:]
        for rule in done.failed:
            assert rule in faults, f"{rule} fails by itself: {done.console[-6000:]}"
            check_failure(project, done, rule, faults[rule])
            to_come[rule].pop(0)
        stale -= done.finished
        assert (done.code == 0) == (not stale) and bool(done.failed) == bool(stale), done.console[-6000:]
        told = read_digest(project.root / "results/SMALL/metrics.json")
        assert (told == config_of(project).digest("metrics")) == (
            rules[-1] == "compare" and not stale["compute_metrics"]
        )
    assert not any(to_come.values())
    assert not partial_files(project.root)
    assert plan(project, files) == {}
    logs = list(project.root.glob(f"logs/*/{rules[-2]}*.log"))
    assert len(logs) >= 3, "each start keeps the previous one's log"
    if small_disk is None:
        pytest.skip("all faults but the full disk: mounting a file system is not allowed here")


def config_of(project: Project) -> WorkflowConfig:
    return WorkflowConfig.load(project.yaml, project.root, warn=False)
