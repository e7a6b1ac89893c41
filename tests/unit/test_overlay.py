"""Overlays: settings of one command, seen alike by the DAG, by its cluster jobs, and by nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from panollava.cli import train
from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.config.overlay import VARIABLE, overlay_of_environment, write_overlay
from panollava.dag.nodes import NODES
from panollava.dag.tasks import Tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config/experiments").mkdir(parents=True)
    (tmp_path / "config/default.yaml").write_text((ROOT / "config/default.yaml").read_text())
    (tmp_path / "a.csv").write_text("url,query,annotation\nhttp://x/a.jpg,q,a\n")
    data = {"csv_train": "a.csv", "csv_val": "a.csv", "csv_test": "a.csv"}
    for name in ("ONE", "auto"):
        document = {"experiment": {"name": name}, "data": data}
        (tmp_path / f"config/experiments/{name}.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digests(config: WorkflowConfig) -> list[str]:
    return [config.digest(node) for node in NODES]


def test_the_dag_and_its_cluster_jobs_see_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = WorkflowConfig.load("ONE")
    changed = cfg.with_values({"training.stage_configs.finetune.lr": 1e-4})
    path = write_overlay(cfg, changed, ["finetune"], {"training.stage_configs.finetune.lr": 1e-4}, "panollava train …")
    assert overlay_of_environment() is None
    monkeypatch.setenv(VARIABLE, str(path))
    project = Project(".", overlay=overlay_of_environment())
    assert digests(project.experiment("ONE")) == digests(changed) != digests(cfg)
    job = Project(".", project.snapshot())
    assert digests(job.experiment("ONE")) == digests(changed)
    assert Tasks(job).slice_by_key("csv", changed.csv_key("train")) == changed.slice_of("prepare_train")
    monkeypatch.setenv(VARIABLE, "gone.json")
    with pytest.raises(ConfigError, match=rf"gone\.json, named by {VARIABLE}"):
        overlay_of_environment()


def test_a_composed_name_follows_the_model(root: Path) -> None:
    """`name: auto` names what is trained; the experiment as it is written keeps its own name and files."""
    cfg = WorkflowConfig.load("config/experiments/auto.yaml")
    values = {"models.language_model_name": "Qwen/Qwen3-0.6B"}
    changed = cfg.with_values(values)
    assert (cfg.names.experiment, changed.names.experiment) == (
        "siglip_Qwen2.5_mlp_anyres-e2p_PE", "siglip_Qwen3_mlp_anyres-e2p_PE",
    )  # fmt: skip
    path = write_overlay(cfg, changed, ["finetune"], values, "")
    assert path.parts[:2] == ("runs", changed.names.experiment)
    from panollava.files import read_json

    project = Project(".", overlay=read_json(path))
    assert digests(project.experiment(changed.names.experiment)) == digests(changed)
    assert digests(project.experiment(cfg.names.experiment)) == digests(cfg)
    assert {cfg.names.experiment, changed.names.experiment} < set(project.experiments())


def test_another_experiments_name_is_refused(root: Path, monkeypatch, capsys) -> None:
    text = "experiment: {name: auto}\nmodels: {language_model_name: Qwen/Qwen3-0.6B}\n"
    (root / "config/experiments/other.yaml").write_text(text)
    (root / "Snakefile").touch()
    monkeypatch.setattr(train, "run_snakemake", lambda *_: pytest.fail("nothing may run"))
    with pytest.raises(ConfigError, match=r"siglip_Qwen3_mlp_anyres-e2p_PE.*experiment\.name"):
        train.train(config="config/experiments/auto.yaml", model="qwen3_0.6b")
