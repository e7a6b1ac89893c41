"""What happens beside the steps: history, checkpoints, resume state, stop requests, noise.

Write `history.csv`, one weights file per epoch, `resume.ckpt` and the record of the run from a running Lightning
trainer. Weights, resume state and record are separate files, each written completely or not at all.
"""

from __future__ import annotations

import csv
import math
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch

from panollava.errors import TrainingError
from panollava.files import atomic_path, sha256_file
from panollava.logs import LOGGER
from panollava.progress import Bar, bar
from panollava.training.loss_sum import LossSum
from panollava.training.state_folder import StateFolder

HISTORY_COLUMNS = ("epoch", "step", "split", "loss", "learning_rate", "seconds")


class Interrupted(TrainingError):
    """The stage was asked to stop; its state is saved and the same command goes on with it."""

    exit_code = 143


class StepNoise(L.Callback):
    """Dropout and sampling noise as a function of (seed, epoch, batch, rank): nothing to save, nothing to restore."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        key = hash((self.seed, trainer.current_epoch, batch_idx, trainer.global_rank)) & 0x7FFF_FFFF_FFFF_FFFF
        torch.manual_seed(key)


class Bars(L.Callback):
    """A bar of a stage's steps and one of each validation, where somebody looks (`progress`); rank 0 draws them."""

    def __init__(self, stage: str, total_steps: int) -> None:
        self.stage, self.total_steps = stage, total_steps
        self._steps = self._validation = Bar()
        self._open = ExitStack()
        self._validating = ExitStack()

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        done, rank_zero = trainer.global_step, trainer.is_global_zero
        shown = bar(self.total_steps, f"Training {self.stage}", done=done, enabled=rank_zero)
        self._steps = self._open.enter_context(shown)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps.to(trainer.global_step, epoch=trainer.current_epoch)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        total = sum(int(count) for count in trainer.num_val_batches)
        self._validation = self._validating.enter_context(bar(total, "Validating", enabled=trainer.is_global_zero))

    def on_validation_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        self._validation.to(batch_idx + 1)

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._validating.close()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._open.close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._validating.close()
        self._open.close()


