"""The five text metrics by their key in metrics.json, in the order of the console table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from panollava.evaluation.metrics.bleu import bleu4
from panollava.evaluation.metrics.cider import cider
from panollava.evaluation.metrics.meteor import meteor
from panollava.evaluation.metrics.result import MetricResult, MetricUnavailable
from panollava.evaluation.metrics.rouge import rouge_l
from panollava.evaluation.metrics.spice import spice
from panollava.evaluation.metrics.texts import TextSet


@dataclass(frozen=True)
class Metric:
    """`compute` takes a TextSet, and options of its own by their name. The rest is what tables show, and what a metric
    that cannot run says of itself."""

    compute: Callable[..., MetricResult]
    label: str
    scale: str
    library: str
    """The distribution that computes it."""


METRICS: dict[str, Metric] = {
    "bleu4": Metric(bleu4, "BLEU-4", "0-1", "sacrebleu"),
    "meteor": Metric(meteor, "METEOR", "0-1", "nltk"),
    "rouge_l": Metric(rouge_l, "ROUGE-L", "0-1", "rouge-score"),
    "spice": Metric(spice, "SPICE", "0-1", "pycocoevalcap"),
    "cider": Metric(cider, "CIDEr", "0-10", "pycocoevalcap"),
}
LABELS = {name: metric.label for name, metric in METRICS.items()}

__all__ = ["LABELS", "METRICS", "Metric", "MetricResult", "MetricUnavailable", "TextSet"]
