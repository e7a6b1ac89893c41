"""Build what a stage trains with from its job: model, data and module, the same in each of its processes.

Turns a `StageJob` into `StageParts`. What makes training faster or smaller without changing what it learns is decided
here and logged: cached features, the grouping of rows into batches, gradient checkpointing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch

from panollava.checkpoints.weights import load_weights
from panollava.data.batches import Compose, composition, picture_numbers, positions_read
from panollava.data.datamodule import StageDataModule
from panollava.data.dataset import CaptionDataset, Collator, kept_views
from panollava.data.lengths import TextLimits, report_lengths, row_lengths
from panollava.data.loader import SeededBatches
from panollava.data.prepared_images import leakage, views_of_csv
from panollava.data.samples import Row, one_row_a_panorama, read_rows
from panollava.devices import Devices, devices_of, first_device, language_dtype
from panollava.logs import LOGGER
from panollava.models.build import build_model
from panollava.models.config import ModelConfig
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import STAGE_TABLE, freeze_for_stage, stage_table_text
from panollava.training.activations import choose_checkpointing
from panollava.training.features import bytes_per_image, cached_features, feature_dtype, wants_features
from panollava.training.full_finetune import refuse_without_memory
from panollava.training.job import StageJob, check_prompt, model_config_of
from panollava.training.module import StageModule
from panollava.views.cache import ViewCache


@dataclass(frozen=True)
class StageParts:
    """What a stage trains with."""

    devices: Devices
    model: PanoramaModel
    processor: PanoramaProcessor
    data: StageDataModule
    module: StageModule
    total_steps: int


def build_stage(job: StageJob, leads: bool = True) -> StageParts:
    """Everything that `job` needs to train. Computes the frozen encoder's features where they are not cached yet.

    `leads`: this is the process that checks texts and speaks of them; others need not do it again.
    """
    config, settings = job.config, job.settings
    training = config["training"]
    torch.set_num_threads(training["cpu_threads"])
    L.seed_everything(training["seed"], verbose=False)
    devices = devices_of(training)
    train_views = views_of_csv(job.train_views, job.train_csv)
    val_views = views_of_csv(job.val_views, job.val_csv)
    train_rows, val_rows = read_rows(job.train_csv), read_rows(job.val_csv)
    if STAGE_TABLE[job.stage].samples == "panoramas":
        train_rows, val_rows = one_row_a_panorama(train_rows), one_row_a_panorama(val_rows)

    model_config = model_config_of(job, train_views.image_size)
    if leads:
        if shared := leakage(train_views.sha256, val_views.sha256, ("training", "validation")):
            LOGGER.warning("%s", shared)
        check_prompt(job, model_config)
    model = build_model(model_config, with_language=job.stage != "vision", dtype=language_dtype(training["precision"]))
    if job.init_weights is not None:
        # The projector serves the vision stage's loss alone.
        model.load_trained(load_weights(job.init_weights)[1], without=("vicreg_projector",))
    blocks = 0 if model_config.is_native else settings["vision_trainable_blocks"]
    counts = freeze_for_stage(model, job.stage, blocks)
    for line in stage_table_text(job.stage, counts).splitlines():
        LOGGER.info(line)
    if model_config.full_finetune:
        refuse_without_memory(model)
    if model_config.overlap_loss_weight:
        LOGGER.info("overlap loss beside the answers': %s", model.vision_loss().describe())
    if job.stage == "vision":
        LOGGER.info("overlap loss: %s", model.vision_loss().describe())

    if leads and job.stage != "vision" and model.prompt is not None:
        key = f"training.stage_configs.{job.stage}.max_text_length"
        limits = TextLimits(key, settings["max_text_length"], model.positions, model_config.answering_name)
        report_lengths(model.prompt, {"training rows": train_rows, "validation rows": val_rows}, limits)

    processor = PanoramaProcessor.for_model(model_config)
    pictures: list[Any] = [train_views, val_views]
    needed = (len(train_views) + len(val_views)) * bytes_per_image(model, devices.precision)
    features = wants_features(training["cache_vision_features"], model.encoder_trains, needed, job.cache)
    if features:
        pictures = [
            cached_features(
                model, processor, views, views.digest, job.cache, device=first_device(), precision=devices.precision
            )
            for views in pictures
        ]
    compose, positions = _compose(job, model, train_rows)
    if model_config.is_native or not _share_image_prefix(job):
        choose_checkpointing(
            model,
            job.untracked["gradient_checkpointing"],
            panoramas=-(-settings["batch_size"] // devices.processes),
            positions=-(-positions // devices.processes),
            precision=devices.precision,
        )
    data = StageDataModule(
        CaptionDataset(train_rows, pictures[0]),
        CaptionDataset(val_rows, pictures[1]),
        Collator(
            processor,
            model.prompt if job.stage != "vision" else None,
            settings["max_text_length"],
            features,
            _kept_views(job, model_config, train_views, val_views),
        ),
        batch_size=settings["batch_size"],
        num_workers=job.untracked["num_workers"],
        seed=training["seed"],
        compose=compose,
    )
    batches_per_epoch = -(-len(train_rows) // settings["batch_size"])
    total_steps = settings["epochs"] * -(-batches_per_epoch // settings["accumulate_grad_batches"])
    module = StageModule(
        model, job.stage, kept=set(model.trained_state_dict()), total_steps=total_steps,
        frozen_features=None if model.encoder_trains else feature_dtype(devices.precision),
        share_image_prefix=_share_image_prefix(job),
        **{key: settings[key] for key in ("optimizer", "lr", "muon_lr", "weight_decay", "warmup_ratio")},
    )  # fmt: skip
    return StageParts(devices, model, processor, data, module, total_steps)


def _kept_views(job: StageJob, config: ModelConfig, *caches: ViewCache) -> dict[str, list[bool]]:
    """What the overlap loss compares of partial panoramas; nothing to say where there is none."""
    if job.stage != "vision" and not config.overlap_loss_weight:
        return {}
    least = job.config["image_processing"]["min_coverage"]
    kept = {path: views for cache in caches for path, views in kept_views(cache.coverage, least).items()}
    if kept:
        left_out = sum(len(views) - sum(views) for views in kept.values())
        LOGGER.info("overlap loss: %d views of %d partial panoramas are covered by less than %g and left out",
                    left_out, len(kept), least)  # fmt: skip
    return kept


def _share_image_prefix(job: StageJob) -> bool:
    """Whether training reads a picture once for all its rows in a batch (validation always does)."""
    if job.stage == "vision":
        return False
    native = job.config["models"].get("vlm_name") is not None
    return native or bool(job.config["training"]["batches"] == "group_by_image")


def _compose(job: StageJob, model: PanoramaModel, rows: list[Row]) -> tuple[Compose | None, int]:
    """How batches are made of a shuffled epoch, and the most positions that the language model reads of one.

    In the vision stage it reads none, and batches are cut as they come.
    """
    if model.prompt is None or job.stage == "vision":
        return None, 0
    training, size = job.config["training"], job.settings["batch_size"]
    pictures, lengths = picture_numbers(rows), row_lengths(model.prompt, rows, job.settings["max_text_length"])
    compose = composition(training["batches"], size, pictures, lengths)
    batches = SeededBatches(len(rows), size, seed=training["seed"], shuffle=True, compose=compose).batches()
    shared = pictures if _share_image_prefix(job) else np.arange(len(rows), dtype=np.int32)
    read = positions_read(batches, shared, lengths, model.prompt.picture_end)
    LOGGER.info("batches: %s, %.0f positions each for the language model", training["batches"], np.mean(read))
    return compose, max(read)
