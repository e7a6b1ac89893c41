"""Turn rows of a predictions CSV into what is scored: each prediction with its references.

Returns a `ScoredTexts`. Whatever the protocol, white space is collapsed first, and rows without a reference are dropped
and counted. Numbers of different protocols cannot be compared: several references raise BLEU-4 more than threefold over
one per row on the same predictions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from panollava.config.schema import Protocol
from panollava.errors import EvaluationError, ProtocolError

PROTOCOLS: tuple[str, ...] = get_args(Protocol)
KEY = ("image_path", "original_query")
_FURTHER = ("options", "context_turns")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class ScoredTexts:
    """`predictions[i]` against `references[i]`; `rows[i]` is the row that the prediction came from.

    `num_differing` counts the samples whose rows hold different predictions, of which the first is scored.
    """

    protocol: str
    predictions: list[str]
    references: list[list[str]]
    rows: list[Mapping[str, str]]
    num_errors: int
    num_without_reference: int
    num_differing: int = 0

    @property
    def num_samples(self) -> int:
        return len(self.predictions)

    @property
    def num_references(self) -> int:
        return sum(len(refs) for refs in self.references)

    @property
    def num_empty(self) -> int:
        """Predictions without a character; they stay and count as 0, since leaving them out rewards failure."""
        return sum(not text for text in self.predictions)


def question_of(row: Mapping[str, str]) -> tuple[str, ...]:
    """What a row of a predictions CSV asks of which picture: (image_path, original_query), then options and turns.

    Raises KeyError where it has not the first two.
    """
    return (*(row[name] for name in KEY), *further_of(row))


def further_of(row: Mapping[str, str]) -> tuple[str, ...]:
    """What makes a question another one though image and query are the same; () for most."""
    return tuple(f"{name} {row[name]}" for name in _FURTHER if row.get(name))


def collapse(text: str) -> str:
    """White space of any kind (line breaks, U+2028, no-break spaces) becomes single blanks, none at the ends."""
    return _SPACE.sub(" ", text).strip()


def apply_protocol(rows: Sequence[Mapping[str, str]], protocol: str | None = None) -> ScoredTexts:
    """Arrange rows by `protocol`; None means `grouped` where the columns allow it, else `per-annotation`.

    grouped: each (image_path, original_query) once, its first prediction against all its references.
    per-annotation and original: each row against its own reference.
    Raises EvaluationError for an unknown protocol, `grouped` without its columns, and when no row is left;
    ProtocolError for `grouped` where most samples of several rows have different predictions.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise EvaluationError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}.")
    lacking = [name for name in KEY if rows and name not in rows[0]]
    if protocol == "grouped" and lacking:
        raise EvaluationError(
            f"The grouped protocol needs the columns {', '.join(KEY)}; found: {', '.join(rows[0])}. "
            "Without them a row is scored against its own reference: --protocol per-annotation."
        )
    chosen = protocol or ("per-annotation" if lacking else "grouped")
    kept = [(row, collapse(row["reference"])) for row in rows]
    kept = [(row, reference) for row, reference in kept if reference]
    if not kept:
        raise EvaluationError(f"None of the {len(rows)} rows has a reference: there is nothing to score.")
    if chosen == "grouped":
        grouped: dict[tuple[str, ...], list[tuple[Mapping[str, str], str]]] = {}
        for row, reference in kept:
            grouped.setdefault(question_of(row), []).append((row, reference))
        samples = list(grouped.values())
        differing = _differing(samples)
    else:
        differing = 0
        samples = [[pair] for pair in kept]
    first = [sample[0][0] for sample in samples]
    return ScoredTexts(
        protocol=chosen,
        predictions=[collapse(row["prediction"]) for row in first],
        references=[[reference for _, reference in sample] for sample in samples],
        rows=first,
        num_errors=sum(bool(row.get("error", "").strip()) for row in first),
        num_without_reference=len(rows) - len(kept),
        num_differing=differing,
    )


def _differing(samples: Sequence[Sequence[tuple[Mapping[str, str], str]]]) -> int:
    """How many samples hold different predictions. A model answers a question once, so rows that repeat it as often
    as it has references agree; where most do not, (image, query) does not identify the question, and grouping would
    drop answers. Raises ProtocolError there; a single one among other samples is only counted.
    """
    several = [sample for sample in samples if len(sample) > 1]
    differing = [sample for sample in several if len({collapse(row["prediction"]) for row, _ in sample}) > 1]
    if 2 * len(differing) > len(several) and (len(differing) > 1 or len(samples) == 1):
        row = differing[0][0][0]
        answers = list(dict.fromkeys(collapse(row["prediction"]) for row, _ in differing[0]))
        raise ProtocolError(
            f"protocol grouped: {len(differing):,} of {len(several):,} samples (image, query) of several rows have "
            f"different predictions, and only the first of each would be scored; for instance {row[KEY[0]]}, query "
            f"{row[KEY[1]]!r}: {answers[0]!r} and {answers[1]!r}. Where the rows are answers to different questions, "
            "write full image paths, so that pictures of one name differ; to score each row against its own "
            "reference: --protocol per-annotation"
        )
    return len(differing)
