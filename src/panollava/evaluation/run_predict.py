"""From a checkpoint and a prepared CSV to predictions.csv: the job behind the rules `predict`, `predict_blind` and
`predict_text_only`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from panollava.checkpoints.chosen import load_chosen_stage
from panollava.checkpoints.loading import LoadedStage
from panollava.data.prepared_images import told_of_pictures, views_of_csv
from panollava.data.samples import Sample, last_turns, read_samples
from panollava.devices import first_device
from panollava.evaluation.predict import GenerationSettings, kept_answers, predict, shuffled_options, shuffled_pictures
from panollava.evaluation.predictions import write_predictions
from panollava.files import digest_of, sha256_file
from panollava.logs import LOGGER
from panollava.models.panorama_model import PanoramaModel
from panollava.versions import package_versions


def generation_settings(config: dict[str, Any]) -> GenerationSettings:
    """From a configuration (or slice) with the sections `generation` and `training`."""
    generation = config["generation"]
    return GenerationSettings(
        max_new_tokens=generation["max_new_tokens"],
        do_sample=generation["do_sample"],
        temperature=generation["temperature"],
        top_p=generation["top_p"],
        batch_size=config["training"]["eval_batch_size"],
        seed=config["training"]["seed"],
    )


def load_chosen(config: dict[str, Any], checkpoint: dict[str, Any], csv_path: Path) -> tuple[LoadedStage, list[Sample]]:
    """The stage that checkpoint.json names, and the samples of a prepared CSV; torch gets the configured threads."""
    torch.set_num_threads(config["training"]["cpu_threads"])
    loaded = load_chosen_stage(checkpoint)
    return loaded, as_shown(read_samples(csv_path), config.get("evaluation", {}), config["training"]["seed"])


def as_shown(samples: list[Sample], evaluation: dict[str, Any], seed: int) -> list[Sample]:
    """The samples that `evaluation.turns` has asked, with their options in the order that `evaluation.shuffle_options`
    has them shown in."""
    if evaluation.get("turns", "last") == "last":
        samples = last_turns(samples)
    return shuffled_options(samples, seed) if evaluation.get("shuffle_options", False) else samples


def predict_csv(
    config: dict[str, Any],
    digest: str,
    checkpoint: dict[str, Any],
    csv_path: Path,
    views: Path,
    output: Path,
    state: Path,
    blind: bool = False,
    text_only: bool = False,
) -> dict[str, Any]:
    """Predict every (image, query) of `csv_path` from the cached `views`.

    `blind` shows each sample another picture, `text_only` none.

    `config` are the node's settings, `digest` is its slice's.
    Returns what metrics.json tells about how the answers were made (`made_with`). Answers of finished batches are kept
    in `state` until the output is written, so that a killed job goes on.
    """
    loaded, samples = load_chosen(config, checkpoint, csv_path)
    settings, csv_sha256 = generation_settings(config), sha256_file(csv_path)
    pictures = views_of_csv(views, csv_path)
    stand_ins = shuffled_pictures(samples, settings.seed, pictures.sha256) if blind else None
    told = {
        "csv": {"path": str(csv_path), "sha256": csv_sha256},
        "pictures": told_of_pictures(pictures.sha256, (sample.image_path for sample in samples)),
        **made_with(loaded.model, settings),
    }
    if blind and stand_ins is None:
        LOGGER.warning("%s holds one picture only: there is nothing to shuffle, so no blind control", csv_path)
        write_predictions(output, [])
        return told
    key = digest_of({"slice": digest, "checkpoint": checkpoint["sha256"], "csv": csv_sha256})
    with kept_answers(state, key) as kept:
        predictions = predict(
            loaded.model, loaded.processor, samples, pictures, settings,
            device=first_device(), stand_ins=stand_ins, finished=kept("answers"),
            by_picture=loaded.model.shares_prefix, text_only=text_only,
        )  # fmt: skip
        write_predictions(output, predictions)
    failed = sum(bool(p.error) for p in predictions)
    LOGGER.info("%d predictions, %d failed: %s", len(predictions), failed, output)
    return told


def made_with(model: PanoramaModel, settings: GenerationSettings) -> dict[str, Any]:
    """What an answer depends on beside weights and questions: settings, seed, device, dtype, versions of libraries."""
    generation = asdict(settings)
    return {
        "seed": generation.pop("seed"),
        "device": _device_name(first_device()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "generation": generation,
        "predicted_with": package_versions(),
    }


def _device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
