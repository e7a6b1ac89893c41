"""checkpoint_metadata.json with any value in any place: named in one line, or as good as before; never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from odd_documents import changed

from panollava.checkpoints.folder import choose_checkpoint, read_metadata
from panollava.checkpoints.loading import resolve_backbones
from panollava.checkpoints.metadata import explained, whole_metadata
from panollava.errors import CheckpointError
from panollava.models.config import ModelConfig
from panollava.models.processor import PanoramaProcessor

PATH = Path("F/checkpoint_metadata.json")


def metadata() -> dict[str, Any]:
    model = ModelConfig(crop_strategy="resize", image_size=(32, 32))
    half = [0.5, 0.5, 0.5]
    view = {"kind": "global", "yaw_deg": 0.0, "pitch_deg": 0.0, "fov_deg": 360.0, "vfov_deg": 180.0}
    return {
        "experiment_name": "E",
        "stage": "finetune",
        "model_config": model.to_json(),
        "backbones": {"vision": None, "language": None},
        "processor": {"views": [view], "image_size": [32, 32], "mean": half, "std": half, "antialias": True},
        "training_config": {"precision": "auto"},
        "dataset": {"test_csv": "data/test.csv", "val_csv": ["a.csv", "b.csv"]},
        "epoch_info": {"checkpoints": [{"file": "a.ckpt", "epoch": 0, "step": 3}]},
        "checkpoint_info": {"config_digest": "abc", "project_root": "/home", "versions": {"torch": "2"}},
        "remembered": {
            "generation": {"max_new_tokens": 8, "do_sample": False, "temperature": 0.7, "top_p": 0.9},
            "evaluation": {"metrics": "auto", "extra": [], "custom_metrics": [], "key_of_tomorrow": 1},
            "data": {"columns": {"query": None}, "max_rejected_fraction": 0.05},
            "training": {"eval_batch_size": 4, "seed": 7, "cpu_threads": 1, "devices": "auto"},
        },
    }


def rebuild(folder: Path, document: Any) -> dict[str, Any]:
    """What a command reads of the file before it builds a model."""
    (folder / PATH.name).write_text(json.dumps(document))
    choose_checkpoint(folder, epoch=0)
    whole = whole_metadata(PATH, read_metadata(folder))
    with explained(PATH, "model_config"):
        resolve_backbones(whole, [folder])
    with explained(PATH, "processor"):
        PanoramaProcessor.from_json(whole["processor"])
    return whole


def test_any_value_in_any_place_is_told_or_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").touch()
    told = 0
    for what, document in changed(metadata()):
        try:
            rebuild(tmp_path, document)
        except CheckpointError:
            told += 1
        except Exception as error:
            raise AssertionError(what) from error
    assert told > 300


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("remembered", "training", {"seed": "x"}, r"remembered\.training\.seed: .*valid integer, got 'x'"),
        ("remembered", "evaluation", {"metrics": 3.5}, r"remembered\.evaluation\.metrics"),
        ("checkpoint_info", "project_root", ..., r"it lacks checkpoint_info\.project_root"),
        ("model_config", "fov_deg", None, r"model_config: fov_deg must be a number in .*, got null"),
        ("processor", "views", ..., "processor lacks 'views'"),
        (
            "model_config",
            "lora",
            {"target_modules": []},
            r"model_config: lora.target_modules must be auto or a list, got \[\]",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, section: str, key: str, value: Any, said: str) -> None:
    document = metadata()
    if value is ...:
        del document[section][key]
    else:
        document[section][key] = value
    (tmp_path / "a.ckpt").touch()
    with pytest.raises(CheckpointError, match=f"checkpoint_metadata.json: {said}.*Restore the file"):
        rebuild(tmp_path, document)


def test_what_a_folder_does_not_remember_is_as_the_defaults_say(tmp_path: Path) -> None:
    document = metadata()
    whole = whole_metadata(PATH, document)
    assert whole["remembered"]["training"] == {"eval_batch_size": 4, "seed": 7, "cpu_threads": 1, "devices": "auto"}
    assert whole["remembered"]["evaluation"]["protocol"] == "grouped"
    del document["remembered"]["generation"]
    assert whole_metadata(PATH, document)["remembered"]["generation"]["max_new_tokens"] == 128


def test_a_file_of_brackets_is_damaged(tmp_path: Path) -> None:
    (tmp_path / PATH.name).write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is damaged"):
        read_metadata(tmp_path)
