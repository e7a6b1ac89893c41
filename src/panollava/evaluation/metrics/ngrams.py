"""n-grams of many texts at once: the counts that corpus BLEU adds up, and numbers for every n-gram.

Texts enter; arrays leave. Words become numbers once, n-grams of n words are pairs of an n-gram of n - 1 words and a
word, and everything is counted by sorting. No list is kept for each text, which Python's garbage collector would visit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from panollava.evaluation.metrics.sums import Array

Numbers = NDArray[np.int64]
ORDERS = 4


@dataclass(frozen=True)
class FlatTexts:
    """All words of several texts in a row. `owner` [texts] is the sample that a text belongs to."""

    vocabulary: int
    words: Numbers  # [all words], as numbers below `vocabulary`
    text: Numbers  # [all words], the text that each stands in
    left: Numbers  # [all words], how many words of its text begin here, itself included
    owner: Numbers
    lengths: Numbers  # [texts], words of each


def flatten(
    predictions: Sequence[str], references: Sequence[Sequence[str]], tokenize: Callable[[str], list[str]]
) -> tuple[FlatTexts, FlatTexts]:
    """The predictions [n] and, text by text, the references of each [n][...]; equal words have equal numbers.

    `tokenize` is asked for each word between blanks once: its tokens must not depend on their neighbours.
    """
    numbers: dict[str, int] = {}
    known: dict[str, tuple[int, ...]] = {}

    def of(texts: Iterable[str], owner: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
        words: list[int] = []
        ends = [0]
        for text in texts:
            for word in text.split():
                if (tokens := known.get(word)) is None:
                    tokens = known[word] = tuple(numbers.setdefault(part, len(numbers)) for part in tokenize(word))
                words += tokens
            ends.append(len(words))
        lengths = np.diff(ends)
        begins = np.repeat(ends[:-1], lengths)
        left = np.repeat(lengths, lengths) - (np.arange(len(words)) - begins)
        return np.array(words, dtype=np.int64), np.repeat(np.arange(len(lengths)), lengths), left, owner, lengths

    ours = of(predictions, np.arange(len(predictions)))
    theirs = of(chain.from_iterable(references), np.repeat(np.arange(len(references)), [len(r) for r in references]))
    return FlatTexts(len(numbers), *ours), FlatTexts(len(numbers), *theirs)


def bleu_counts(
    predictions: Sequence[str], references: Sequence[Sequence[str]], tokenize: Callable[[str], list[str]]
) -> Array:
    """What corpus BLEU adds up over samples, [n, 10]; `tokenize` as in `flatten`.

    Length of the prediction, of the reference that is closest in length (the shorter of two), 4 counts of matching
    n-grams, each clipped to the reference that holds it most often, and 4 counts of all n-grams.
    """
    ours, theirs = flatten(predictions, references, tokenize)
    counts = np.zeros((len(predictions), 2 + 2 * ORDERS))
    counts[:, 0] = ours.lengths
    longest = 1 + theirs.lengths.max()
    closeness = abs(theirs.lengths - ours.lengths[theirs.owner]) * longest + theirs.lengths
    first_reference = np.searchsorted(theirs.owner, np.arange(len(predictions)))
    counts[:, 1] = np.minimum.reduceat(closeness, first_reference) % longest
    # The sample stands for the empty n-gram, so that only n-grams of the same sample ever meet.
    ours_at, theirs_at = ours.owner[ours.text], theirs.owner[theirs.text]
    for order in range(ORDERS):
        ours_at, theirs_at = (
            np.where((at >= 0) & (flat.left > order), at * flat.vocabulary + _ahead(flat.words, order), -1)
            for at, flat in ((ours_at, ours), (theirs_at, theirs))
        )
        there = ours_at >= 0
        known, first, ours_at[there], wanted = np.unique(
            ours_at[there], return_index=True, return_inverse=True, return_counts=True
        )
        theirs_at = place(theirs_at, known)
        pairs, often = np.unique((theirs.text * max(len(known), 1) + theirs_at)[theirs_at >= 0], return_counts=True)
        most = np.zeros(len(known), dtype=np.int64)
        np.maximum.at(most, pairs % max(len(known), 1), often)
        sample = ours.text[there][first]
        counts[:, 2 + order] = np.bincount(sample, np.minimum(wanted, most), minlength=len(predictions))
        counts[:, 2 + ORDERS + order] = np.maximum(ours.lengths - order, 0)
    return counts


def successors(
    ours: FlatTexts, ours_at: Numbers, theirs: FlatTexts, theirs_at: Numbers, order: int
) -> tuple[Numbers, Numbers]:
    """From the n-gram that begins at each word, as numbers, to the one that is a word longer; -1 where none is left.

    Equal n-grams of both sides have equal numbers. `order` is the present length.
    """
    longer = [
        np.where(flat.left > order, at * flat.vocabulary + _ahead(flat.words, order), -1)
        for at, flat in ((ours_at, ours), (theirs_at, theirs))
    ]
    both = np.concatenate(longer)
    there = both >= 0
    _, both[there] = np.unique(both[there], return_inverse=True)
    return both[: len(ours_at)], both[len(ours_at) :]


def _ahead(words: Numbers, steps: int) -> Numbers:
    """The word that stands `steps` further on; what lies beyond the end is never read."""
    return np.concatenate([words[steps:], np.zeros(min(steps, len(words)), dtype=np.int64)])


def place(values: Numbers, known: Numbers) -> Numbers:
    """The index of each value in the sorted `known`, -1 where it is not there."""
    if not len(known):
        return np.full(len(values), -1)
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.where(known[at] == values, at, -1)
