"""`panollava eval`: from a stage folder alone, or from a predictions CSV, to metrics.json.

Enters: a folder and whatever the user overrides. Leaves: predictions.csv, predictions_blind.csv and metrics.json in the
output folder. What the weights depend on comes from the folder's metadata; settings of generation and evaluation come
from the command line, else from a configuration, else from what the folder remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from panollava.config.schema import EvaluationSettings
from panollava.data.download import ImageCache
from panollava.data.prepare import prepare_csv
from panollava.data.samples import read_samples
from panollava.errors import ConfigError, EvaluationError
from panollava.evaluation.predict import FinishedAnswers, predict, shuffled_pictures
from panollava.evaluation.predictions import Prediction, read_predictions, write_predictions
from panollava.evaluation.run_metrics import score_files
from panollava.evaluation.run_predict import generation_settings
from panollava.files import refuse_overwriting, sha256_file
from panollava.logs import LOGGER
from panollava.models.processor import PanoramaProcessor
from panollava.training.checkpointing import LoadedStage, load_stage
from panollava.training.job import first_device

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

_EVALUATION = EvaluationSettings().model_dump(mode="json")  # of scores alone, and of folders that lack a newer key
_RESULTS = ("metrics.json", "predictions.csv", "predictions_blind.csv")


@dataclass(frozen=True)
class EvalRequest:
    """What a user asks for; None means: as the configuration says, else as the folder remembers."""

    checkpoint_dir: Path
    stage: str | None = None
    csv_input: Path | None = None
    max_samples: int | None = None
    epoch: int | None = None
    step: int | None = None
    batch_size: int | None = None
    protocol: str | None = None
    output_dir: Path | None = None
    log_samples: bool = False
    log_interval: int = 25
    log_max_samples: int = 50
    image_cache: Path = Path("cache/images")


class RenderedPictures:
    """Views rendered when they are asked for: what a cache would hold, byte for byte. Paths start at `root`."""

    def __init__(self, processor: PanoramaProcessor, root: Path) -> None:
        self.processor, self.root = processor, root

    def __getitem__(self, image_path: str) -> np.ndarray:
        return self.processor.open(self.root / image_path)


def settings_of(experiment: WorkflowConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """`settings` and `weights` of `evaluate_folder`, from an experiment."""
    merged = experiment.to_dict()
    settings = {key: merged[key] for key in ("generation", "evaluation", "training", "data")}
    return settings, {key: merged[key] for key in ("models", "image_processing", "system_messages")}


def evaluate_folder(
    request: EvalRequest, settings: dict[str, Any] | None = None, weights: dict[str, Any] | None = None,
    experiment: WorkflowConfig | None = None,
) -> tuple[Path, dict[str, Any]]:  # fmt: skip
    """Predict and score; returns metrics.json's path and document.

    `settings` (sections generation, evaluation, training, data of a configuration) overrides what the folder remembers;
    `weights` (models, image_processing, system_messages) does not, since the weights depend on it: one warning lists
    the keys on which it and the folder disagree. `experiment` stands in for the metadata of a folder without. Raises
    CheckpointError, DataError and EvaluationError with what to do instead.
    """
    loaded = load_stage(
        request.checkpoint_dir, stage=request.stage, epoch=request.epoch, step=request.step, config=experiment
    )
    if loaded.metadata["stage"] == "vision":
        raise EvaluationError(
            f"{request.checkpoint_dir} holds the vision stage, which has no language model to answer with. "
            "Pass the folder of stage resampler or finetune."
        )
    for line in describe(loaded):
        LOGGER.info(line)
    differing = disagreements(weights or {}, loaded.metadata["model_config"])
    if differing:
        LOGGER.warning("the configuration differs from the folder, which counts: %s", "; ".join(differing))
    remembered = {**loaded.metadata["remembered"], **(settings or {})}
    torch.set_num_threads(remembered["training"]["cpu_threads"])
    generation = generation_settings(remembered)
    if request.batch_size is not None:
        generation = replace(generation, batch_size=request.batch_size)
    evaluation: dict[str, Any] = {**_EVALUATION, **remembered["evaluation"]}
    evaluation["protocol"] = request.protocol or evaluation["protocol"]

    csv_path, why = _csv_of(request, loaded)
    LOGGER.info("questions: %s (%s)", csv_path, why)
    output = request.output_dir or Path("results") / loaded.metadata["experiment_name"] / "eval" / csv_path.stem
    _check_output(output, csv_path, ("prepared.csv", "rejected.csv", *_RESULTS))
    # A CSV of the project names its pictures from the project's root, wherever the command runs.
    inside = csv_path.resolve().is_relative_to(loaded.project_root.resolve())
    root = loaded.project_root if inside else Path.cwd()
    prepare_csv(
        [csv_path],
        output / "prepared.csv",
        output / "rejected.csv",
        columns=remembered["data"]["columns"],
        max_rejected_fraction=remembered["data"]["max_rejected_fraction"],
        root=root,
        fetch=ImageCache(request.image_cache),
    )
    samples = read_samples(output / "prepared.csv")
    for name in _RESULTS:
        (output / name).unlink(missing_ok=True)  # what fails from here on must not leave an older result
    if request.max_samples is not None:
        samples = samples[: request.max_samples]

    pictures = RenderedPictures(loaded.processor, root)
    device = first_device()
    stand_ins = shuffled_pictures(samples, generation.seed) if evaluation["blind_control"] else None
    for name, shown in (("predictions", None), ("predictions_blind", stand_ins)):
        if name == "predictions_blind" and shown is None:
            (output / "predictions_blind.csv").unlink(missing_ok=True)
            continue
        predictions = predict(
            loaded.model, loaded.processor, samples, pictures, generation, device=device, stand_ins=shown,
            finished=FinishedAnswers(None), log_every=request.log_interval,
        )  # fmt: skip
        write_predictions(output / f"{name}.csv", predictions)
        if name == "predictions" and request.log_samples:
            _log_samples(predictions[: request.log_max_samples])
    blind = output / "predictions_blind.csv"
    document = score_files(
        output / "predictions.csv",
        blind if stand_ins is not None else None,
        evaluation,
        output / "metrics.json",
        {
            "csv": {"path": str(csv_path), "sha256": sha256_file(csv_path), "chosen_as": why},
            "checkpoint": {
                "folder": str(loaded.checkpoint.folder),
                "file": loaded.checkpoint.path.name,
                "chosen_as": loaded.checkpoint.chosen_as,
                "sha256": sha256_file(loaded.checkpoint.path),
                "config_digest": loaded.metadata["checkpoint_info"]["config_digest"],
            },
        },
    )
    return output / "metrics.json", document


def score_csv(
    predictions: Path, protocol: str | None = None, output_dir: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """Score a CSV that has `prediction` and `reference` columns as it is."""
    output = output_dir or predictions.parent / f"{predictions.stem}_eval"
    _check_output(output, predictions, ("metrics.json",))
    read_predictions(predictions)  # what cannot be read leaves an older result as it is
    (output / "metrics.json").unlink(missing_ok=True)
    evaluation: dict[str, Any] = {**_EVALUATION, "protocol": protocol}
    document = score_files(predictions, None, evaluation, output / "metrics.json", {"csv": {"path": str(predictions)}})
    return output / "metrics.json", document


def _check_output(output: Path, source: Path, names: Sequence[str]) -> None:
    """Refuse to write over the input, or over what the DAG keeps. Raises ConfigError."""
    if (output / "checkpoint.json").is_file():
        raise ConfigError(
            f"{output} holds the results of an experiment, which only the DAG writes: choose another --output-dir"
        )
    refuse_overwriting([output / name for name in names], [source])


def disagreements(weights: dict[str, Any], model_config: dict[str, Any]) -> list[str]:
    """`key: configuration X, folder Y` for each key that the weights depend on and that differs."""
    flat = {**weights.get("models", {}), **weights.get("image_processing", {})}
    for resampler in {"qformer", "perceiver", "bimamba"} - {model_config.get("resampler_type")}:
        flat.pop(resampler, None)  # options of a resampler that the weights do not have
    flat["system_message"] = weights.get("system_messages", {}).get("default")
    size = flat.get("image_size")
    flat["image_size"] = [size, size] if isinstance(size, int) else size
    return [
        f"{key}: configuration {value!r}, folder {model_config[key]!r}"
        for key, value in flat.items()
        if value is not None and key in model_config and value != model_config[key]
    ]


def describe(loaded: LoadedStage) -> list[str]:
    """What was found, before anything is computed."""
    model, metadata = loaded.model.config, loaded.metadata
    return [
        f"folder:         {loaded.checkpoint.folder}",
        f"checkpoint:     {loaded.checkpoint.path.name} ({loaded.checkpoint.chosen_as})",
        f"experiment:     {metadata['experiment_name']}",
        f"stage:          {metadata['stage']}",
        f"vision:         {model.vision_name}",
        f"language model: {model.language_model_name}",
        f"resampler:      {model.resampler_type}",
        f"crop:           {model.crop_strategy}",
        f"LoRA:           {_adapter_text(loaded)}",
    ]


def _adapter_text(loaded: LoadedStage) -> str:
    if not loaded.model.config.use_lora:
        return "none"
    adapter = loaded.checkpoint.folder / "lora_weights"
    return str(adapter) if adapter.is_dir() else f"in {loaded.checkpoint.path.name} ({adapter.name} is not there)"


def _csv_of(request: EvalRequest, loaded: LoadedStage) -> tuple[Path, str]:
    if request.csv_input is not None:
        return request.csv_input, "--csv-input"
    dataset = loaded.metadata["dataset"]
    for key in ("test_csv", "val_csv"):
        configured = dataset.get(key)
        paths = [configured] if isinstance(configured, str) else configured or []
        if len(paths) > 1:
            raise EvaluationError(f"the folder's {key} is a list ({', '.join(paths)}): name one with --csv-input")
        if paths:
            path = Path(paths[0])
            return (path if path.is_absolute() else loaded.project_root / path), f"the folder's {key}"
    raise EvaluationError("the folder names no test or validation CSV: pass --csv-input")


def _log_samples(predictions: list[Prediction]) -> None:
    for item in predictions:
        LOGGER.info("[%d] %s | %s -> %r, expected %r", item.sample_id, item.image_path, item.query, item.text,
                    list(item.references))  # fmt: skip
