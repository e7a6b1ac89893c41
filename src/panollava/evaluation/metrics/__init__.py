"""The five text metrics by their key in metrics.json, in the order of the console table."""

from __future__ import annotations

from collections.abc import Callable

from panollava.evaluation.metrics.bleu import bleu4
from panollava.evaluation.metrics.cider import cider
from panollava.evaluation.metrics.meteor import meteor
from panollava.evaluation.metrics.result import MetricResult, MetricUnavailable
from panollava.evaluation.metrics.rouge import rouge_l
from panollava.evaluation.metrics.spice import spice
from panollava.evaluation.metrics.texts import TextSet

Metric = Callable[..., MetricResult]
"""Takes a TextSet, and options of its own by their name."""

METRICS: dict[str, Metric] = {
    "bleu4": bleu4,
    "meteor": meteor,
    "rouge_l": rouge_l,
    "spice": spice,
    "cider": cider,
}
LABELS = {"bleu4": "BLEU-4", "meteor": "METEOR", "rouge_l": "ROUGE-L", "spice": "SPICE", "cider": "CIDEr"}
# What a metric that could not run says about itself: scale, library and the library's distribution.
FACTS = {
    "bleu4": ("0-1", "sacrebleu", "sacrebleu"),
    "meteor": ("0-1", "nltk", "nltk"),
    "rouge_l": ("0-1", "rouge-score", "rouge-score"),
    "spice": ("0-1", "pycocoevalcap", "pycocoevalcap"),
    "cider": ("0-10", "pycocoevalcap", "pycocoevalcap"),
}

__all__ = ["FACTS", "LABELS", "METRICS", "Metric", "MetricResult", "MetricUnavailable", "TextSet"]
