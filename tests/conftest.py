"""Shared by all tests: a small experiment, built once through the real DAG."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from panollava.evaluation.metrics.java import cache_folder
from panollava.processes import set_cpu_defaults

set_cpu_defaults()

# The tests marked `spice` compute real SPICEs with the parts that lie here; all others have a cache without them, so
# that they take the same time everywhere.
SPICE_CACHE = os.environ.setdefault("PANOLLAVA_SPICE_TESTS", str(cache_folder()))

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
            "vision": {"epochs": 1, "batch_size": 2, "vision_trainable_blocks": 1},
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


def with_changes(base: dict[str, Any], changes: dict[str, object]) -> dict[str, Any]:
    """A configuration with new values for dotted keys."""
    document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(base))
    for key, value in changes.items():
        *head, last = key.split(".")
        node = document
        for part in head:
            node = node.setdefault(part, {})
        node[last] = value
    return document


# SMALL's last stage alone, on CSVs of the project's own. One metric is the project's own, too.
LOCAL = with_changes(
    SMALL,
    {
        "experiment.name": "LOCAL",
        "data": {"csv_train": "data/train.csv", "csv_val": "data/val.csv", "csv_test": None},
        "training.stages": ["finetune"],
        "evaluation": {"blind_control": False, "metrics": ["bleu4"], "custom_metrics": ["own_metric:length"]},
    },
)


@dataclass(frozen=True)
class Project:
    """A project folder of its own: this checkout's DAG and defaults, and one experiment."""

    root: Path
    base: dict[str, Any] = field(default_factory=lambda: SMALL)

    @property
    def name(self) -> str:
        name: str = self.base["experiment"]["name"]
        return name

    @property
    def yaml(self) -> Path:
        return self.root / f"config/experiments/{self.name}.yaml"

    def configure(self, changes: dict[str, object]) -> None:
        """Write the experiment with new values for dotted keys."""
        self.yaml.write_text(yaml.safe_dump(with_changes(self.base, changes), sort_keys=False), encoding="utf-8")

    def call(
        self, *command: str, timeout: float = 900, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `python -m command…` in the project; folders of a PYTHONPATH in `env` precede the present ones."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "", **(env or {})}
        if env and "PYTHONPATH" in env:
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [env["PYTHONPATH"], os.environ.get("PYTHONPATH")]))
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
        return Project(root, self.base)


def new_project(root: Path) -> Project:
    for name in ("Snakefile", "workflow", "profiles"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    (root / "config/experiments").mkdir(parents=True)
    shutil.copy(ROOT / "config/default.yaml", root / "config/default.yaml")
    project = Project(root)
    project.configure({})
    return project


def built_once(tmp_path_factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """A folder that `build` fills, shared by the workers of one session: the first one builds, the others wait."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    root = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / f"{name}.done").exists():
            root.mkdir()
            build(root)
            (base / f"{name}.done").touch()
    return root


@pytest.fixture(scope="session", autouse=True)
def cache_without_spice(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    os.environ["PANOLLAVA_CACHE"] = str((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache")


@pytest.fixture
def spice_cache(monkeypatch: pytest.MonkeyPatch) -> str:
    """The cache folder that holds SPICE's parts, in use; skips where they are not installed."""
    from panollava.evaluation.metrics.spice_parts import missing_parts

    monkeypatch.setenv("PANOLLAVA_CACHE", SPICE_CACHE)
    if missing := missing_parts():
        pytest.skip(f"SPICE lacks {', '.join(missing)} (panollava setup-metrics)")
    return SPICE_CACHE


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a test does to panollava's logger (`start_log`) ends with it."""
    logger = logging.getLogger("panollava")
    before = logger.propagate, logger.level, list(logger.handlers)
    yield
    logger.propagate, logger.level, logger.handlers = before


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """SMALL, run once from nothing to its metrics through the front door. Do not change it: copy it."""
    return Project(built_once(tmp_path_factory, "small", lambda root: new_project(root).panollava("run", "SMALL")))


def _build_local(root: Path, cache: Path) -> None:
    """Draw nothing, pre-train nothing: pictures and backbones come from another project's `cache`."""
    new_project(root).yaml.unlink()
    for part in ("miniature", "fingerprints/outputs"):  # with what their jobs noted of them
        shutil.copytree(cache / part, root / "cache" / part)
    (drawn,) = (cache / "synthetic").iterdir()
    (root / "data").mkdir()
    for split, pictures in (("train", 4), ("val", 2)):
        rows = []
        for number in range(pictures):
            name = f"{split}_{number:05d}.png"
            shutil.copy(drawn / "images" / name, root / "data" / name)
            rows += [f"{name},what is {side},a thing {number}" for side in ("left", "right")]
        (root / f"data/{split}.csv").write_text("\n".join(["image_path,query,annotation", *rows, ""]), encoding="utf-8")
    (root / "own_metric.py").write_text("def length(answers, references, rows):\n    return float(len(answers))\n")
    project = Project(root, LOCAL)
    project.configure({})
    project.panollava("run", "LOCAL")


@pytest.fixture(scope="session")
def finished_local(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """LOCAL, run once: the finetune stage alone, on CSVs and pictures in `data/`. Do not change it: copy it."""
    root = built_once(tmp_path_factory, "local", lambda root: _build_local(root, finished.root / "cache"))
    return Project(root, LOCAL)


@pytest.fixture
def local(finished_local: Project, tmp_path: Path) -> Project:
    """A copy of the finished LOCAL, to be changed."""
    return finished_local.copy_to(tmp_path / "local")


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished small experiment, to be changed."""
    return finished.copy_to(tmp_path / "project")
