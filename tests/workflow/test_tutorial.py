"""The tutorial and the examples of the Python API run as they stand, on the small experiment under EXP1's name."""

from __future__ import annotations

import doctest
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from conftest import ROOT, SMALL, Project, with_changes

from panollava import ThreeStageTrainer, WorkflowConfig, api
from panollava.models import vlm

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def trained(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose EXP1 is the small experiment, trained in this process from SMALL's caches."""
    project = finished.copy_to(tmp_path_factory.mktemp("tutorial") / "project")
    for name in ("runs", "results", "logs", ".snakemake"):
        shutil.rmtree(project.root / name)
    document = with_changes(SMALL, {"experiment.name": "EXP1"})
    project.yaml.unlink()
    (project.root / "config/experiments/EXP1.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    shutil.copy(next(project.root.glob("cache/synthetic/*/images/test_*.png")), project.root / "panorama.jpg")
    ThreeStageTrainer(WorkflowConfig.load("EXP1", project.root, warn=False)).run()
    return project.root


@pytest.mark.parametrize("module", [api, vlm])
def test_examples_that_need_a_trained_experiment(
    trained: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    monkeypatch.chdir(trained)
    tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert tried.attempted and not tried.failed


def test_the_tutorial(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(trained)
    text = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 10
    place, names = 0, {"__name__": "tutorial"}
    for block in blocks:
        place = text.index(block, place)
        line = text.count("\n", 0, place)
        exec(compile("\n" * line + block, "docs/tutorial.md", "exec"), names)
    said = capsys.readouterr().out
    for expected in ("train_resampler  kept", "train_finetune   stale", "overlap_ratio", "0.0001", "EXP1_gentle"):
        assert expected in said, expected
