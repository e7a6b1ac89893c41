"""What a stage trains with, built from its job: model, data and module, the same in each of its processes.

Enters: a `StageJob`. Leaves: `StageParts`. What makes training faster or smaller without changing what it learns is
decided here and logged: cached features, batches of like lengths, gradient checkpointing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from panollava.data.datamodule import StageDataModule
from panollava.data.dataset import CaptionDataset, Collator
from panollava.data.lengths import padded_share, row_lengths
from panollava.data.loader import SeededBatches
from panollava.data.samples import read_rows
from panollava.logs import LOGGER
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.training.activations import choose_checkpointing
from panollava.training.checkpointing import load_weights
from panollava.training.features import bytes_per_image, cached_features, feature_dtype, wants_features
from panollava.training.job import (
    Devices,
    StageJob,
    check_prompt,
    devices_of,
    first_device,
    language_dtype,
    model_config_of,
)
from panollava.training.module import StageModule
from panollava.training.stages import freeze_for_stage, stage_table_text
from panollava.views.cache import ViewCache

WORTH_SORTING = 0.1
"""The share of all positions that batches of like length must save before `length_bucketing: auto` takes them."""


@dataclass(frozen=True)
class StageParts:
    """What a stage trains with."""

    devices: Devices
    model: PanoramaVLM
    processor: PanoramaProcessor
    data: StageDataModule
    module: StageModule
    total_steps: int


def build_stage(job: StageJob) -> StageParts:
    """Everything that `job` needs to train. Computes the frozen encoder's features where they are not cached yet."""
    config, settings = job.config, job.settings
    training = config["training"]
    torch.set_num_threads(training["cpu_threads"])
    L.seed_everything(training["seed"], verbose=False)
    devices = devices_of(training)
    train_views, val_views = ViewCache.open(job.train_views), ViewCache.open(job.val_views)
    train_rows, val_rows = read_rows(job.train_csv), read_rows(job.val_csv)

    model_config = model_config_of(job, train_views.image_size)
    check_prompt(job, model_config)
    model = PanoramaVLM(model_config, with_language=job.stage != "vision", dtype=language_dtype(training["precision"]))
    if job.init_weights is not None:
        # The projector serves the vision stage's loss alone.
        model.load_trained(load_weights(job.init_weights)[1], without=("vicreg_projector",))
    blocks = settings["vision_trainable_blocks"]
    counts = freeze_for_stage(model, job.stage, blocks)
    for line in stage_table_text(job.stage, counts).splitlines():
        LOGGER.info(line)
    if job.stage == "vision":
        LOGGER.info("overlap loss: %s", model.vision_loss().describe())

    processor = PanoramaProcessor.for_model(model_config, model.vision)
    pictures: list[Any] = [train_views, val_views]
    needed = (len(train_views) + len(val_views)) * bytes_per_image(model, devices.precision)
    features = wants_features(training["cache_vision_features"], blocks, needed, job.cache)
    if features:
        pictures = [
            cached_features(
                model, processor, views, folder.name, job.cache, device=first_device(), precision=devices.precision
            )
            for views, folder in zip(pictures, (job.train_views, job.val_views), strict=True)
        ]
    lengths = None if model.prompt is None else row_lengths(model.prompt, train_rows, settings["max_text_length"])
    choose_checkpointing(
        model,
        job.untracked.get("gradient_checkpointing", False),
        panoramas=-(-settings["batch_size"] // devices.processes),
        positions=0 if lengths is None else int(lengths.max()),
        precision=devices.precision,
    )
    data = StageDataModule(
        CaptionDataset(train_rows, pictures[0]),
        CaptionDataset(val_rows, pictures[1]),
        Collator(processor, model.prompt if job.stage != "vision" else None, settings["max_text_length"], features),
        batch_size=settings["batch_size"],
        num_workers=job.untracked.get("num_workers", 0),
        seed=training["seed"],
        lengths=None if lengths is None else _worth_sorting(job, lengths),
    )
    batches_per_epoch = -(-len(train_rows) // settings["batch_size"])
    total_steps = settings["epochs"] * -(-batches_per_epoch // settings["accumulate_grad_batches"])
    module = StageModule(
        model, job.stage, kept=set(model.trained_state_dict()), total_steps=total_steps,
        frozen_features=None if blocks else feature_dtype(devices.precision),
        **{key: settings[key] for key in ("optimizer", "lr", "muon_lr", "weight_decay", "warmup_ratio")},
    )  # fmt: skip
    return StageParts(devices, model, processor, data, module, total_steps)


def _worth_sorting(job: StageJob, lengths: NDArray[np.int32]) -> NDArray[np.int32] | None:
    """The lengths, where `training.length_bucketing` wants batches of rows of like length."""
    choice, training = job.config["training"]["length_bucketing"], job.config["training"]
    if choice is False:
        return None
    settings = {"batch_size": job.settings["batch_size"], "seed": training["seed"], "shuffle": True}
    mixed, alike = (
        padded_share(SeededBatches(len(lengths), lengths=given, **settings).batches(), lengths)
        for given in (None, lengths)
    )
    sorts = choice is True or (1 - mixed) <= (1 - WORTH_SORTING) * (1 - alike)
    LOGGER.info(
        "padding: %.1f %% of all positions in mixed batches, %.1f %% in batches of like length: %s",
        100 * mixed, 100 * alike, "like lengths" if sorts else "mixed",
    )  # fmt: skip
    return lengths if sorts else None
