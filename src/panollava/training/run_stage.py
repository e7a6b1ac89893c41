"""Run one training stage: the function that the DAG, `train --no-dag` and the API all call.

Takes a `StageJob`, whose `slice` is all of the configuration that the stage reads, and writes the stage folder (SPEC
8). A killed job resumes from its last saved state; a state of another slice or of other inputs is not used.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import shutil
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch

from panollava.checkpoints.folder import METADATA, read_metadata, write_links
from panollava.checkpoints.weights import load_weights, save_weights
from panollava.config.names import checkpoint_name
from panollava.errors import StorageError, TrainingError
from panollava.files import atomic_path, sha256_file, write_json
from panollava.locks import FolderLock
from panollava.logs import LOGGER
from panollava.memory import is_out_of_memory
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import STAGE_TABLE
from panollava.training.backbone_digests import backbone_digests, refuse_other_backbones
from panollava.training.build import StageParts, build_stage
from panollava.training.callbacks import Bars, Checkpoints, History, Interrupted, StepNoise
from panollava.training.curves import plot_loss_curves
from panollava.training.distributed import LocalDDPEnvironment, ddp, other_ranks
from panollava.training.initial_weights import check_initial_weights
from panollava.training.job import StageJob, check_later_language
from panollava.training.loggers import check_loggers, settings_of, training_loggers
from panollava.training.metadata import build_metadata
from panollava.training.state_folder import StateFolder, now


def run_stage(job: StageJob) -> Path:
    """Train the stage (or what is left of it) and return its checkpoint_metadata.json.

    Raises TrainingError for a non-finite loss, too little memory, or an upstream stage of another configuration.
    """
    started, started_at = time.monotonic(), now()
    with FolderLock(job.state_folder):
        for folder in (job.state_folder, job.stage_folder):
            for partial in folder.glob(".*.partial"):
                partial.unlink()  # of a killed start; nobody else is at work here
        state = StateFolder(job.state_folder)
        try:
            backbones = backbone_digests(job)
            fingerprint = {"slice": job.digest, "init": _check_upstream(job, backbones), "backbones": backbones}
            kept = (
                state.belongs_to(fingerprint)
                and not _begins_afresh(job, state)
                and _checkpoints_are_there(state, job.stage_folder)
            )
            if not kept:
                state.clear(fingerprint, job.slice)
                shutil.rmtree(job.stage_folder / "lora_weights", ignore_errors=True)
            before = state.record.get("elapsed_minutes", 0.0)
            state.update_record(
                stage=job.stage, status="running", config_digest=job.digest, error=None, completed_at=None,
                started_at=state.record.get("started_at") or started_at, process=[platform.node(), os.getpid()],
                upstream_checkpoint=str(job.init_weights) if job.init_weights else None,
                artifact_dir=job.stage_folder.as_posix(), forced=job.forced or state.record.get("forced"),
            )  # fmt: skip
            metadata = _train(job, state, backbones)
            elapsed = round(before + (time.monotonic() - started) / 60, 4)
            state.update_record(
                status="completed", completed_at=now(), elapsed_minutes=elapsed, progress=None, process=None,
                best_val_loss=metadata["epoch_info"]["best_val_loss"], epochs=metadata["epoch_info"]["last_epoch"] + 1,
                best_checkpoint=_real_name(job.stage_folder, "best.ckpt"),
                last_checkpoint=_real_name(job.stage_folder, "last.ckpt"),
            )  # fmt: skip
        except (Exception, KeyboardInterrupt) as error:
            status = "pending" if isinstance(error, (Interrupted, KeyboardInterrupt)) else "failed"
            minutes = state.record.get("elapsed_minutes", 0.0) + (time.monotonic() - started) / 60
            with suppress(StorageError):  # on a full disk the first error is the one to report
                state.update_record(status=status, error=str(error), elapsed_minutes=round(minutes, 4), process=None)
            raise
    return job.stage_folder / METADATA


def _real_name(folder: Path, link: str) -> str:
    return (folder / (folder / link).readlink()).as_posix()


def _begins_afresh(job: StageJob, state: StateFolder) -> bool:
    """Whether the command asks for the stage anew. What the same command has begun already goes on: it may have been
    interrupted and started again by a scheduler."""
    return job.forced is not None and state.record.get("forced") != job.forced


def _check_upstream(job: StageJob, backbones: Mapping[str, str | None]) -> str | None:
    """The digest of the initial weights; refuses an upstream stage that another configuration trained, and one of
    other backbones."""
    if job.init_checkpoint is not None:
        return check_initial_weights(job, job.init_checkpoint, backbones)
    if job.init_folder is None:
        return None
    metadata = read_metadata(job.init_folder)
    expected = job.slice["upstream"][f"train_{metadata['stage']}"]
    found = metadata["checkpoint_info"]["config_digest"]
    if found != expected:
        raise TrainingError(
            f"{job.init_folder} was trained with another configuration (digest {found}) than this experiment asks for "
            f"({expected}). Remove {job.init_folder / METADATA} and run the same command again."
        )
    refuse_other_backbones(job, metadata, backbones)
    digest = sha256_file(job.init_folder / "best.ckpt")
    info = metadata["epoch_info"]
    best: dict[str, Any] = next((entry for entry in info["checkpoints"] if entry["epoch"] == info["best_epoch"]), {})
    if best.get("sha256", digest) != digest:
        raise TrainingError(
            f"{job.init_folder / 'best.ckpt'} is not the checkpoint that its stage chose ({best['file']}): it was "
            f"changed or leads elsewhere. Bring that one back, or remove {job.init_folder / METADATA} and run the same "
            "command again, which trains the stage anew."
        )
    return digest


def _checkpoints_are_there(state: StateFolder, folder: Path) -> bool:
    """Whether the weights files of an earlier start are there, and those that it wrote."""
    for entry in state.record.get("checkpoints", []):
        file = folder / entry["file"]
        if not file.is_file() or entry.get("sha256", found := sha256_file(file)) != found:
            LOGGER.warning(
                "%s %s: training starts afresh",
                file,
                "was changed" if file.is_file() else "of an earlier start is gone",
            )
            return False
    return True


def _train(job: StageJob, state: StateFolder, backbones: dict[str, str | None]) -> dict[str, Any]:
    """Rank 0: prepare what the other ranks will find, train with them, complete the folder."""
    check_loggers(job)
    check_later_language(job)
    parts = build_stage(job)
    train_rows, val_rows = len(parts.data.train), len(parts.data.val)  # type: ignore[arg-type]
    epochs = job.settings["epochs"]
    samples = STAGE_TABLE[job.stage].samples
    LOGGER.info(
        "%d training %s, %d validation %s, %d steps an epoch, %d epochs, %d process%s",
        train_rows, samples, val_rows, samples, parts.total_steps // epochs, epochs,
        parts.devices.processes, "es" * (parts.devices.processes > 1),
    )  # fmt: skip
    resumed_from = _resumed_step(state.resume_checkpoint)
    state.update_record(resumed_from_step=resumed_from)
    if resumed_from is not None:
        LOGGER.info("resuming at step %d of %d", resumed_from, parts.total_steps)
    with other_ranks(parts.devices.processes, _train_along, job) as environment:
        checkpoints, global_step = _fit(job, state, parts, environment)
    if len(checkpoints) != epochs:
        raise TrainingError(f"stage {job.stage} ended after {len(checkpoints)} of {epochs} epochs")
    if backbone_digests(job) != backbones:
        raise TrainingError(
            f"a backbone of stage {job.stage} changed while it was trained, so that its weights belong to no backbone. "
            "Run the same command again, which trains it anew."
        )
    rows = (train_rows, val_rows)
    return _finish(job, state, parts.model, parts.processor, checkpoints, global_step, rows, backbones)


def _train_along(environment: LocalDDPEnvironment, job: StageJob) -> None:
    """Any other rank: reads what rank 0 has prepared, and writes nothing."""
    _fit(job, StateFolder(job.state_folder), build_stage(job, leads=False), environment)


def _fit(
    job: StageJob, state: StateFolder, parts: StageParts, environment: LocalDDPEnvironment
) -> tuple[list[dict[str, Any]], int]:
    """Train from the saved state, if there is one, to the end: the checkpoints' entries and the last step."""
    settings, devices, model = job.settings, parts.devices, parts.model

    def write_weights(path: Path, epoch: int, step: int, val_loss: float) -> None:
        header = {"stage": job.stage, "epoch": epoch, "step": step, "val_loss": val_loss, "config_digest": job.digest}
        save_weights(path, model.trained_state_dict(), header)

    checkpoints = Checkpoints(
        state, job.stage_folder,
        every_n_steps=job.untracked["checkpoint_every_n_steps"],
        name_of=partial(checkpoint_name, job.naming["checkpoint_prefix"]),
        write_weights=write_weights,
    )  # fmt: skip
    history = History(state, job.untracked["log_every_n_steps"], parts.total_steps)
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.WARNING)  # its advice to developers
    resume = str(state.resume_checkpoint) if state.resume_checkpoint.is_file() else None
    try:
        with warnings.catch_warnings():
            # Frozen parts run in eval mode on purpose; Slurm's srun starts nothing here (see LocalDDPEnvironment).
            warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode|The `srun` command")
            trainer = L.Trainer(
                accelerator=devices.accelerator,
                devices=devices.processes,
                strategy=ddp() if devices.ddp else "auto",
                precision=devices.precision,  # type: ignore[arg-type]
                max_epochs=settings["epochs"],
                accumulate_grad_batches=settings["accumulate_grad_batches"],
                gradient_clip_val=settings["max_grad_norm"],
                callbacks=[
                    StepNoise(job.config["training"]["seed"]),
                    history,
                    checkpoints,
                    Bars(job.stage, parts.total_steps),
                ],
                logger=_loggers(job) if environment.local_rank() == 0 else False,
                plugins=[environment],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
                log_every_n_steps=job.untracked["log_every_n_steps"],
                default_root_dir=str(job.state_folder),
            )
            trainer.fit(parts.module, datamodule=parts.data, ckpt_path=resume, weights_only=True)
    except SystemExit as error:  # what Lightning makes of a stop request that comes before the first step
        raise Interrupted("stopped before its first step. The same command goes on.") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory in stage {job.stage}: {str(error).splitlines()[0] if str(error) else 'no more memory'}. "
            f"Lower training.stage_configs.{job.stage}.batch_size (now {settings['batch_size']}; raise "
            "accumulate_grad_batches by the same factor to keep the effective batch), the number of views "
            "(image_processing.fov_deg, overlap_ratio, anyres_max_patches) or image_size."
        ) from error
    return checkpoints.checkpoints, trainer.global_step


