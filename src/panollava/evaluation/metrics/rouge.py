"""ROUGE-L (Lin 2004): rouge-score's F measure with its stemmer, the best of a sample's references, mean over samples.

rouge-score keeps `[a-z0-9]` only: a caption in another script scores 0, which the signature says.
"""

from __future__ import annotations

from functools import lru_cache

from panollava.evaluation.metrics.result import Metric, MetricResult, mean
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet, porter_stemmer, signature


def rouge_l(texts: TextSet) -> MetricResult:
    """Mean over samples of the highest rougeL F between the prediction and one of its references, 0-1."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Tokenizer())
    best = [
        scorer.score_multi(references, prediction)["rougeL"].fmeasure
        for prediction, references in zip(texts.predictions, texts.references, strict=True)
    ]
    signed = signature(
        texts, ROUGE_L.library, "tok:rouge-score", type="rougeL", measure="f", stem="porter", chars="a-z0-9",
        refs="best",
    )  # fmt: skip
    return ROUGE_L.result(mean(best), signed, means(best))


ROUGE_L = Metric("rouge_l", "ROUGE-L", "0-1", "rouge-score", rouge_l)


class _Tokenizer:
    """rouge-score's tokens with its stemmer; remembers stems, and the texts of the sample at hand."""

    def __init__(self) -> None:
        from rouge_score.tokenize import tokenize

        stemmer = porter_stemmer()
        self.tokenize = lru_cache(maxsize=64)(lambda text: tokenize(text, stemmer))
