"""Stage folders, cached features, gathered CSVs: what they refuse and what they keep apart."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from odd_documents import changed

from panollava.checkpoints.folder import choose_checkpoint, find_stage_folder, read_metadata, write_links
from panollava.checkpoints.loading import _home_of
from panollava.checkpoints.model_dir import resolve_model_dir
from panollava.checkpoints.weights import load_weights, save_weights
from panollava.config import WorkflowConfig
from panollava.dag.options import untracked
from panollava.data.gather import gather_prepared
from panollava.errors import CheckpointError, ConfigError, StorageError
from panollava.files import atomic_path
from panollava.models.processor import PanoramaProcessor
from panollava.stage_state import stage_state
from panollava.training.features import FeatureStore, cached_features
from panollava.training.job import model_config_of
from panollava.training.state_folder import StateFolder
from panollava.views.strategies import plan_views

METADATA = "checkpoint_metadata.json"


def stage(folder: Path, epochs: int = 2) -> Path:
    folder.mkdir(parents=True)
    entries = []
    for epoch in range(epochs):
        name = f"siglip_mlp_resize_train_epoch{epoch:02d}_loss{1 - epoch / 10:.4f}.ckpt"
        (folder / name).write_bytes(bytes([epoch]))
        entries.append({"file": name, "epoch": epoch, "step": 10 * (epoch + 1), "val_loss": 1 - epoch / 10})
    write_links(folder, entries)
    (folder / METADATA).write_text(json.dumps({"stage": folder.parent.name, "epoch_info": {"checkpoints": entries}}))
    return folder


def test_checkpoints_are_chosen_as_the_contract_says(tmp_path: Path) -> None:
    folder = stage(tmp_path / "runs/E/finetune/resize_mlp")
    assert choose_checkpoint(folder).path.name.endswith("epoch01_loss0.9000.ckpt")
    assert choose_checkpoint(folder, epoch=0).path.name.endswith("epoch00_loss1.0000.ckpt")
    assert choose_checkpoint(folder, step=20).path.name.endswith("epoch01_loss0.9000.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of epoch 7; there are epochs 0, 1"):
        choose_checkpoint(folder, epoch=7)
    with pytest.raises(ConfigError, match="epoch 0 and step 20 exclude each other"):
        choose_checkpoint(folder, epoch=0, step=20)
    with pytest.raises(TypeError, match="epoch must be a whole number, got '0'"):
        choose_checkpoint(folder, epoch="0")  # type: ignore[arg-type]
    (folder / "best.ckpt").unlink()
    assert choose_checkpoint(folder).chosen_as == "last.ckpt"
    (folder / "last.ckpt").unlink()
    assert choose_checkpoint(folder).chosen_as == "the newest .ckpt"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"stage": "fintune"}, "stage must be one of vision, resampler, finetune, got 'fintune'"),
        ({"stage": "*"}, "stage must be one of"),
        ({"experiment": "../E"}, r"experiment\.name must start with .* got '\.\./E'"),
        ({"experiment": "*"}, r"experiment\.name must start with"),
    ],
)
def test_what_names_no_stage_and_no_experiment_is_not_looked_for(
    tmp_path: Path, wrong: dict[str, str], said: str
) -> None:
    cfg = WorkflowConfig.from_dict({"experiment": {"name": "E"}}, tmp_path)
    (tmp_path / "runs").mkdir()
    stage(tmp_path / "E/finetune/anyres-e2p_mlp")  # beside runs/, not in it
    stage(tmp_path / "runs/E/finetune/anyres-e2p_mlp")
    with pytest.raises(ConfigError, match=said):
        resolve_model_dir(cfg, **wrong)  # type: ignore[arg-type]


def test_broken_and_empty_folders_are_explained(tmp_path: Path) -> None:
    folder = stage(tmp_path / "runs/E/finetune/resize_mlp")
    (folder / os.readlink(folder / "best.ckpt")).unlink()
    with pytest.raises(CheckpointError, match=r"best\.ckpt points to .*epoch01"):
        choose_checkpoint(folder)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"no \.ckpt file there; the folder holds: notes\.txt"):
        choose_checkpoint(empty)
    for read in (read_metadata, find_stage_folder):
        with pytest.raises(CheckpointError, match=r"the folder holds: notes\.txt\W+Pass a stage folder"):
            read(empty)


def test_an_experiments_folder_means_its_last_stage_and_never_an_earlier_one(tmp_path: Path) -> None:
    experiment = tmp_path / "runs/E"
    resampler = stage(experiment / "resampler/resize_mlp")
    assert find_stage_folder(experiment) == resampler
    (experiment / "finetune/resize_mlp").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="stage finetune was begun and is not finished"):
        find_stage_folder(experiment)
    assert find_stage_folder(experiment, "resampler") == resampler
    stage(experiment / "resampler/e2p_mlp")
    with pytest.raises(CheckpointError, match="several variants of stage resampler"):
        find_stage_folder(experiment, "resampler")


def test_the_metadata_of_every_stage_name_the_experiments_models(tmp_path: Path) -> None:
    data = dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic")
    models = {"vision_name": "miniature/siglip", "language_model_name": "miniature/qwen3"}
    experiment = WorkflowConfig.from_dict({"experiment": {"name": "E"}, "data": data, "models": models}, tmp_path)
    for name in ("vision", "resampler", "finetune"):
        job: Any = SimpleNamespace(
            stage=name, config=experiment.slice_of(f"train_{name}")["config"], vision_folder=None, language_folder=None,
            untracked=untracked(experiment),
        )  # fmt: skip
        model = model_config_of(job, (64, 64))
        assert {key: getattr(model, key) for key in models} == models
        assert model.use_lora == (name == "finetune")


def store(folder: Path, mean: float = 0.5) -> FeatureStore:
    """Features of one picture under a stand-in for an encoder."""
    encoder = torch.nn.Linear(1, 1)
    encoder.settings = {}
    model: Any = SimpleNamespace(encoder=encoder, encode_vision=lambda p: p.flatten(2).unsqueeze(2))
    cache: Any = {"a.png": torch.arange(48, dtype=torch.uint8).view(1, 4, 4, 3).numpy()}
    processor = PanoramaProcessor(plan_views("resize"), (4, 4), (mean,) * 3, (0.5,) * 3)
    torch.nn.init.zeros_(model.encoder.weight)
    torch.nn.init.zeros_(model.encoder.bias)
    return cached_features(model, processor, cache, "key", folder, device=torch.device("cpu"))


def test_features_under_another_normalisation_are_other_features(tmp_path: Path) -> None:
    stores = [store(tmp_path, mean) for mean in (0.5, 0.1)]
    assert len(list((tmp_path / "features").iterdir())) == 2
    assert abs(stores[0]["a.png"] - stores[1]["a.png"]).max() > 0.5


def test_features_reserve_their_room_before_they_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk below a memory map would be a bus error, which nobody can catch."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"features\.npy: No space left on device"):
        store(tmp_path)
    assert not list(tmp_path.rglob("features.npy")) and not list(tmp_path.rglob("*.partial"))


def test_a_damaged_record_counts_as_none(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.clear({"slice": "a"})
    assert state.belongs_to({"slice": "a"}) and not state.belongs_to({"slice": "b"})
    (tmp_path / "fingerprint.json").write_text("")
    state.record_path.write_text("{")
    assert not state.belongs_to({"slice": "a"}) and state.record == {}


def test_a_dead_process_is_not_called_running(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"status": "running", "process": [os.uname().nodename, 2**22 + 1]}))
    assert stage_state("E", {"vision": str(record)}, live=True)["stages"]["vision"]["status"] == "failed"
    assert stage_state("E", {"vision": str(tmp_path / "none")}, live=True)["stages"]["vision"]["status"] == "pending"


def test_a_record_with_odd_values_counts_as_not_begun(tmp_path: Path) -> None:
    """What is shown has its type, whatever an editor or a disk did to the record."""
    record = {
        "status": "running", "error": None, "best_val_loss": 1.5, "elapsed_minutes": 2, "process": ["another", 1],
        "progress": {"epoch": 0, "step": 3, "total_steps": 9},
    }  # fmt: skip
    path = tmp_path / "record.json"

    def row(document: Any) -> dict[str, Any]:
        path.write_text(json.dumps(document))
        found: dict[str, Any] = stage_state("E", {"vision": str(path)}, live=True)["stages"]["vision"]
        return found

    assert row(record)["status"] == "running" and row(record)["progress"]["step"] == 3
    pending = 0
    for _, odd in changed(record):
        found = row(odd)
        assert all(found[key] is None or isinstance(found[key], (int, float)) for key in ("best_val_loss", "epochs"))
        assert found["error"] is None or isinstance(found["error"], str)
        pending += found["status"] == "pending"
    assert pending > 40 and row([1])["status"] == "pending"


def test_rejected_rows_keep_their_reasons(tmp_path: Path) -> None:
    for split, line in (("train", "a.csv,2,image missing,x,why,text"), ("val", "b.csv,3,truncated,y,q,a")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "prepared.csv").write_text("image_path,query,annotation\n")
        (tmp_path / split / "rejected.csv").write_text(f"source_csv,source_line,reason,url,reason,annotation\n{line}\n")
    gather_prepared({split: str(tmp_path / split) for split in ("train", "val")}, tmp_path / "out")
    lines = (tmp_path / "out/rejected.csv").read_text().splitlines()
    assert lines[1:] == ["a.csv,2,image missing,x,why,text", "b.csv,3,truncated,y,q,a"]


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["result.txt"]


def test_the_project_of_a_folder(tmp_path: Path) -> None:
    """Copied out of its project it still belongs there; in a moved or copied project it belongs to that one."""
    old, new = tmp_path / "old", tmp_path / "new"
    for place in (old, new):
        (place / "runs/E").mkdir(parents=True)
    (old / "Snakefile").touch()
    assert _home_of(old / "runs/E", [old, new]) == old
    assert _home_of(new / "runs/E", [old, new]) == old  # a copy of the folder alone
    assert _home_of(new / "runs/E", [tmp_path / "gone", new]) == new
    (new / "Snakefile").touch()
    assert _home_of(new / "runs/E", [old, new]) == new  # a copy of the whole project


# ---- weights -------------------------------------------------------------------------------------
def test_a_damaged_weights_file_is_never_taken_for_weights(tmp_path: Path) -> None:
    path, weights = tmp_path / "a.ckpt", torch.full((64,), 0.123)
    save_weights(path, {"resampler.weight": weights}, {"stage": "finetune"})
    assert torch.equal(load_weights(path)[1]["resampler.weight"], weights)
    whole = path.read_bytes()
    place = whole.index(weights.numpy().tobytes()) + 17
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
    with pytest.raises(CheckpointError, match=r"damaged after it was written.*trains the stage again"):
        load_weights(path)


@pytest.mark.parametrize(
    "document", [{"panollava": [1], "state_dict": {}}, {"panollava": {}, "state_dict": [1]}, {"state_dict": {"a": 1}}]
)
def test_what_only_looks_like_a_checkpoint_is_refused(tmp_path: Path, document: Any) -> None:
    torch.save(document, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="not a panollava checkpoint"):
        load_weights(tmp_path / "a.ckpt")


def test_torchs_advice_to_run_what_stands_in_a_file_is_not_passed_on(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("# a script\nimport os\n")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint") as told:
        load_weights(tmp_path / "a.ckpt")
    assert "weights_only" not in str(told.value)
