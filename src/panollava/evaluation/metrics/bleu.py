"""BLEU-4 of a corpus (Papineni et al. 2002): sacrebleu, or NLTK where the original project's recipe is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from panollava.evaluation.metrics.result import MetricResult, package_version
from panollava.evaluation.metrics.texts import TextSet

SCALE = "0-1"


def bleu4(texts: TextSet) -> MetricResult:
    """sacrebleu's corpus BLEU with its defaults (13a tokens, exponential smoothing), divided by 100."""
    if not texts.coco_tokens:
        return _original(texts)
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    score = metric.corpus_score(list(texts.predictions), reference_streams(texts.references))
    return MetricResult(
        score.score / 100, SCALE, "sacrebleu", package_version("sacrebleu"), str(metric.get_signature())
    )


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Turn references per sample into sacrebleu's streams: stream k holds every sample's k-th reference or None.

    sacrebleu takes lists per sample (the transpose) as well, without a word, and returns a wrong number.
    """
    width = max(len(refs) for refs in references)
    return [[refs[k] if k < len(refs) else None for refs in references] for k in range(width)]


def _original(texts: TextSet) -> MetricResult:
    from nltk.translate.bleu_score import SmoothingFunction, corpus_bleu

    score = corpus_bleu(
        [[ref.split() for ref in refs] for refs in texts.references],
        [prediction.split() for prediction in texts.predictions],
        smoothing_function=SmoothingFunction().method1,
    )
    return MetricResult(float(score), SCALE, "nltk", package_version("nltk"), "tok:split|smooth:method1")
