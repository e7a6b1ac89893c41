"""Versions of what is installed: for metadata, metrics and the check of the environment."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution without importing it, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


OF_MODELS = ("panollava", "torch", "transformers", "peft")
OF_TRAINING = (*OF_MODELS, "lightning")
"""What weights and answers depend on."""
OF_SCORES = (*OF_MODELS, "sacrebleu", "nltk", "rouge-score", "pycocoevalcap")
"""What scores depend on; Python and Java beside."""


def package_versions(distributions: Sequence[str] = OF_TRAINING) -> dict[str, str | None]:
    """The versions of several distributions."""
    return {name: package_version(name) for name in distributions}
