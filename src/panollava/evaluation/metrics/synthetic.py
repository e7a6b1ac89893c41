"""Custom metrics for the synthetic data set, where an answer is right or wrong.

Each takes predictions, the references of each and the samples' rows, and returns one number in [0, 1] with each
sample's part in it. List them in `evaluation.custom_metrics`, for instance
`panollava.evaluation.metrics.synthetic:exact_match`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from panollava.data.synthetic.captions import DESCRIBE_QUERY, places_and_things


def exact_match(
    predictions: Sequence[str], references: Sequence[Sequence[str]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Share of predictions that equal one of their references once white space is collapsed."""
    pairs = zip(predictions, references, strict=True)
    hits = [float(_collapsed(one) in {_collapsed(other) for other in several}) for one, several in pairs]
    return {"value": sum(hits) / _positive(len(hits), "no predictions to score"), "scale": "0-1", "samples": hits}


def place_thing_f1(
    predictions: Sequence[str], references: Sequence[Sequence[str]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """F1 of the (place, thing) pairs that descriptions name, pooled over the descriptions of all scenes.

    Only rows whose query asks for a description count. Their references name the same pairs in other words, so the
    first represents all. Without any there is a reason instead of a value.
    """
    parts = []
    descriptions = 0
    for prediction, several, row in zip(predictions, references, rows, strict=True):
        query = row["original_query"] if "original_query" in row else row["query"]
        if _collapsed(str(query)) != DESCRIBE_QUERY:
            parts.append((0, 0))
            continue
        descriptions += 1
        found = places_and_things(_collapsed(prediction))
        wanted = places_and_things(_collapsed(several[0]))
        parts.append((2 * len(found & wanted), len(found) + len(wanted)))
    if not descriptions:
        return {"value": None, "scale": "0-1", "reason": f"no sample asks {DESCRIBE_QUERY!r}"}
    named = _positive(sum(part[1] for part in parts), "no description names a thing")
    return {"value": sum(part[0] for part in parts) / named, "scale": "0-1", "samples": parts}


def _collapsed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _positive(count: int, otherwise: str) -> int:
    if not count:
        raise ValueError(otherwise)
    return count
