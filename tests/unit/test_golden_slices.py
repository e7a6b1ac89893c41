"""Slices stay as they are: a change of the code that builds them must not train anybody's stages anew.

`golden_slices.json` holds the digest of every node of EXP1, of the ablations' cells and of the tests' experiments, and
for some of them what their slices say. Versions of code (`code_version`) do not count here: the digests are those of
the versions that stand in the file. A setting that joins the schema enters a slice only where it differs from its
default (dag/always.py), so it changes nothing here either.

python tests/unit/test_golden_slices.py      # record the present slices; everybody's results that differ become stale
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import LOCAL, ROOT, SMALL, with_changes

from panollava.config import Project, WorkflowConfig
from panollava.dag.nodes import NODES, TABLE
from panollava.dag.tasks import Tasks
from panollava.files import digest_of

GOLDEN = Path(__file__).with_name("golden_slices.json")
IN_FULL = ("EXP1", "SMALL", "SMALL_extra", "LOCAL", "BACKBONES")
EXTRA = ["perplexity", "overlap_consistency", "dino_similarity", "yaw_equivariance", "yaw_agreement"]


def write_inputs(root: Path) -> None:
    """Files of the project's own, always of the same bytes: CSVs, panoramas, a metric, a folder of a language model."""
    (root / "data").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        Image.new("RGB", (8, 4), (number, 2, 3)).save(root / f"data/{split}.bmp")
        text = f"image_path,query,annotation\n{split}.bmp,what is left,a thing\n"
        (root / f"data/{split}.csv").write_text(text, encoding="utf-8")
    (root / "own_metric.py").write_text("def length(answers, references, rows):\n    return 1.0\n", encoding="utf-8")
    (root / "lm").mkdir()
    (root / "lm/config.json").write_text("{}", encoding="utf-8")
    (root / "weights.ckpt").write_text("weights", encoding="utf-8")


def experiments(root: Path) -> Iterator[WorkflowConfig]:
    """EXP1, every cell of the ablations, and experiments as the tests have them, on the files below `root`."""
    project = Project(root)
    yield project.experiment("EXP1")
    for name in project.ablations():
        yield from project.cells(project.ablation(name))
    own_data = {"training.stage_configs.finetune.data": {"csv_train": "data/train.csv", "csv_val": "data/val.csv"}}
    for document in (
        SMALL,
        with_changes(SMALL, {"experiment.name": "SMALL_extra", "evaluation.extra": EXTRA}),
        LOCAL,
        with_changes(SMALL, {"experiment.name": "OWN_DATA", **own_data}),
        with_changes(LOCAL, {
            "experiment.name": "BACKBONES", "models.language_model_name": "lm", "image_processing.image_size": None,
            "training.init_checkpoint": "weights.ckpt", "generation.do_sample": True, "lora.use_lora": False,
        }),
        with_changes(SMALL, {
            "experiment.name": "QFORMER", "models.resampler_type": "qformer", "data.csv_test": None,
            "training.stage_configs.vision.loss": "densecl", "training.stage_configs.finetune.optimizer": "muon",
            "training.stages": ["resampler", "finetune"], "image_processing.crop_strategy": "cubemap",
        }),
    ):  # fmt: skip
        yield WorkflowConfig.from_dict(document, root)


def slices_of(experiment: WorkflowConfig) -> dict[str, dict[str, Any]]:
    """Every slice of an experiment, by its node; those of a stage with data of its own as `NODE STAGE`."""
    stages: list[str] = list(experiment.settings.training.stages)
    found = {}
    for node in NODES:
        if node.startswith("train_") and node.removeprefix("train_") not in stages:
            continue
        found[node] = experiment.slice_of(node)
        for stage in stages if node.startswith(("prepare_", "views_")) else ():
            if experiment.digest(node, stage) != experiment.digest(node):
                found[f"{node} {stage}"] = experiment.slice_of(node, stage)
    return {**found, **{node: experiment.slice_of(node) for node in ("prepare_experiment", "stage_state")}}


def present() -> dict[str, Any]:
    """What golden_slices.json holds, as it is now."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_inputs(root)
        shutil.copytree(ROOT / "config", root / "config")
        before = Path.cwd()
        os.chdir(root)
        try:
            digests, texts = {}, {}
            for experiment in experiments(Path()):
                name, slices = experiment.names.experiment, slices_of(experiment)
                digests[name] = {node: digest_of(document) for node, document in slices.items()}
                if name in IN_FULL:
                    texts[name] = {node: _said(document) for node, document in slices.items()}
            project = Project(Path())
            tasks = Tasks(project)
            several = {"comparison": tasks.of_comparison().digest}
            several |= {name: tasks.of_ablation(name).digest for name in project.ablations()}
        finally:
            os.chdir(before)
    return {"digests": {**digests, "several experiments": several}, "slices": texts}


def _said(document: dict[str, Any]) -> dict[str, Any]:
    """A slice without what follows from other nodes: the names of its parents, and no version."""
    said = {key: value for key, value in document.items() if key != "code_version"}
    return {**said, "upstream": sorted(document.get("upstream", {}))}


def versions() -> dict[str, int]:
    return {name: node.code_version for name, node in TABLE.items() if node.code_version is not None}


@pytest.fixture
def golden(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The file, with the versions of code that it was recorded with in force."""
    document: dict[str, Any] = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for node, version in document["code_versions"].items():
        monkeypatch.setitem(TABLE, node, replace(TABLE[node], code_version=version))
    return document


def test_slices_are_what_they_were(golden: dict[str, Any]) -> None:
    now = present()
    for name, slices in golden["slices"].items():
        for node, said in slices.items():
            assert now["slices"][name][node] == said, f"{name}: {node}"
    for name, digests in golden["digests"].items():
        assert {node: now["digests"][name].get(node) for node in digests} == digests, name


if __name__ == "__main__":
    recorded = {"code_versions": versions(), **present()}
    GOLDEN.write_text(json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {GOLDEN}")
