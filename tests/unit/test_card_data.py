"""What a model card says of scores: those of these very weights, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panollava.checkpoints.card_data import model_card_data
from panollava.checkpoints.folder import ChosenCheckpoint
from panollava.files import sha256_file

SCORES = {"bleu4": {"value": 0.25}}


def document(weights: Path, **other: Any) -> dict[str, Any]:
    checkpoint = {"file": weights.name, "config_digest": "c0", "sha256": sha256_file(weights), **other}
    return {"metrics": SCORES, "controls": {"blind": None}, "protocol": "grouped", "num_samples": 4,
            "provenance": {"checkpoint": checkpoint}}  # fmt: skip


@pytest.mark.parametrize(
    ("other", "shown"),
    [({}, True), ({"file": "other.ckpt"}, False), ({"config_digest": "c1"}, False), ({"sha256": "0" * 64}, False)],
)
def test_scores_belong_to_the_weights(tmp_path: Path, other: dict[str, Any], shown: bool) -> None:
    weights = tmp_path / "runs/E/finetune/v/x.ckpt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    metadata = {
        "experiment_name": "E", "stage": "finetune", "dataset": {}, "training_config": {}, "remembered": {},
        "checkpoint_info": {"config_digest": "c0"},
    }  # fmt: skip
    results = tmp_path / "results/E/metrics.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps(document(weights, **other)))
    chosen = ChosenCheckpoint(weights.parent, weights, "best.ckpt")
    told = model_card_data(metadata, chosen, tmp_path)["evaluation"]
    assert (told and told["metrics"]) == (SCORES if shown else None)
