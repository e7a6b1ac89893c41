"""CIDEr (Vedantam et al. 2015) by pycocoevalcap: CIDEr-D times 10, on PTB tokens.

Its document frequencies come from the references of the whole set, so a set is never scored in parts, and a
set of one sample always scores 0.
"""

from __future__ import annotations

from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import Metric, MetricResult, MetricUnavailable
from panollava.evaluation.metrics.sums import ORDERS, means
from panollava.evaluation.metrics.texts import TextSet, signature

SIGMA = 6.0


def cider(texts: TextSet) -> MetricResult:
    """Mean CIDEr-D x 10 over samples, 0-10. Raises MetricUnavailable without Java or without any reference word."""
    from pycocoevalcap.cider.cider import Cider

    predictions, references = texts.words()
    if not any(text.split() for refs in references for text in refs):
        raise MetricUnavailable("no reference holds a word after tokenization: CIDEr has no document frequencies")
    score, scores = Cider(n=ORDERS, sigma=SIGMA).compute_score(
        dict(enumerate(references)), {index: [text] for index, text in enumerate(predictions)}
    )
    signed = signature(
        texts, CIDER.library, PTB if texts.coco_tokens else "tok:split", case="lc" if texts.coco_tokens else "mixed",
        type="CIDEr-D", n=ORDERS, sigma=SIGMA, refs="mean",
    )  # fmt: skip
    return CIDER.result(float(score), signed, means(scores))


CIDER = Metric("cider", "CIDEr", "0-10", "pycocoevalcap", cider, java="for tokens")
