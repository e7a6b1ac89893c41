"""From a checkpoint and a prepared CSV to predictions.csv: the job behind the rules `predict` and `predict_blind`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from panollava.data.samples import read_samples
from panollava.evaluation.predict import FinishedAnswers, GenerationSettings, predict, shuffled_pictures
from panollava.evaluation.predictions import write_predictions
from panollava.files import digest_of, sha256_file
from panollava.logs import LOGGER
from panollava.training.checkpointing import load_stage
from panollava.training.job import first_device
from panollava.training.state_folder import FolderLock
from panollava.views.cache import ViewCache


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


def predict_csv(
    slice_document: dict[str, Any],
    checkpoint: dict[str, Any],
    csv_path: Path,
    views: Path,
    output: Path,
    state: Path,
    blind: bool,
) -> None:
    """Predict every (image, query) of `csv_path` from the cached `views`; `blind` shows each sample another picture.

    Answers of finished batches are kept in `state` until the output is written, so that a killed job goes on.
    """
    config = slice_document["config"]
    torch.set_num_threads(config["training"]["cpu_threads"])
    loaded = load_stage(checkpoint["folder"], epoch=checkpoint["epoch"], root=Path.cwd())
    samples = read_samples(csv_path)
    seed = config["training"]["seed"]
    stand_ins = shuffled_pictures(samples, seed) if blind else None
    if blind and stand_ins is None:
        LOGGER.warning("%s holds one picture only: there is nothing to shuffle, so no blind control", csv_path)
        write_predictions(output, [])
        return
    key = digest_of({"slice": slice_document, "checkpoint": checkpoint["sha256"], "csv": sha256_file(csv_path)})
    with FolderLock(state):
        for old in state.glob("*.jsonl"):
            if old.stem != key:
                old.unlink()
        kept = state / f"{key}.jsonl"
        predictions = predict(
            loaded.model,
            loaded.processor,
            samples,
            ViewCache.open(views),
            generation_settings(config),
            device=first_device(),
            stand_ins=stand_ins,
            finished=FinishedAnswers(kept),
        )
        write_predictions(output, predictions)
        kept.unlink(missing_ok=True)
    failed = sum(bool(p.error) for p in predictions)
    LOGGER.info("%d predictions, %d failed: %s", len(predictions), failed, output)
