"""METEOR (Banerjee and Lavie 2005; Lavie and Agarwal 2007) as NLTK computes it, on PTB tokens.

Words are matched exactly, then by Porter's stem, then by WordNet's synonyms of the stem, each time from the end of both
texts, as NLTK does. Its stemmer and its WordNet are asked for each word once, and what each text needs is prepared
once, which makes it several times faster and cannot change a match.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise

from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import MetricResult, mean, package_version
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet, porter_stem, signature
from panollava.evaluation.metrics.wordnet import load_wordnet, synonyms_of

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5
Words = tuple[list[str], list[str]]
"""A text's words in lower case, and their stems."""


def meteor(texts: TextSet) -> MetricResult:
    """Mean over samples of NLTK's METEOR against the best of the references, 0-1.

    Raises MetricUnavailable without WordNet 3.0 or, for PTB tokens, without Java.
    """
    synonyms, stem = _synonyms(), porter_stem()
    predictions, references = texts.words()

    def prepared(text: str) -> Words:
        words = text.lower().split()
        return words, [stem(word) for word in words]

    best = []
    for prediction, refs in zip(predictions, references, strict=True):
        hypothesis = prepared(prediction)
        best.append(max(meteor_score(prepared(reference), hypothesis, synonyms) for reference in refs))
    told = signature(
        texts, "nltk", PTB if texts.coco_tokens else "tok:split", case="lc", alpha=ALPHA, beta=BETA, gamma=GAMMA,
        stem="porter", syn="wordnet-3.0", refs="best",
    )  # fmt: skip
    return MetricResult(mean(best), "0-1", "nltk", package_version("nltk"), told, samples=means(best))


def meteor_score(reference: Words, hypothesis: Words, synonyms: Callable[[str], frozenset[str]]) -> float:
    """NLTK's METEOR of one pair, 0-1. `synonyms` are the words that WordNet lists beside one."""
    matches = align(reference, hypothesis, synonyms)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(hypothesis[0]), len(matches) / len(reference[0])
    mean_f = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    # A chunk is a run of matches that are neighbours in both texts.
    chunks = 1 + sum(b[0] != a[0] + 1 or b[1] != a[1] + 1 for a, b in pairwise(matches))
    return (1 - GAMMA * (chunks / len(matches)) ** BETA) * mean_f


def align(reference: Words, hypothesis: Words, synonyms: Callable[[str], frozenset[str]]) -> list[tuple[int, int]]:
    """Pairs (place in the hypothesis, place in the reference) of matched words, in the hypothesis's order."""
    matches: list[tuple[int, int]] = []
    left, wanted = list(range(len(hypothesis[0]))), list(range(len(reference[0])))
    for ours, theirs in ((hypothesis[0], reference[0]), (hypothesis[1], reference[1])):
        places = _places(theirs, wanted)
        rest = []
        for i in reversed(left):
            if stack := places.get(ours[i]):
                matches.append((i, stack.pop()))
            else:
                rest.append(i)
        left = rest[::-1]
        wanted = sorted(j for stack in places.values() for j in stack)
    places = _places(reference[1], wanted)
    for i in reversed(left if wanted else ()):
        stacks = [stack for word in synonyms(hypothesis[1][i]).intersection(places) if (stack := places[word])]
        if stacks:
            matches.append((i, max(stacks, key=lambda stack: stack[-1]).pop()))
    return sorted(matches)


def _places(words: Sequence[str], indexes: Sequence[int]) -> Mapping[str, list[int]]:
    """Of each word the given indexes at which it stands, rising."""
    places: dict[str, list[int]] = {}
    for index in indexes:
        places.setdefault(words[index], []).append(index)
    return places


@lru_cache(maxsize=1)
def _synonyms() -> Callable[[str], frozenset[str]]:
    """WordNet's synonyms that are single words, and the word itself."""
    of_wordnet = synonyms_of(load_wordnet())

    @cache
    def synonyms(word: str) -> frozenset[str]:
        return frozenset({word, *(name for name in of_wordnet(word) if "_" not in name)})

    return synonyms