class History(L.Callback):
    """Training and validation losses, one CSV row each, and the same to the loggers.

    A training loss is the mean over all terms since the row before. What it has added up so far travels inside the
    resume state; on a resume, rows after the resumed step are dropped.
    """

    def __init__(self, state: StateFolder, every_n_steps: int, total_steps: int) -> None:
        self.state, self.every_n_steps, self.total_steps = state, every_n_steps, total_steps
        self._since = LossSum()
        self._started = time.monotonic()
        self._first_step = 0

    def state_dict(self) -> dict[str, Any]:
        return asdict(self._since)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._since = LossSum(**state_dict)

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._started, self._first_step = time.monotonic(), trainer.global_step
        if not trainer.is_global_zero:
            return
        kept: list[dict[str, str]] = []
        if self.state.history.is_file() and trainer.global_step:
            with open(self.state.history, encoding="utf-8", newline="") as stream:
                kept = [row for row in csv.DictReader(stream) if int(row["step"]) <= trainer.global_step]
        with (
            atomic_path(self.state.history) as partial,
            open(partial, "w", encoding="utf-8", newline="") as out,
        ):
            writer = csv.DictWriter(out, HISTORY_COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._since.add(outputs["whole_loss"], outputs["terms"])
        last = batch_idx + 1 == trainer.num_training_batches
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not last and (not stepped or trainer.global_step % self.every_n_steps):
            return
        loss, self._since = self._since.mean(), LossSum()
        rate = (trainer.global_step - self._first_step) / max(1e-9, time.monotonic() - self._started)
        learning_rate = trainer.optimizers[0].param_groups[-1]["lr"]
        self._write(trainer, "train", loss, learning_rate)
        if (overlap := outputs.get("overlap")) is not None:  # this process', of the last batch
            self._write(trainer, "train_overlap", float(overlap), learning_rate)
            for logger in trainer.loggers:
                logger.log_metrics({"train_overlap_loss": float(overlap)}, step=trainer.global_step)
        for logger in trainer.loggers:
            measured = {"train_loss": loss, "learning_rate": learning_rate, "epoch": trainer.current_epoch}
            logger.log_metrics(measured, step=trainer.global_step)
        if trainer.is_global_zero:
            LOGGER.info(
                "epoch %d step %d/%d loss %.4f (%.1f steps/s)",
                trainer.current_epoch, trainer.global_step, self.total_steps, loss, rate,
            )  # fmt: skip
            self.state.update_record(
                progress={
                    "epoch": trainer.current_epoch,
                    "step": trainer.global_step,
                    "total_steps": self.total_steps,
                }
            )

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        self._write(trainer, "val", loss, None)
        LOGGER.info("epoch %d step %d validation loss %.4f", trainer.current_epoch, trainer.global_step, loss)

    def _write(self, trainer: L.Trainer, split: str, loss: float, learning_rate: float | None) -> None:
        if not trainer.is_global_zero:
            return
        seconds = round(time.monotonic() - self._started, 2)
        with open(self.state.history, "a", encoding="utf-8", newline="") as out:
            csv.writer(out, lineterminator="\n").writerow(
                [trainer.current_epoch, trainer.global_step, split, loss, learning_rate, seconds]
            )


class Checkpoints(L.Callback):
    """Weights after every epoch, resume state every `every_n_steps` steps, after every epoch and when asked to stop.

    `write_weights(path, epoch, step, val_loss)` writes the weights file; `name_of(epoch, val_loss)` names it. The
    list of this run's own checkpoints travels inside the resume state, so that both always agree. With several ranks,
    rank 0 writes and is asked to stop; all stop after the same step.
    """

    def __init__(
        self,
        state: StateFolder,
        stage_folder: Path,
        *,
        every_n_steps: int,
        name_of: Callable[[int, float], str],
        write_weights: Callable[[Path, int, int, float], None],
    ) -> None:
        self.state, self.stage_folder, self.every_n_steps = state, stage_folder, every_n_steps
        self.name_of, self.write_weights = name_of, write_weights
        self.checkpoints: list[dict[str, Any]] = []
        self._saved_step = -1
        self._stop_signal: str | None = None
        self._handlers: dict[int, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        return {"checkpoints": self.checkpoints}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.checkpoints = state_dict["checkpoints"]

    # Stop requests: finish the step at hand, save, leave.
    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        # Lightning's own SIGTERM handler would leave without saving, and it calls a collective operation wherever the
        # signal finds it: with several ranks that never returns.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._saved_step = trainer.global_step
        if not trainer.is_global_zero:
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._request_stop)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _request_stop(self, number: int, _: object) -> None:
        self._stop_signal = signal.Signals(number).name

    def _must_stop(self, trainer: L.Trainer) -> bool:
        """Whether a stop was requested: the same answer on all ranks, which ask at the same moments."""
        return trainer.strategy.reduce_boolean_decision(self._stop_signal is not None, all=False)

    def _stop(self) -> None:
        raise Interrupted(
            f"stopped by {self._stop_signal}; state saved at step {self._saved_step}. "
            "The same command goes on from there."
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # After an epoch's last batch the validation comes first: a state from between the two would skip it.
        last = batch_idx + 1 == trainer.num_training_batches
        if last or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        stop = self._must_stop(trainer)
        if stop or trainer.global_step - self._saved_step >= self.every_n_steps:
            self._save(trainer)
        if stop:
            self._stop()

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any, **__: Any) -> None:
        if self._must_stop(trainer):
            self._stop()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        val_loss = float(trainer.callback_metrics["val_loss"])
        if not math.isfinite(val_loss):
            raise TrainingError(
                f"the validation loss is {val_loss} after epoch {trainer.current_epoch}. "
                "Lower the stage's lr, or set training.precision to 32-true."
            )
        name = self.name_of(trainer.current_epoch, val_loss)
        entry = {
            "file": name,
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "val_loss": val_loss,
        }
        if trainer.is_global_zero:
            self.write_weights(self.stage_folder / name, trainer.current_epoch, trainer.global_step, val_loss)
            entry["sha256"] = sha256_file(self.stage_folder / name)
        self.checkpoints = [c for c in self.checkpoints if c["epoch"] != trainer.current_epoch] + [entry]
        self._save(trainer)
        if trainer.is_global_zero:
            LOGGER.info("checkpoint %s", name)
            self.state.update_record(checkpoints=self.checkpoints)
        if self._must_stop(trainer):
            self._stop()

    def _save(self, trainer: L.Trainer) -> None:
        """Every rank takes part in collecting the state; rank 0 writes it, whole or not at all."""
        if trainer.is_global_zero:
            with atomic_path(self.state.resume_checkpoint) as partial:
                trainer.save_checkpoint(partial)
        else:
            trainer.save_checkpoint(self.state.resume_checkpoint)
        self._saved_step = trainer.global_step
