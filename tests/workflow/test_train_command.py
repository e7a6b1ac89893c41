"""`panollava train`: options as a recorded overlay of one command, --resume, and what the DAG then finds stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Project, with_changes
from plans import plan

from panollava.checkpoints.weights import load_weights
from panollava.cli.main import main
from panollava.config import ConfigError, WorkflowConfig
from panollava.config.overlay import stage_overrides
from panollava.dag.resume import _check_same
from panollava.errors import CheckpointError

pytestmark = pytest.mark.workflow

AFTER_FINETUNE = {
    "train_finetune": 1, "write_stage_state": 1, "select_checkpoint": 1, "predict": 1, "predict_blind": 1,
    "compute_metrics": 1,
}  # fmt: skip


@pytest.fixture
def train(project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """`panollava train --config SMALL …` in a copy of the finished project, in this process: exit code and stderr."""
    monkeypatch.chdir(project.root)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["panollava", "train", "--config", "SMALL", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capfd.readouterr().err

    return run


def folder(project: Project, stage: str) -> Path:
    return project.root / f"runs/SMALL/{stage}/anyres-e2p_mlp"


def metadata(project: Project, stage: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder(project, stage) / "checkpoint_metadata.json").read_text())
    return document


def stages_that_a_dry_run_trains(project: Project, *words: str) -> list[str]:
    said = project.panollava("train", "--config", "SMALL", "-n", *words)
    return [
        name for name in ("vision", "resampler", "finetune") if f"  train_{name} SMALL: " in said.stdout + said.stderr
    ]


def test_options_hold_for_their_stages_and_this_command(project: Project, train: Any) -> None:
    """Trained in this process and through the DAG alike; a later command without them finds the stage stale."""
    before = metadata(project, "resampler")
    code, said = train("--stage", "finetune", "--lr", "2e-3", "--lora-r", "3", "--lora-alpha", "5", "--no-dag")
    assert code == 0, said
    (overlay,) = (project.root / "runs/SMALL/overlays").iterdir()
    document = json.loads(overlay.read_text())
    assert document["values"] == {"training.stage_configs.finetune.lr": 2e-3, "lora.rank": 3, "lora.alpha": 5}
    assert document["before"] == {"training.stage_configs.finetune.lr": 1e-3, "lora.rank": 2, "lora.alpha": 4}
    found = metadata(project, "finetune")
    assert found["training_config"]["learning_rate"] == 2e-3 and found["model_config"]["lora"]["rank"] == 3
    assert metadata(project, "resampler") == before
    options = ["--stage", "finetune", "--lr", "2e-3", "--lora-r", "3", "--lora-alpha", "5"]
    # The DAG believes what was trained here, and who loads the data changes nothing.
    assert stages_that_a_dry_run_trains(project, "--num-workers", "1", *options) == []
    assert plan(project) == AFTER_FINETUNE
    changed = stages_that_a_dry_run_trains(project, "--stage", "resampler", "--stage", "finetune", "--batch-size", "4")
    assert changed == ["resampler", "finetune"]
    assert len(list((project.root / "runs/SMALL/overlays").iterdir())) == 1  # dry runs leave none

    # and once through the DAG itself
    project.panollava(
        "train", "--config", "SMALL", "--stage", "finetune", "--epochs", "2", "--data-dir", _data(project)
    )
    found = metadata(project, "finetune")
    assert found["epoch_info"]["last_epoch"] == 1 and found["training_config"]["learning_rate"] == 1e-3
    assert found["dataset"]["train_csv"] == "own/train.csv" and found["dataset"]["val_csv"] == "own/val.csv"
    assert metadata(project, "resampler") == before
    assert json.loads((project.root / "runs/SMALL_stage_state.json").read_text())["stages"]["finetune"]["epochs"] == 2


def _data(project: Project) -> str:
    (drawn,) = (project.root / "cache/synthetic").iterdir()
    (project.root / "own").mkdir()
    for split in ("train", "val", "test"):
        lines = (drawn / f"{split}.csv").read_text().splitlines()
        rows = [line.replace("images/", f"{drawn.relative_to(project.root)}/images/") for line in lines[1:9]]
        (project.root / f"own/{split}.csv").write_text("\n".join([lines[0], *rows, ""]))
    return "own"


def test_a_checkpoint_of_the_previous_stage_gives_initial_weights(project: Project, train: Any) -> None:
    """With the resampler's own checkpoint the outcome is finetune's own; the stages before are not touched."""
    expected = load_weights(folder(project, "finetune") / "best.ckpt")[1]
    kept = folder(project, "resampler") / "best.ckpt"
    shutil.copy(kept, project.root / "start.ckpt")
    code, said = train("--stage", "finetune", "--resume", "start.ckpt", "--no-dag")
    assert code == 0, said
    found = load_weights(folder(project, "finetune") / "best.ckpt")[1]
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    record = json.loads((project.root / "runs/SMALL/.state/finetune/anyres-e2p_mlp/record.json").read_text())
    assert record["upstream_checkpoint"] == "start.ckpt"
    assert stages_that_a_dry_run_trains(project, "--stage", "finetune", "--resume", "start.ckpt") == []
    cfg = WorkflowConfig.load("SMALL", project.root, warn=False)
    begun = cfg.with_values({"training.stages": ["finetune"], "training.init_checkpoint": "start.ckpt"})
    assert begun.digest("train_finetune") == metadata(project, "finetune")["checkpoint_info"]["config_digest"]
    assert begun.digest("train_finetune") != cfg.digest("train_finetune")
    shutil.copy(folder(project, "vision") / "best.ckpt", project.root / "start.ckpt")  # other weights: stale again
    again = WorkflowConfig.load("SMALL", project.root, warn=False).with_values(
        {"training.stages": ["finetune"], "training.init_checkpoint": "start.ckpt"}
    )
    assert again.digest("train_finetune") != begun.digest("train_finetune")


def test_a_checkpoint_of_the_same_stage_goes_on_exactly(project: Project, train: Any) -> None:
    home, state = folder(project, "resampler"), project.root / "runs/SMALL/.state/resampler/anyres-e2p_mlp"
    expected = (home / "best.ckpt").read_bytes()
    (home / "checkpoint_metadata.json").unlink()  # as if it had been stopped before its end
    for checkpoint in (home / "last.ckpt", state / "resume.ckpt"):
        code, said = train("--stage", "resampler", "--resume", str(checkpoint.relative_to(project.root)), "--no-dag")
        assert code == 0, said
    assert "resuming at step" in said or "is current" in said
    assert (home / "best.ckpt").read_bytes() == expected
    assert not (project.root / "runs/SMALL/overlays").exists()
    last = str((home / "last.ckpt").relative_to(project.root))
    code, said = train("--stage", "resampler", "--resume", last, "--lr", "1e-2", "--batch-size", "4", "--no-dag")
    assert code == 1 and "training.stage_configs.resampler.lr: was 0.001, is 0.01" in said and "batch_size" in said
    project.configure({"data.synthetic.seed": 5})
    code, said = train("--stage", "resampler", "--resume", last, "--no-dag")
    assert code == 1 and "upstream.prepare_train" in said and "Traceback" not in said
    project.configure({})
    shutil.rmtree(state)
    code, said = train("--stage", "resampler", "--resume", last, "--no-dag")
    assert code == 1 and "does not hold the state" in said


def test_what_cannot_be_meant_is_wrong_usage(project: Project, train: Any) -> None:
    project.configure({"training.stages": ["resampler", "finetune"]})
    finetuned = str((folder(project, "finetune") / "best.ckpt").relative_to(project.root))
    for words, said in (
        (["--stage", "vision"], "does not train the stage vision"),
        (["--stage", "everything"], "everything"),
        (["--stage", "resampler", "--lora-r", "4"], "--lora-r concerns stage finetune alone"),
        (["--lr", "7"], "lr must be"),
        (["--epochs", "0"], "epochs"),
        (["--model", "gpt"], "is not a model of the zoo"),
        (["--data-dir", "nowhere"], "holds no train.csv"),
        (["--resume", "nowhere.ckpt"], "no such file"),
        (["--stage", "resampler", "--resume", finetuned], "comes after resampler"),
        (["--no-dag", "--dry-run"], "belong to the DAG"),
    ):
        code, err = train(*words)
        assert (code, said in err) == (2, True), (words, err)
        assert "Traceback" not in err
    (project.root / "text.ckpt").write_text("no checkpoint")
    code, err = train("--resume", "text.ckpt")
    assert code == 1 and "cannot be read as a checkpoint" in err
    assert not (project.root / "runs/SMALL/overlays").exists()


def test_a_checkpoint_of_the_same_stage_of_another_experiment_is_named(tmp_path: Path) -> None:
    cfg, other = WorkflowConfig.from_dict(SMALL, tmp_path), Path("runs/OTHER/finetune/anyres-e2p_mlp/best.ckpt")
    with pytest.raises(CheckpointError, match="it is not one of runs/SMALL/finetune/anyres-e2p_mlp"):
        _check_same(cfg, "finetune", other, "0")


def test_a_data_folder_is_for_the_named_stages(tmp_path: Path) -> None:
    cfg = WorkflowConfig.from_dict(
        with_changes(SMALL, {"training.stage_configs.vision.data.csv_train": "a.csv"}), tmp_path
    )
    (tmp_path / "d").mkdir()
    for name in ("train", "valid", "test"):
        (tmp_path / f"d/{name}.csv").touch()
    one = cfg.with_values(stage_overrides(cfg, ["resampler"], data_dir=Path("d")))
    assert one.csvs("train", "resampler") == ["d/train.csv"] and one.csvs("val", "resampler") == ["d/valid.csv"]
    assert one.csvs("train", "vision") == ["a.csv"] and one.csvs("train", "finetune") == ["synthetic"]
    every = cfg.with_values(stage_overrides(cfg, ["vision", "resampler", "finetune"], data_dir=Path("d")))
    assert {tuple(every.csvs("train", stage)) for stage in ("vision", "resampler", "finetune")} == {("d/train.csv",)}
    assert every.csvs("test") == one.csvs("test") == ["d/test.csv"]
    (tmp_path / "d/val.csv").touch()
    with pytest.raises(ConfigError, match=r"valid\.csv and val\.csv"):
        stage_overrides(cfg, ["resampler"], data_dir=Path("d"))
