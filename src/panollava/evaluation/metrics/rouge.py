"""ROUGE-L (Lin 2004): rouge-score's F measure with its stemmer, the best of a sample's references, mean over samples.

rouge-score keeps `[a-z0-9]` only: a caption in another script scores 0, which the signature says.
"""

from __future__ import annotations

from functools import cache, lru_cache

from panollava.evaluation.metrics.result import MetricResult, mean, package_version
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet

SIGNATURE = "type:rougeL|measure:f|stem:porter|refs:best|chars:a-z0-9"


def rouge_l(texts: TextSet) -> MetricResult:
    """Mean over samples of the highest rougeL F between the prediction and one of its references, 0-1."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    class RememberedTokens:  # a reference meets several predictions, and the blind control meets all again
        tokenize = staticmethod(lru_cache(maxsize=None)(DefaultTokenizer(use_stemmer=True).tokenize))

    scorer = RougeScorer(["rougeL"], tokenizer=RememberedTokens())

    @cache
    def fmeasure(reference: str, prediction: str) -> float:
        return float(scorer.score(reference, prediction)["rougeL"].fmeasure)

    best = [
        max(fmeasure(reference, prediction) for reference in references)
        for prediction, references in zip(texts.predictions, texts.references, strict=True)
    ]
    return MetricResult(
        mean(best), "0-1", "rouge-score", package_version("rouge-score"), SIGNATURE, samples=means(best)
    )
