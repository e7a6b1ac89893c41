"""What a metric returns: a number with its scale and its origin, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from panollava.versions import package_version

if TYPE_CHECKING:
    from panollava.evaluation.metrics.sums import SampleSums


@dataclass(frozen=True)
class MetricResult:
    """One score of metrics.json.

    `value` is None exactly when the metric could not run; `reason` then says why and what to do. `scale`
    gives the range ("0-1"), `signature` the choices that change the number (tokens, smoothing, references). `samples`
    is the metric as sums over its samples, in their order, from which intervals and tests are made; None where it is
    not one.
    """

    value: float | None
    scale: str
    library: str
    version: str | None
    signature: str | None = None
    reason: str | None = None
    interval: tuple[float, float] | None = None
    samples: SampleSums | None = field(default=None, repr=False, compare=False)
    lower_is_better: bool = False

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "value": self.value,
            "scale": self.scale,
            "library": self.library,
            "version": self.version,
            "signature": self.signature,
            "reason": self.reason,
        }
        if self.interval is not None:
            document["interval"] = list(self.interval)
        if self.lower_is_better:
            document["lower_is_better"] = True
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> MetricResult:
        """The inverse of `to_json`."""
        interval = document.get("interval")
        fields = {**document, "interval": None if interval is None else (interval[0], interval[1])}
        return cls(**{**fields, "lower_is_better": lower_is_better(document)})


@dataclass(frozen=True)
class Metric:
    """A standard metric: its key in metrics.json, what tables show of it, and the function that computes it."""

    name: str
    label: str
    scale: str
    library: str
    """The distribution that computes it."""
    compute: Callable[..., MetricResult]
    """Takes a TextSet, and options of its own by their name."""
    java: Literal["not", "for tokens", "always"] = "not"
    """Whether it needs Java: for its PTB tokens alone, or under every protocol."""
    lower_is_better: bool = False

    def result(
        self, value: float, signature: str, samples: SampleSums | None, library: str | None = None
    ) -> MetricResult:
        """Its score. `library` is another than its own, where a protocol asks for that."""
        used = library or self.library
        return MetricResult(
            value, self.scale, used, package_version(used), signature,
            samples=samples, lower_is_better=self.lower_is_better,
        )  # fmt: skip

    def without_value(self, reason: str) -> MetricResult:
        """It cannot run; `reason` says why and what to do."""
        return MetricResult(
            None, self.scale, self.library, package_version(self.library),
            reason=" ".join(reason.split()), lower_is_better=self.lower_is_better,
        )  # fmt: skip


def lower_is_better(document: Mapping[str, Any]) -> bool:
    """Which way a score of metrics.json is good. Earlier versions, and custom metrics, say it in the `scale`."""
    recorded = document.get("lower_is_better")
    return "lower is better" in str(document.get("scale")) if recorded is None else bool(recorded)


def arrow(lower: bool) -> str:
    """The direction in which a score is better, for tables."""
    return "↓" if lower else "↑"


class MetricUnavailable(Exception):
    """A metric cannot run here; the message becomes its `reason` and ends with the remedy."""


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean, summed exactly, so that the order of the samples cannot change it."""
    return math.fsum(values) / len(values)
