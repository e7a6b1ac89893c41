"""Shared by all tests: a small experiment, built once through the real DAG."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from panollava.processes import set_cpu_defaults

set_cpu_defaults()

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

# EXP1's shape at a fraction of its size: real jobs, real formats, nothing learnt.
SMALL = {
    "experiment": {"name": "SMALL"},
    "data": {
        "csv_train": "synthetic",
        "csv_val": "synthetic",
        "csv_test": "synthetic",
        "synthetic": {
            "train_scenes": 6, "val_scenes": 2, "test_scenes": 3, "image_height": 64, "train_queries": 4,
            "train_annotations": 1,
        },
    },
    "models": {
        "vision_name": "miniature/siglip",
        "language_model_name": "miniature/qwen3",
        "latent_dimension": 32,
        "miniature": {
            "vision": {"hidden_size": 32, "intermediate_size": 32, "layers": 2, "heads": 2, "image_size": 32,
                       "patch_size": 16, "views": 64, "steps": 4, "batch_size": 8},
            "language": {"hidden_size": 32, "intermediate_size": 32, "layers": 1, "heads": 2, "max_steps": 4,
                         "decay_steps": 2, "batch_size": 8},
        },
    },
    "image_processing": {"image_size": 32},
    "training": {
        "checkpoint_every_n_steps": 2,
        "stage_configs": {
            "vision": {"epochs": 1, "batch_size": 8, "vision_trainable_blocks": 1},
            "resampler": {"epochs": 2, "batch_size": 8, "lr": 1e-3},
            "finetune": {"epochs": 1, "batch_size": 8, "lr": 1e-3},
        },
    },
    "lora": {"rank": 2, "alpha": 4},
    "generation": {"max_new_tokens": 8},
    "evaluation": {
        "custom_metrics": [
            "panollava.evaluation.metrics.synthetic:exact_match",
            "panollava.evaluation.metrics.synthetic:place_thing_f1",
        ]
    },
}  # fmt: skip


@dataclass(frozen=True)
class Project:
    """A project folder of its own: this checkout's DAG and defaults, and one experiment."""

    root: Path
    name: str = "SMALL"

    @property
    def yaml(self) -> Path:
        return self.root / f"config/experiments/{self.name}.yaml"

    def configure(self, changes: dict[str, object]) -> None:
        """Write SMALL with new values for dotted keys."""
        document = yaml.safe_load(yaml.safe_dump(SMALL))
        for key, value in changes.items():
            node = document
            *head, last = key.split(".")
            for part in head:
                node = node.setdefault(part, {})
            node[last] = value
        self.yaml.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")

    def call(self, *command: str, timeout: float = 900, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": ""}
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, env=environment, text=True, capture_output=True,
            timeout=timeout,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(
                f"{command} ends with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
            )
        return done

    def panollava(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.call("panollava", *arguments, **options)  # type: ignore[arg-type]

    def plan(self) -> list[str]:
        """The rules that a dry run would run, in no order, each as often as it has jobs."""
        done = self.call(
            "snakemake", "-n", "--", f"results/{self.name}/metrics.json", f"runs/{self.name}_stage_state.json"
        )
        lines = (done.stdout + done.stderr).splitlines()
        return sorted(
            line.split()[1].rstrip(":")
            for line in lines
            if line.startswith(("rule ", "localrule ")) and line.endswith(":")
        )

    def copy_to(self, root: Path) -> Project:
        shutil.copytree(self.root, root, symlinks=True)
        return Project(root, self.name)


def new_project(root: Path) -> Project:
    for name in ("Snakefile", "workflow", "profiles"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    (root / "config/experiments").mkdir(parents=True)
    shutil.copy(ROOT / "config/default.yaml", root / "config/default.yaml")
    project = Project(root)
    project.configure({})
    return project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """SMALL, run once from nothing to its metrics through the front door. Do not change it: copy it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # the workers of one session share it: the first one builds, the others wait
    root = base / "small"
    with (base / "small.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "small.done").exists():
            root.mkdir()
            new_project(root).panollava("run", "SMALL")
            (base / "small.done").touch()
    return Project(root)


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished small experiment, to be changed."""
    return finished.copy_to(tmp_path / "project")
