"""Results that were copied without Snakemake's memory: they tell themselves by which configuration they were made."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import Project
from plans import plan

from panollava.config import WorkflowConfig
from panollava.provenance import read_digest

pytestmark = pytest.mark.workflow

GOLDEN = yaml.safe_load(Path(__file__).with_name("golden_plans.yaml").read_text(encoding="utf-8"))["keys"]
CHANGED = [
    "data.csv_test", "training.stage_configs.vision.lr", "training.stage_configs.finetune.lr",
    "generation.max_new_tokens", "evaluation.blind_control",
]  # fmt: skip


def forget(project: Project) -> None:
    shutil.rmtree(project.root / ".snakemake")


def copied_without_times(project: Project, root: Path) -> Project:
    """As `cp -r` copies: results first, and nothing keeps its age."""
    root.mkdir()
    times = iter(range(1, 10**6))
    for name in ("config", "data", "own_metric.py", "profiles", "Snakefile", "workflow", "results", "runs", "cache"):
        source = project.root / name
        if source.is_dir():
            shutil.copytree(source, root / name, symlinks=True)
        elif source.is_file():
            shutil.copy(source, root / name)
        for path in sorted((root / name).rglob("*")):
            moment = 10**18 + next(times) * 10**9
            os.utime(path, ns=(moment, moment), follow_symlinks=False)
    return Project(root, project.base)


def is_one_piece(project: Project) -> bool:
    """Whether every result on the way to the metrics was made by the present configuration."""
    config = WorkflowConfig.load(project.yaml, project.root, warn=False)
    names = config.names
    made = {names.metrics: "metrics", names.predictions: "predict", names.checkpoint_json: "select_checkpoint"}
    made |= {f"{names.stage_dir(s)}/checkpoint_metadata.json": f"train_{s}" for s in config.settings.training.stages}
    return all(read_digest(project.root / path) == config.digest(node) for path, node in made.items())


def test_unchanged_it_is_current_and_changed_it_is_as_stale_as_ever(project: Project) -> None:
    (project.root / "own.csv").write_text("url,query,annotation\nhttp://nowhere/a.jpg,q,a\n", encoding="utf-8")
    forget(project)
    assert plan(project) == {}
    for key in CHANGED:
        project.configure({key: GOLDEN[key]["value"]})
        assert plan(project) == dict(sorted(GOLDEN[key]["jobs"].items())), key
    project.configure({})
    assert plan(project) == {}


@pytest.mark.parametrize("changes", [{}, {"lora.rank": 1}], ids=["unchanged", "changed"])
def test_copied_without_times_it_ends_in_one_piece(
    finished_local: Project, tmp_path: Path, changes: dict[str, object]
) -> None:
    copy = copied_without_times(finished_local, tmp_path / "copy")
    before = (copy.root / "results/LOCAL/predictions.csv").read_bytes()
    copy.configure(changes)
    copy.panollava("run", "LOCAL")
    assert plan(copy) == {} and is_one_piece(copy)
    if not changes:
        assert (copy.root / "results/LOCAL/predictions.csv").read_bytes() == before


def test_results_of_another_configuration_copied_over_ones_own(local: Project, finished_local: Project) -> None:
    """Snakemake remembers its own files of these names, and would take the others for them."""
    metrics = local.root / "results/LOCAL/metrics.json"
    document = json.loads(metrics.read_text())
    document["provenance"]["config"] = "0" * 16
    metrics.write_text(json.dumps(document))
    assert plan(local) == {"compute_metrics": 1}
    shutil.copy2(finished_local.root / "results/LOCAL/metrics.json", metrics)
    assert plan(local) == {}
    predictions = local.root / "results/LOCAL/predictions.csv"
    predictions.write_text(predictions.read_text().replace("a thing", "some thing"))
    assert plan(local) == {"predict": 1, "compute_metrics": 1}


def test_files_that_do_not_tell_are_made_again(local: Project) -> None:
    """Copied by `cp results/LOCAL/*` into another project, without the hidden notes, or by hand, or damaged."""
    forget(local)
    for note in local.root.glob("results/LOCAL/**/.*.json"):
        note.unlink()
    shutil.rmtree(local.root / "cache/fingerprints/outputs")  # what each job noted of its files
    assert plan(local) == {"prepare_experiment": 1, "predict": 1, "compute_metrics": 1}
    (local.root / "results/LOCAL/checkpoint.json").write_text("{")
    (local.root / "runs/LOCAL_stage_state.json").write_text("[]")
    assert plan(local) == {
        "compute_metrics": 1, "predict": 1, "prepare_experiment": 1, "select_checkpoint": 1, "write_stage_state": 1,
    }  # fmt: skip


def test_the_stage_state_without_the_stages_records_says_that_they_are_completed(local: Project) -> None:
    before = json.loads((local.root / "runs/LOCAL_stage_state.json").read_text())["stages"]["finetune"]
    shutil.rmtree(local.root / "runs/LOCAL/.state")
    (local.root / "runs/LOCAL_stage_state.json").unlink()
    local.panollava("run", "LOCAL")
    after = json.loads((local.root / "runs/LOCAL_stage_state.json").read_text())["stages"]["finetune"]
    for key in ("stage", "status", "best_checkpoint", "last_checkpoint", "best_val_loss", "epochs", "config_digest"):
        assert after[key] == before[key], key
    assert plan(local) == {}
