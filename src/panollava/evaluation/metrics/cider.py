"""CIDEr (Vedantam et al. 2015) as pycocoevalcap computes it: CIDEr-D times 10, on PTB tokens.

Its document frequencies come from the references of the whole set, so a set is never scored in parts, and a
set of one sample always scores 0. All samples are computed at once from numbered n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from panollava.evaluation.metrics.ngrams import ORDERS, FlatTexts, Numbers, flatten, place, successors
from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import MetricResult, MetricUnavailable, package_version
from panollava.evaluation.metrics.sums import Array, means
from panollava.evaluation.metrics.texts import TextSet, signature

SCALE = "0-10"
SIGMA = 6.0


def cider(texts: TextSet) -> MetricResult:
    """Mean CIDEr-D x 10 over samples, 0-10. Raises MetricUnavailable without Java or without any reference word."""
    predictions, references = texts.words()
    if not any(text.split() for refs in references for text in refs):
        raise MetricUnavailable("no reference holds a word after tokenization: CIDEr has no document frequencies")
    scores = cider_scores(predictions, references)
    told = signature(
        texts, "pycocoevalcap", PTB if texts.coco_tokens else "tok:split", case="lc" if texts.coco_tokens else "mixed",
        type="CIDEr-D", n=ORDERS, sigma=SIGMA, refs="mean",
    )  # fmt: skip
    return MetricResult(
        float(np.mean(scores)), SCALE, "pycocoevalcap", package_version("pycocoevalcap"), told, samples=means(scores)
    )  # fmt: skip


def cider_scores(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Array:
    """CIDEr-D x 10 of each sample [n], by the formula of pycocoevalcap's CiderScorer; words stand between blanks."""
    ours, theirs = flatten(predictions, references, lambda word: [word])
    total = len(predictions)
    similarity = np.zeros(len(theirs.owner))
    ours_at, theirs_at = np.zeros_like(ours.words), np.zeros_like(theirs.words)
    for order in range(ORDERS):
        ours_at, theirs_at = successors(ours, ours_at, theirs, theirs_at, order)
        kinds = 1 + max(ours_at.max(initial=0), theirs_at.max(initial=0))
        our_text, our_kind, our_count = _counted(ours, ours_at, kinds)
        their_text, their_kind, their_count = _counted(theirs, theirs_at, kinds)
        their_sample = theirs.owner[their_text]
        documents = np.bincount(np.unique(their_sample * kinds + their_kind) % kinds, minlength=kinds)
        weight = np.log(total) - np.log(np.maximum(1.0, documents))
        our_weight, their_weight = our_count * weight[our_kind], their_count * weight[their_kind]
        our_norm = np.sqrt(np.bincount(our_text, our_weight**2, minlength=total))
        their_norm = np.sqrt(np.bincount(their_text, their_weight**2, minlength=len(theirs.owner)))
        at = place(their_sample * kinds + their_kind, our_text * kinds + our_kind)
        clipped = np.minimum(np.append(our_weight, 0.0)[at], their_weight)  # 0 where the prediction lacks the n-gram
        dots = np.bincount(their_text, clipped * their_weight, minlength=len(theirs.owner))
        norms = our_norm[theirs.owner] * their_norm
        similarity += np.divide(dots, norms, out=np.zeros(len(dots)), where=norms > 0)
    # Lengths are numbers of bigrams there.
    longer = np.maximum(ours.lengths - 1, 0)[theirs.owner] - np.maximum(theirs.lengths - 1, 0)
    similarity *= np.exp(-(longer.astype(np.float64) ** 2) / (2 * SIGMA**2))
    summed = np.bincount(theirs.owner, similarity, minlength=total) / ORDERS
    return summed / np.bincount(theirs.owner, minlength=total) * 10.0


def _counted(texts: FlatTexts, at: Numbers, kinds: int) -> tuple[Numbers, Numbers, Numbers]:
    """Text, n-gram and how often, of each n-gram of each text, rising."""
    there = at >= 0
    pairs, counts = np.unique(texts.text[there] * kinds + at[there], return_counts=True)
    return pairs // kinds, pairs % kinds, counts