def _resumed_step(resume: Path) -> int | None:
    """The optimiser step of a saved state; None, and the state is gone, where it cannot be read."""
    if not resume.is_file():
        return None
    try:
        return int(torch.load(resume, map_location="cpu", weights_only=True)["global_step"])
    except (RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        LOGGER.warning("%s cannot be read (%s): the stage begins afresh", resume, error)
        resume.unlink()
        return None


def _finish(
    job: StageJob, state: StateFolder, model: PanoramaModel, processor: PanoramaProcessor,
    checkpoints: list[dict[str, Any]], global_step: int, rows: tuple[int, int], backbones: dict[str, str | None],
) -> dict[str, Any]:  # fmt: skip
    """Links, adapter, curves, metadata: what makes the folder complete. The metadata comes last."""
    folder = job.stage_folder
    best = min(checkpoints, key=lambda c: (c["val_loss"], c["epoch"]))
    if model.has_adapters:
        model.load_trained(load_weights(folder / best["file"])[1])
        model.save_adapter(folder / "lora_weights")
    with atomic_path(folder / "loss_curves.csv") as partial:
        shutil.copyfile(state.history, partial)
    plot_loss_curves(state.history, folder / "loss_curves.png", f"{job.naming['experiment']}: {job.stage}")
    write_links(folder, checkpoints)
    metadata = build_metadata(job, model, processor, checkpoints, best, global_step, *rows, backbones=backbones)
    write_json(folder / METADATA, metadata)
    LOGGER.info("best checkpoint: %s", best["file"])
    return metadata


def _loggers(job: StageJob) -> list[Any]:
    """The job's loggers, which are given all that the stage reads of the configuration."""
    loggers = training_loggers(job)
    for logger in loggers:
        logger.log_hyperparams(settings_of(job))
    return loggers
