"""BLEU-4 of a corpus (Papineni et al. 2002): sacrebleu, or NLTK where the original project's recipe is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from panollava.evaluation.metrics.result import MetricResult, package_version
from panollava.evaluation.metrics.sums import SampleSums, nltk_bleu_value, sacrebleu_value
from panollava.evaluation.metrics.texts import TextSet

SCALE = "0-1"


def bleu4(texts: TextSet) -> MetricResult:
    """sacrebleu's corpus BLEU with its defaults (13a tokens, exponential smoothing), divided by 100."""
    if not texts.coco_tokens:
        return _original(texts)
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    # What `corpus_score` adds up and scores, kept here per sample: lengths, matching n-grams, all n-grams.
    parts = metric._extract_corpus_statistics(list(texts.predictions), reference_streams(texts.references))
    score = metric._aggregate_and_compute(parts).score / 100
    return MetricResult(
        score, SCALE, "sacrebleu", package_version("sacrebleu"), str(metric.get_signature()),
        samples=SampleSums(np.asarray(parts, dtype=np.float64), sacrebleu_value),
    )  # fmt: skip


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Turn references per sample into sacrebleu's streams: stream k holds every sample's k-th reference or None.

    sacrebleu takes lists per sample (the transpose) as well, without a word, and returns a wrong number.
    """
    width = max(len(refs) for refs in references)
    return [[refs[k] if k < len(refs) else None for refs in references] for k in range(width)]


def _original(texts: TextSet) -> MetricResult:
    """NLTK's `corpus_bleu` with method1, its sums kept per sample."""
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    parts = []
    for prediction, references in zip(texts.predictions, texts.references, strict=True):
        words, wanted = prediction.split(), [reference.split() for reference in references]
        shares = [modified_precision(wanted, words, n) for n in (1, 2, 3, 4)]
        lengths = [len(words), closest_ref_length(wanted, len(words))]
        parts.append([*lengths, *(share.numerator for share in shares), *(share.denominator for share in shares)])
    samples = SampleSums(np.asarray(parts, dtype=np.float64), nltk_bleu_value)
    return MetricResult(
        samples.total(), SCALE, "nltk", package_version("nltk"), "tok:split|smooth:method1", samples=samples
    )
