"""CIDEr (Vedantam et al. 2015) as pycocoevalcap computes it: CIDEr-D times 10, on PTB tokens.

Its document frequencies come from the references of the whole set, so a set is never scored in parts, and a
set of one sample always scores 0.
"""

from __future__ import annotations

from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import MetricResult, MetricUnavailable, package_version
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet

SCALE = "0-10"


def cider(texts: TextSet) -> MetricResult:
    """Mean CIDEr-D x 10 over samples, 0-10. Raises MetricUnavailable without Java or without any reference word."""
    predictions, references = texts.words()
    if not any(ref.split() for refs in references for ref in refs):
        raise MetricUnavailable("no reference holds a word after tokenization: CIDEr has no document frequencies")
    try:
        from pycocoevalcap.cider.cider import Cider
    except ImportError as error:
        raise MetricUnavailable("pycocoevalcap not installed: pip install pycocoevalcap==1.2") from error

    score, scores = Cider().compute_score(
        dict(enumerate(references)), {index: [text] for index, text in enumerate(predictions)}
    )
    tokens = PTB if texts.coco_tokens else "tok:split"
    signature = f"CIDEr-D|n:4|sigma:6.0|{tokens}"
    return MetricResult(
        float(score), SCALE, "pycocoevalcap", package_version("pycocoevalcap"), signature, samples=means(scores)
    )
