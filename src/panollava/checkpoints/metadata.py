"""Read and validate checkpoint_metadata.json: every field needed to rebuild a model is checked, whatever its source.

Settings that the document lacks are filled in with the current defaults. Whether the model's own settings fit together
is checked when the model is built; `explained` reports it in the same words. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError

from panollava.config.schema import (
    ColumnSettings,
    EvaluationSettings,
    FormatName,
    GenerationSettings,
    Section,
    Settings,
)
from panollava.errors import EXPORT_REMEDY, CheckpointError
from panollava.settings.section import Recorded
from panollava.settings.wording import shown

_TODAY = Settings()
REMEDY = "Restore the file, or remove it and train the stage again."


def _known(section: type[Section]) -> BeforeValidator:
    """Settings that this version does not have (any more) are passed over."""
    return BeforeValidator(
        lambda given: (
            {k: v for k, v in given.items() if k in section.model_fields} if isinstance(given, dict) else given
        )
    )


_Shape = TypeVar("_Shape", bound=Recorded)


class _Data(Recorded):
    columns: Annotated[ColumnSettings, _known(ColumnSettings)] = ColumnSettings()
    format: FormatName = _TODAY.data.format
    max_rejected_fraction: float = Field(default=_TODAY.data.max_rejected_fraction, ge=0, le=1)


class _Training(Recorded):
    eval_batch_size: int = Field(default=_TODAY.training.eval_batch_size, ge=1)
    seed: int = Field(default=_TODAY.training.seed, ge=0)
    cpu_threads: int = Field(default=_TODAY.training.cpu_threads, ge=1)


class _Remembered(Recorded):
    generation: Annotated[GenerationSettings, _known(GenerationSettings)] = GenerationSettings()
    evaluation: Annotated[EvaluationSettings, _known(EvaluationSettings)] = EvaluationSettings()
    data: _Data = _Data()
    training: _Training = _Training()


class _Model(Recorded):
    vision_name: str
    language_model_name: str
    vision_path: str | None = None
    language_path: str | None = None


class _Trained(Recorded):
    precision: str


class _Dataset(Recorded):
    train_csv: str | list[str] | None = None
    val_csv: str | list[str] | None = None
    test_csv: str | list[str] | None = None


class _Made(Recorded):
    config_digest: str | None = None
    project_root: str
    versions: dict[str, str | None] = Field(default_factory=dict)


class _SavedCheckpoint(Recorded):
    file: str
    epoch: int
    step: int | None = None


class _Epochs(Recorded):
    checkpoints: list[_SavedCheckpoint] = Field(default_factory=list)


class _Begun(Recorded):
    """What choosing a checkpoint reads."""

    epoch_info: _Epochs = _Epochs()


class _Whole(_Begun):
    """What rebuilding model, processor and data settings reads."""

    experiment_name: str
    model: _Model = Field(alias="model_config")
    training_config: _Trained
    dataset: _Dataset
    checkpoint_info: _Made
    backbones: dict[str, str | None]
    processor: dict[str, Any]
    remembered: _Remembered


class _Origin(Recorded):
    """What an exported model says of where it comes from; `generation` is all that earlier exports remember."""

    experiment: str | None = None
    stage: str | None = None
    dataset: _Dataset = _Dataset()
    training: dict[str, Any] = Field(default_factory=dict)
    config_digest: str | None = None
    remembered: _Remembered | None = None
    generation: Annotated[GenerationSettings, _known(GenerationSettings)] = GenerationSettings()


def check_checkpoints(path: Path, document: Any) -> None:
    """Raise CheckpointError where the list of checkpoints has not its shape."""
    _validated(path, _Begun, document)


def whole_metadata(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """The document, its `remembered` completed. Raises CheckpointError that names each key and what it holds."""
    found = _validated(path, _Whole, document).remembered.model_dump(mode="json")
    stored = document["remembered"]
    return {
        **document,
        "checkpoint_info": {"config_digest": None, **document["checkpoint_info"]},
        "remembered": {**stored, **{name: {**found[name], **stored.get(name, {})} for name in found}},
    }


def whole_origin(path: Path, document: Mapping[str, Any]) -> dict[str, Any]:
    """`origin` of an exported model with every key that an evaluation reads, `remembered` completed by today's
    defaults. Raises CheckpointError that names each key and what it holds."""
    try:
        found = _Origin.model_validate({key: value for key, value in document.items() if value is not None})
    except ValidationError as error:
        wrong = [f"origin.{_place(d)}: {d['msg']}, got {shown(d['input'])}" for d in error.errors(include_url=False)]
        raise CheckpointError(f"{path}: {'; '.join(wrong)}. {EXPORT_REMEDY}") from error
    remembered = found.remembered or _Remembered(generation=found.generation)
    dataset = {**(document.get("dataset") or {}), **found.dataset.model_dump(mode="json")}
    return {**found.model_dump(mode="json"), "dataset": dataset, "remembered": remembered.model_dump(mode="json")}


@contextmanager
def explained(path: Path, part: str) -> Iterator[None]:
    """Report what a builder raises about values of `part` as a fault of the file."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path}: {part} lacks {error}. {REMEDY}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {part}: {error}. {REMEDY}") from error


def _validated(path: Path, shape: type[_Shape], document: Any) -> _Shape:
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        details = error.errors(include_url=False)
        lacking = [_place(detail) for detail in details if detail["type"] == "missing"]
        wrong = [f"{_place(d)}: {d['msg']}, got {shown(d['input'])}" for d in details if d["type"] != "missing"]
        problems = [*([f"it lacks {', '.join(lacking)}"] if lacking else []), *wrong]
        raise CheckpointError(f"{path}: {'; '.join(problems)}. {REMEDY}") from error


def _place(detail: Mapping[str, Any]) -> str:
    return ".".join(map(str, detail["loc"]))
