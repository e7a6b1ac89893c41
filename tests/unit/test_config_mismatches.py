"""One warning lists each setting on which a configuration and a folder disagree, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from panollava.config import WorkflowConfig
from panollava.evaluation.config_mismatches import config_mismatches
from panollava.models.stage_config import native_model_config, stage_model_config

PLANS = yaml.safe_load((Path(__file__).parents[1] / "workflow/golden_plans.yaml").read_text(encoding="utf-8"))
OF_WEIGHTS = ("models.", "image_processing.", "lora.", "system_messages.", "training.stage_configs.finetune.",
              "training.seed", "training.precision")  # fmt: skip
# What the finetune stage's folder says nothing about: backbones by their digest, how views lie on the disk, the vision
# stage, the stage's data.
ELSEWHERE = ("models.miniature.", "image_processing.view_cache", "image_processing.min_coverage",
             "models.vicreg_projector_dim",
             "training.stage_configs.finetune.data.", "training.stage_configs.finetune.vicreg_")  # fmt: skip


def experiment(changes: dict[str, Any] | None = None) -> WorkflowConfig:
    base = WorkflowConfig.from_dict(
        {
            "experiment": {"name": "E"},
            "models": {"vision_name": "miniature/siglip", "language_model_name": "miniature/qwen3"},
            "image_processing": {"image_size": 64},
        }
    )
    return base.with_values(changes or {})


def metadata(trained: WorkflowConfig, **changes: Any) -> dict[str, Any]:
    """What the finetune stage of an experiment notes in its folder."""
    config = trained.effective
    settings = config["training"]["stage_configs"]["finetune"]
    kept = {key: value for key, value in settings.items() if key not in ("lr", "data")}
    return {
        "experiment_name": trained.names.experiment,
        "stage": "finetune",
        "model_config": stage_model_config("finetune", config, (64, 64), Path("v"), Path("l")).to_json(),
        "training_config": {**kept, "learning_rate": settings["lr"], "seed": 42, "precision": "auto"},
        "dataset": {"test_csv": trained.csvs("test")[0]},
        **changes,
    }


PROBES = {
    key: probe for key, probe in PLANS["keys"].items() if key.startswith(OF_WEIGHTS) and not key.startswith(ELSEWHERE)
}


def test_there_are_probes() -> None:
    assert len(PROBES) > 40


@pytest.mark.parametrize("key", PROBES)
def test_a_changed_setting_is_listed_and_nothing_else(key: str) -> None:
    probe = PROBES[key]
    trained = experiment(probe.get("on_in"))
    assert config_mismatches(trained, metadata(trained)) == []
    found = config_mismatches(trained.with_values({key: probe["value"]}), metadata(trained))
    assert [line.partition(":")[0] for line in found if not line.startswith("experiment.name")] == [key], found


def test_another_experiment_and_another_test_csv_are_told(tmp_path: Path) -> None:
    trained = experiment()
    other = trained.with_values({"experiment.name": "F", "data.csv_test": "mine.csv"})
    assert config_mismatches(other, metadata(trained)) == [
        "experiment.name: configuration 'F', folder 'E'",
        "data.csv_test: configuration 'mine.csv', folder 'data/quic360/test.csv'",
    ]
    assert len(config_mismatches(other, metadata(trained), csv_chosen=True)) == 1


def test_the_order_of_parts_is_no_disagreement() -> None:
    """Folders have noted parts in one order since there are parts."""
    native = {
        "experiment": {"name": "E"}, "models": {"vlm_name": "miniature/vlm"}, "image_processing": {"image_size": 64},
        "training": {"stages": ["finetune"]}, "lora": {"parts": ["vision", "language"]},
    }  # fmt: skip
    asked = WorkflowConfig.from_dict(native)
    told = native_model_config("finetune", asked.effective, (64, 64), None).to_json()
    assert told["lora"]["parts"] == ["language", "vision"]
    assert config_mismatches(asked, metadata_of_native(asked, told)) == []
    told["lora"]["parts"] = ["language"]
    assert [line.partition(":")[0] for line in config_mismatches(asked, metadata_of_native(asked, told))] == [
        "lora.parts"
    ]


def metadata_of_native(trained: WorkflowConfig, model: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment_name": trained.names.experiment, "stage": "finetune", "model_config": model, "training_config": {},
        "dataset": {"test_csv": trained.csvs("test")[0]},
    }  # fmt: skip


def test_what_the_configuration_leaves_to_the_model_is_no_disagreement() -> None:
    assert config_mismatches(experiment({"image_processing.image_size": None}), metadata(experiment())) == []
