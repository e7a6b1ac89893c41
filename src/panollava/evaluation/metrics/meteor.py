"""METEOR (Banerjee and Lavie 2005; Lavie and Agarwal 2007) by NLTK: exact, stem and WordNet matches, on PTB tokens.

NLTK asks the stemmer and WordNet for the same words again and again; both are remembered here, which makes it
several times faster and cannot change a match.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import MetricResult, mean, package_version
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet
from panollava.evaluation.metrics.wordnet import load_wordnet


def meteor(texts: TextSet) -> MetricResult:
    """Mean over samples of NLTK's METEOR against the best of the references, 0-1.

    Raises MetricUnavailable without WordNet 3.0 or, for PTB tokens, without Java.
    """
    from nltk.translate.meteor_score import single_meteor_score

    wordnet, stemmer = _tools()
    predictions, references = texts.words()

    @cache
    def score(reference: str, prediction: str) -> float:
        return single_meteor_score(reference.split(), prediction.split(), stemmer=stemmer, wordnet=wordnet)

    best = [
        max(score(reference, prediction) for reference in refs)
        for prediction, refs in zip(predictions, references, strict=True)
    ]
    tokens = PTB if texts.coco_tokens else "tok:split"
    signature = f"alpha:0.9|beta:3.0|gamma:0.5|stem:porter|syn:wordnet-3.0|refs:best|{tokens}"
    return MetricResult(mean(best), "0-1", "nltk", package_version("nltk"), signature, samples=means(best))


@lru_cache(maxsize=1)
def _tools() -> tuple[_RememberedWordNet, _RememberedStemmer]:
    return _RememberedWordNet(load_wordnet()), _RememberedStemmer()


class _RememberedStemmer:
    """NLTK's Porter stemmer, each word once."""

    def __init__(self) -> None:
        from nltk.stem.porter import PorterStemmer

        self.stem = lru_cache(maxsize=None)(PorterStemmer().stem)


class _Lemmas:
    """The part of a WordNet synset that METEOR reads: lemmas with a name."""

    def __init__(self, names: list[str]) -> None:
        self._lemmas = [_Lemma(name) for name in names]

    def lemmas(self) -> list[_Lemma]:
        return self._lemmas


class _Lemma:
    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name


class _RememberedWordNet:
    """WordNet's lemma names of each word, all its synsets in one, each word looked up once."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.synsets = lru_cache(maxsize=None)(self._synsets)

    def _synsets(self, word: str) -> list[_Lemmas]:
        return [_Lemmas(sorted({name for synset in self._reader.synsets(word) for name in synset.lemma_names()}))]
