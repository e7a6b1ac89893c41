"""Compute the mean of a loss over all its terms, whatever batches they came in.

Combines the batches' means, each weighted by its number of terms (supervised tokens, or panoramas). A plain mean of
batches' means would weigh a token of a batch with short answers more than one of a batch with long ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class LossSum:
    """`total` is the sum of the loss over `terms` terms, in double precision."""

    total: float = 0.0
    terms: int = 0

    def add(self, mean: Tensor | float, terms: int) -> None:
        """Join a batch: the `mean` of its loss over its `terms`."""
        self.total += float(mean) * terms
        self.terms += terms

    def mean(self) -> float:
        """The mean over all terms; NaN where there were none."""
        return self.total / self.terms if self.terms else float("nan")
