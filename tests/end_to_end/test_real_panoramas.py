"""Only YAML changed: the same DAG runs real panoramas and CSVs to their metrics.json."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest
from conftest import SHARED, Project

QUIC360 = SHARED / "data/quic360"
pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not QUIC360.is_dir(), reason=f"the QuIC-360 sample is not there ({QUIC360})"),
]


def pairs(path: Path, image: str, query: str) -> set[tuple[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return {(Path(row[image]).name, row[query]) for row in csv.DictReader(stream)}


def test_mini_quic360(project: Project) -> None:
    csvs = {f"data.csv_{s}": os.path.relpath(QUIC360 / f"mini_{n}.csv", project.root)
            for s, n in (("train", "train"), ("val", "valid"), ("test", "test"))}  # fmt: skip
    project.configure({"experiment.name": "MINI", **csvs})
    project.panollava("run", "MINI")
    root = project.root
    document = json.loads((root / "results/MINI/metrics.json").read_text())
    asked = pairs(QUIC360 / "mini_test.csv", "url", "query")
    assert pairs(root / "results/MINI/predictions.csv", "image_path", "original_query") == asked
    assert document["num_samples"] == len(asked)
    assert document["num_references"] == 33
    assert all(m["value"] is not None or m["reason"] for m in document["metrics"].values())
    assert (root / "results/MINI/prepared/rejected.csv").read_text().count("\n") == 1
    (checkpoint,) = (root / "runs/MINI/finetune/anyres-e2p_mlp").glob(
        "siglip_mlp_anyres-e2p_mini_train_epoch00_*.ckpt"
    ) or [None]
    assert checkpoint is not None
