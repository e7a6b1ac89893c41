"""SPICE (Anderson et al. 2016): F of scene-graph tuples, by the scorer in pycocoevalcap and Stanford CoreNLP 3.6.0."""

from __future__ import annotations

import os

from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import Metric, MetricResult, mean
from panollava.evaluation.metrics.spice_run import DEFAULT_HEAP, spice_scores
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet, signature


def spice(texts: TextSet, heap: str = DEFAULT_HEAP, also: TextSet | None = None) -> MetricResult:
    """Mean F of scene-graph tuples over samples, 0-1. $PANOLLAVA_SPICE_HEAP, where set, replaces `heap`.

    `also` is a set that is scored next: its captions are parsed in the same go, which spares a start of the parser.
    Raises MetricUnavailable where Java or CoreNLP is missing, EvaluationError when the scorer fails.
    """
    predictions, references = texts.words()
    next_ones = [] if also is None else [text for refs in also.words()[1] for text in refs] + also.words()[0]
    scores = spice_scores(predictions, references, os.environ.get("PANOLLAVA_SPICE_HEAP") or heap, next_ones)
    signed = signature(
        texts, SPICE.library, PTB if texts.coco_tokens else "tok:raw", corenlp="3.6.0", synsets="yes", refs="union"
    )
    return SPICE.result(mean(scores), signed, means(scores))


SPICE = Metric("spice", "SPICE", "0-1", "pycocoevalcap", spice, java="always")
