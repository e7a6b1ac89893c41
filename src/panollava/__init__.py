"""panollava: train and evaluate panoramic vision-language models.

Importing the package costs nothing; each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from panollava.hub import register_when_imported

_PUBLIC = {
    "WorkflowConfig": "panollava.config",
    "ThreeStageTrainer": "panollava.api",
    "EvaluationRunner": "panollava.api",
    "CheckpointResolver": "panollava.api",
    "resolve_model_dir": "panollava.checkpoints.model_dir",
    "results": "panollava.result_tables",
    "compute_text_metrics": "panollava.evaluation.score",
    "ModelConfig": "panollava.models.config",
    "PanoramaVLM": "panollava.models.vlm",
    "PanoramaProcessor": "panollava.models.processor",
}
__all__ = ["__version__", *_PUBLIC]

register_when_imported()  # exported models, with transformers' Auto classes


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'panollava' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("panollava")
    except PackageNotFoundError:  # a source tree on the path that was never installed
        return "0.1.0"


def __dir__() -> list[str]:
    return sorted(__all__)
