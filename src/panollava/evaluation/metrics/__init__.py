"""The standard text metrics by their key in metrics.json, in the order of the console table."""

from __future__ import annotations

from panollava.evaluation.metrics.bleu import BLEU4
from panollava.evaluation.metrics.cider import CIDER
from panollava.evaluation.metrics.meteor import METEOR
from panollava.evaluation.metrics.result import Metric, MetricResult, MetricUnavailable
from panollava.evaluation.metrics.rouge import ROUGE_L
from panollava.evaluation.metrics.spice import SPICE
from panollava.evaluation.metrics.texts import TextSet

METRICS: dict[str, Metric] = {one.name: one for one in (BLEU4, METEOR, ROUGE_L, SPICE, CIDER)}
LABELS = {name: metric.label for name, metric in METRICS.items()}

__all__ = ["LABELS", "METRICS", "Metric", "MetricResult", "MetricUnavailable", "TextSet"]
