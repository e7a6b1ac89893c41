"""Scores that need further passes of the model, chosen by `evaluation.extra`. No torch here.

    perplexity.py    perplexity                             how probable the references are
    overlap.py       dino_similarity, overlap_consistency   whether views agree on what both see
    rolled.py        yaw_equivariance, yaw_agreement        whether answers turn with the panorama

What each number means, its range, and what to compare it with: docs/evaluation.md. The nodes that measure them:
`config.slices.EXTRA_NODES`.
"""
