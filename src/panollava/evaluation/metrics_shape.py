"""metrics.json as it comes from a disk or a stranger: what `eval --verify` and `compare` read of it has its shape.

There is one complaint per key, and none where all is well. Whether the values are true is another
question (`verify`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from panollava.settings.section import Recorded
from panollava.settings.wording import shown

_MOST_DRAWS = 100_000  # as `evaluation.bootstrap_samples`
_SHOWN = 3


# A file beside metrics.json: no path that leads away from it.
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class _Score(Recorded):
    value: float | None
    scale: str | None
    library: str | None
    version: str | None
    signature: str | None
    reason: str | None
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    lower_is_better: bool | None = None


class _Controls(Recorded):
    blind: dict[str, float | None] | None
    distance_interval: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] | None = None
    text_only: dict[str, float | None] | None = None


class _Intervals(Recorded):
    draws: int = Field(default=0, ge=0, le=_MOST_DRAWS)


class _Csv(Recorded):
    path: str
    sha256: str | None = None
    max_samples: int | None = None


class _Source(Recorded):
    path: str = ""
    sha256: str | None = None
    images: str | None = None


class _PictureDigests(Recorded):
    by_path: str
    by_content: str


class _Inputs(Recorded):
    csvs: list[_Source] = Field(default_factory=list)


class _Checkpoint(Recorded):
    folder: str | None  # both None: a native model that no stage has trained
    file: str | None
    sha256: str | None = None
    config_digest: str | None = None

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.folder is None) != (self.file is None):
            raise ValueError("folder and file are given together, or neither is")
        return self


class _Evaluation(Recorded):
    number_tolerance: float = Field(default=0.1, ge=0)
    angle_tolerance_deg: float = Field(default=22.5, ge=0)


class _Provenance(Recorded):
    csv: _Csv | None = None
    inputs: _Inputs | None = None
    pictures: _PictureDigests | None = None
    checkpoint: _Checkpoint | None = None
    generation: dict[str, Any] | None = None
    predictions: str | None = None
    predictions_blind: str | None = None
    predictions_text_only: str | None = None
    evaluation: _Evaluation | None = None
    measures: dict[_FileName, str] | None = None
    versions: dict[str, str | None] | None = None


class _Document(Recorded):
    metrics: dict[str, _Score]
    protocol: Literal["grouped", "per-annotation", "original"]
    controls: _Controls
    intervals: _Intervals | None = None
    provenance: _Provenance


def complaints(document: Any) -> list[str]:
    """What is wrong with a metrics.json's document, the first few: `metrics.rouge_l.value: …`."""
    if not isinstance(document, Mapping):
        return [f"it holds {shown(document)}"]
    try:
        _Document.model_validate(document)
    except ValidationError as error:
        messages = [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}"
            + ("" if detail["type"] == "missing" else f", got {shown(detail['input'])}")
            for detail in error.errors(include_url=False)
        ]
        return [*messages[:_SHOWN], *([f"and {len(messages) - _SHOWN} more"] if len(messages) > _SHOWN else [])]
    return []
