"""One stage of training as a LightningModule.

Enters: a model whose stage is set (`freeze_for_stage`) and the batches of `panollava.data`. Leaves: losses, gradients,
and checkpoints that hold only what some stage so far has trained.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from transformers import get_cosine_schedule_with_warmup

from panollava.errors import TrainingError
from panollava.training.optimizers import build_optimizer
from panollava.training.stages import StageName


class StageModule(L.LightningModule):
    """Runs `model(**batch, stage=stage)` and optimises its `loss`.

    Args:
        model: the model; called with the batch's keys and `stage`.
        stage: "vision", "resampler" or "finetune".
        kept: names of the model's tensors that checkpoints hold (all that any stage so far has trained).
        total_steps: optimiser steps of the whole stage, for the cosine schedule.
        optimizer, lr, muon_lr, weight_decay, warmup_ratio: see config/default.yaml.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        stage: StageName,
        *,
        kept: set[str],
        total_steps: int,
        optimizer: str,
        lr: float,
        muon_lr: float,
        weight_decay: float,
        warmup_ratio: float,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold the trained tensors only; keys are checked in on_load_checkpoint
        self.model, self.stage, self.kept = model, stage, kept
        self.total_steps, self.warmup_steps = total_steps, round(warmup_ratio * total_steps)
        self.optimizer_settings = {
            "optimizer": optimizer, "lr": lr, "muon_lr": muon_lr, "weight_decay": weight_decay,
        }  # fmt: skip

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss: Tensor = self.model(**batch, stage=self.stage)["loss"]
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the {self.stage} stage's loss is {loss.item()} at epoch {self.current_epoch}, batch {batch_idx}. "
                f"Lower training.stage_configs.{self.stage}.lr (now {self.optimizer_settings['lr']}), or set "
                "training.precision to 32-true. The last saved state is kept."
            )
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        loss = self.model(**batch, stage=self.stage)["loss"]
        self.log("val_loss", loss, on_epoch=True, batch_size=_batch_size(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        trainable = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        optimizer = build_optimizer(trainable, **self.optimizer_settings)  # type: ignore[arg-type]
        scheduler = get_cosine_schedule_with_warmup(optimizer, self.warmup_steps, self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {
            name: tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.removeprefix("model.") in self.kept
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        found = {name.removeprefix("model.") for name in checkpoint["state_dict"]}
        if found != self.kept:
            raise TrainingError(
                f"the resume state does not fit the model: missing {sorted(self.kept - found)}, "
                f"unexpected {sorted(found - self.kept)}"
            )


def _batch_size(batch: dict[str, Any]) -> int:
    return len(next(iter(batch.values())))
