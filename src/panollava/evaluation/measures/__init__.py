"""Scores that need further passes of the model, chosen by `evaluation.extra`. No torch here.

    perplexity.py    perplexity                             how probable the references are
    overlap.py       dino_similarity, overlap_consistency   whether views agree on what both see
    rolled.py        yaw_equivariance, yaw_agreement        whether answers turn with the panorama

What each number means, its range, and what to compare it with: docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Collection

EXTRA_NODES = {
    "perplexity": "measure_perplexity",
    "overlap_consistency": "measure_overlap",
    "dino_similarity": "measure_overlap",
    "yaw_equivariance": "predict_rolled",
    "yaw_agreement": "predict_rolled",
}
"""The node behind each score of `evaluation.extra`; without such a score it is not planned."""


def measures_of(scores: Collection[str]) -> list[str]:
    """The nodes behind the scores of an `evaluation.extra`, sorted."""
    return sorted({EXTRA_NODES[key] for key in scores})
