"""ROUGE-L (Lin 2004): rouge-score's F measure with its stemmer, the best of a sample's references, mean over samples.

Tokens and F are the library's; the longest common subsequence is found bit-parallel (Hyyrö 2004), a machine word of
positions at a time, instead of in a table. rouge-score keeps `[a-z0-9]` only: a caption in another script scores 0,
which the signature says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from panollava.evaluation.metrics.result import MetricResult, mean, package_version
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet, porter_stem, signature


def rouge_l(texts: TextSet) -> MetricResult:
    """Mean over samples of the highest rougeL F between the prediction and one of its references, 0-1."""
    from rouge_score.scoring import fmeasure

    tokens = _tokens()
    best = []
    for prediction, references in zip(texts.predictions, texts.references, strict=True):
        found = tokens(prediction)
        places = positions(found)
        scores = [0.0]
        for reference in references:
            wanted = tokens(reference)
            if found and wanted:
                common = common_subsequence(places, len(found), wanted)
                scores.append(fmeasure(common / len(found), common / len(wanted)))
        best.append(max(scores))
    return MetricResult(
        mean(best), "0-1", "rouge-score", package_version("rouge-score"),
        signature(texts, "rouge-score", "tok:rouge-score", type="rougeL", measure="f", stem="porter", chars="a-z0-9",
                  refs="best"),
        samples=means(best),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _tokens() -> Callable[[str], list[str]]:
    """rouge-score's tokens with its stemmer, each word between blanks once: it parts words there for good."""
    from rouge_score.tokenize import tokenize

    class Stemmer:
        stem = staticmethod(porter_stem())

    known: dict[str, list[str]] = {}

    def tokens(text: str) -> list[str]:
        found: list[str] = []
        for word in text.split():
            if (parts := known.get(word)) is None:
                parts = known[word] = tokenize(word, Stemmer)
            found += parts
        return found

    return tokens


def positions(tokens: Sequence[str]) -> dict[str, int]:
    """Of each token the bits of its positions in a text."""
    bits: dict[str, int] = {}
    for index, token in enumerate(tokens):
        bits[token] = bits.get(token, 0) | 1 << index
    return bits


def common_subsequence(bits: dict[str, int], length: int, other: Sequence[str]) -> int:
    """Length of the longest common subsequence of a text, given by its `positions` and `length`, and another."""
    row = whole = (1 << length) - 1
    for token in other:
        matches = row & bits.get(token, 0)
        row = (row + matches | row - matches) & whole
    return length - row.bit_count()
