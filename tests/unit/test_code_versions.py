"""A stage's code does not change without a decision: raise its code_version, or record that results stay the same.

python tests/unit/test_code_versions.py      # record the present code as belonging to the present versions, and the
                                             # defaults of settings that are new
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from panollava.config.dotted import value_at
from panollava.config.effective import DEFAULTS
from panollava.dag.always import ALWAYS
from panollava.dag.nodes import TABLE

VERSIONS = {name: node.code_version for name, node in TABLE.items() if node.document is None}
SOURCE = Path(__file__).parents[2] / "src/panollava"
RECORD = Path(__file__).with_name("code_versions.json")
DEFAULTS_RECORD = Path(__file__).with_name("later_defaults.json")

_VIEWS = [
    "views/geometry.py", "views/panorama.py", "views/render.py", "views/sampling.py", "views/strategies.py",
]  # fmt: skip
_MINIATURE = [
    "data/synthetic/scenes.py", "data/synthetic/captions.py", "miniature/pretraining.py",
    "training/optimizers.py",
]  # fmt: skip
_MODEL = ["models/*.py", "models/resamplers/*.py", *_VIEWS]
_TRAIN = [
    *_MODEL, "data/dataset.py", "data/datamodule.py", "data/batches.py", "data/loader.py", "data/samples.py",
    "data/details.py",
    "training/module.py", "training/loss_sum.py", "training/callbacks.py", "training/distributed.py",
    "training/features.py", "training/job.py", "data/lengths.py",
    "training/run_stage.py", "training/build.py", "training/activations.py", "training/optimizers.py",
    "training/stages.py",
]  # fmt: skip
_PREDICT = [*_MODEL, "data/samples.py", "data/details.py", "data/dataset.py", "evaluation/predict.py",
            "evaluation/run_predict.py"]  # fmt: skip
_MEASURE = [*_MODEL, "data/samples.py", "data/details.py", "data/dataset.py", "evaluation/run_measures.py",
            "evaluation/measures/encode.py", "evaluation/measures/measured.py"]  # fmt: skip
MODULES: dict[str, list[str]] = {
    "synthetic": ["data/synthetic/*.py"],
    "miniature_vision": [*_MINIATURE, "miniature/vision.py", *_VIEWS],
    "miniature_language": [*_MINIATURE, "miniature/language.py", "miniature/tokenizer.py"],
    "prepare": [
        "data/prepare.py", "data/download.py", "data/hosts.py", "data/http_request.py", "data/http_connection.py",
        "data/tables.py", "data/text_file.py", "data/details.py", "data/questions.py", "data/formats/*.py",
        "answers/letters.py", "answers/kinds.py", "views/panorama.py",
    ],
    "views": [*_VIEWS, "views/cache.py", "views/cache_build.py", "views/jpeg.py"],
    "train_vision": _TRAIN,
    "train_resampler": _TRAIN,
    "train_finetune": _TRAIN,
    "select_checkpoint": ["training/stage_folder.py"],
    "predict": _PREDICT,
    "predict_blind": _PREDICT,
    "predict_text_only": _PREDICT,
    "predict_rolled": [*_PREDICT, "evaluation/run_measures.py", "evaluation/measures/rolled.py",
                       "evaluation/measures/places.py"],
    "measure_perplexity": [*_MEASURE, "evaluation/measures/perplexity.py"],
    "measure_overlap": [*_MEASURE, "evaluation/measures/overlap.py", "evaluation/measures/overlap_plot.py"],
    "metrics": [
        "evaluation/metrics/*.py", "evaluation/metrics/launcher/*.java",
        "evaluation/protocols.py", "evaluation/score.py", "evaluation/predictions.py",
        "evaluation/measures/measured.py", "evaluation/measures/rolled.py", "evaluation/measures/places.py",
        "evaluation/resampling.py",
    ],
}  # fmt: skip


@functools.cache
def _meaning(file: Path) -> bytes:
    """What a module does: comments, docstrings and layout do not count."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant() as docstring), *_]:
                docstring.value = ""
    return f"{file.relative_to(SOURCE)}\n{ast.dump(tree)}".encode()


def code_digest(patterns: list[str]) -> str:
    """A digest of what the modules do."""
    files = sorted({file for pattern in patterns for file in SOURCE.glob(pattern)})
    assert files, patterns
    digest = hashlib.sha256()
    for file in files:
        digest.update(_meaning(file))
    return digest.hexdigest()[:16]


def present(node: str) -> dict[str, object]:
    return {"version": VERSIONS[node], "code": code_digest(MODULES[node])}


def test_every_node_names_its_code() -> None:
    assert MODULES.keys() == VERSIONS.keys()


@pytest.mark.parametrize("node", VERSIONS)
def test_code_changed_with_a_decision(node: str) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[node]
    assert recorded == present(node), (
        f"the code behind {node} changed. If what it writes changes, raise its code_version in dag/nodes.py; "
        f"either way record the decision: python {Path(__file__).relative_to(Path(__file__).parents[2])}"
    )


def later_defaults() -> dict[str, Any]:
    """Defaults of the settings that slices leave out where they have it."""
    keys = {key for node in TABLE.values() for key in node.reads} - ALWAYS
    return {key: value_at(DEFAULTS, key) for key in sorted(keys)}


def test_what_slices_leave_out_stays_what_it_is() -> None:
    """A later setting's default (dag/always.py) is part of every slice that does not name it."""
    recorded = json.loads(DEFAULTS_RECORD.read_text(encoding="utf-8"))
    for key, default in later_defaults().items():
        readers = [name for name, node in TABLE.items() if key in node.reads]
        assert key in recorded, f"{key} is new: record its default (python tests/unit/test_code_versions.py)"
        assert recorded[key] == default, (
            f"{key} has another default than the slices that leave it out were made with. Raise the code_version of "
            f"{', '.join(readers)} in dag/nodes.py, remove the key from {DEFAULTS_RECORD.name} and record it anew"
        )


if __name__ == "__main__":
    RECORD.write_text(json.dumps({node: present(node) for node in VERSIONS}, indent=2) + "\n", encoding="utf-8")
    known = json.loads(DEFAULTS_RECORD.read_text(encoding="utf-8"))
    merged = {key: known.get(key, default) for key, default in later_defaults().items()}
    DEFAULTS_RECORD.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
