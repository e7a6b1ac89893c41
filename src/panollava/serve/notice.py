"""What a visitor should know of the model that answers: what it was trained on, and how accurate it was found to be.

Builds short sentences from the metadata of a loaded folder and the model card's data. What is not known is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

_SCORES = ("accuracy", "exact_match", "cider", "meteor", "rouge_l", "bleu4")


def trained_on(metadata: Mapping[str, Any], origin: Mapping[str, Any] | None) -> list[str]:
    """Sentences: the stage's data, the score of its test set beside the blind one, and what follows for a visitor."""
    dataset = metadata.get("dataset") or {}
    found = []
    if (rows := dataset.get("num_train_samples")) is not None:
        source = dataset.get("dataset_name") or _name_of(dataset.get("train_csv"))
        found.append(f"Trained on {rows:,} questions and answers{f' of {source}' if source else ''}.")
    untrained = "stage" in metadata and metadata["stage"] is None
    if untrained:
        found.append("Nothing was trained on panoramas here: the model answers as it comes.")
    if _is_drawn(metadata):
        found.append(
            "Its encoder and language model are miniatures made for drawn scenes: what it says of photographs means "
            "nothing."
        )
    if score := _score((origin or {}).get("evaluation")):
        found.append(score)
    about = "panoramas" if untrained else "other panoramas, places and kinds of questions than those"
    found.append(f"About {about} it may be wrong, in any words.")
    return found


def _is_drawn(metadata: Mapping[str, Any]) -> bool:
    model = metadata.get("model_config") or {}
    return any(
        str(model.get(key, "")).startswith("miniature/") for key in ("vision_name", "language_model_name", "vlm_name")
    )


def _name_of(csv: Any) -> str | None:
    first = csv[0] if isinstance(csv, list) and csv else csv
    return PurePath(first).name if isinstance(first, str) else None


def _score(evaluation: Mapping[str, Any] | None) -> str | None:
    """One score of its own test set, the first of `_SCORES` that there is."""
    for key in _SCORES:
        metric = ((evaluation or {}).get("metrics") or {}).get(key)
        if metric is None or metric.get("value") is None:
            continue
        blind = ((evaluation or {}).get("blind") or {}).get(key)
        beside = "" if blind is None else f", {blind:.2f} with other pictures"
        return f"On its test set: {key} {metric['value']:.2f}{beside}."
    return None
