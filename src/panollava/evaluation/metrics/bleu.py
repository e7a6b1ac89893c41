"""BLEU-4 of a corpus (Papineni et al. 2002): sacrebleu, or NLTK where the original project's recipe is asked for.

The library counts each sample's n-grams once; a corpus is the sum of its samples' counts.
"""

from __future__ import annotations

import numpy as np

from panollava.evaluation.metrics.result import Metric, MetricResult
from panollava.evaluation.metrics.sums import ORDERS, SampleSums, nltk_bleu_value, sacrebleu_value
from panollava.evaluation.metrics.texts import TextSet, signature


def bleu4(texts: TextSet) -> MetricResult:
    """sacrebleu's corpus BLEU with its defaults (13a tokens, exponential smoothing), divided by 100.

    Of identical texts that is 1 and a rounding error more, which is cut off.
    """
    if not texts.coco_tokens:
        return _original(texts)
    from sacrebleu.metrics.bleu import BLEU

    counter = BLEU(effective_order=True)  # of single sentences; the counts are the same
    counts = []
    for prediction, references in zip(texts.predictions, texts.references, strict=True):
        found = counter.sentence_score(prediction, references)
        counts.append((found.sys_len, found.ref_len, *found.counts, *found.totals))
    samples = SampleSums(np.array(counts, dtype=np.float64), sacrebleu_value)
    metric = BLEU()
    nrefs = texts.nrefs
    metric.num_refs = int(nrefs) if nrefs.isdigit() else -1
    signed = metric.get_signature()
    signed.update("protocol", texts.protocol)
    return BLEU4.result(samples.total(), str(signed), samples)


BLEU4 = Metric("bleu4", "BLEU-4", "0-1", "sacrebleu", bleu4)


def _original(texts: TextSet) -> MetricResult:
    """NLTK's `corpus_bleu` with method1, on the words of `str.split`."""
    from nltk.translate.bleu_score import closest_ref_length, modified_precision

    counts = []
    for prediction, references in zip(texts.predictions, texts.references, strict=True):
        words, wanted = prediction.split(), [reference.split() for reference in references]
        shares = [modified_precision(wanted, words, order) for order in range(1, ORDERS + 1)]
        counts.append((
            len(words), closest_ref_length(wanted, len(words)),
            *(share.numerator for share in shares), *(share.denominator for share in shares),
        ))  # fmt: skip
    samples = SampleSums(np.array(counts, dtype=np.float64), nltk_bleu_value)
    signed = signature(texts, "nltk", "tok:split", case="mixed", smooth="method1")
    return BLEU4.result(samples.total(), signed, samples, library="nltk")
