"""One stage of training as a LightningModule.

It takes a model whose stage is set (`freeze_for_stage`) and the batches of `panollava.data`. Its checkpoints hold only
what some stage so far has trained.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from transformers import get_cosine_schedule_with_warmup

from panollava.errors import TrainingError
from panollava.models.adapters import without_gradient
from panollava.models.choices import Stage
from panollava.models.losses import IGNORED
from panollava.training.distributed import Share, share_of_batch
from panollava.training.features import encode_frozen
from panollava.training.loss_sum import LossSum
from panollava.training.optimizers import build_optimizer


class StageModule(L.LightningModule):
    """Runs `model(**batch, stage=stage)` and optimises its `loss`.

    Args:
        model: the model; called with the batch's keys and `stage`.
        stage: "vision", "resampler" or "finetune".
        kept: names of the model's tensors that checkpoints hold (all that any stage so far has trained).
        total_steps: optimiser steps of the whole stage, for the cosine schedule.
        optimizer, lr, muon_lr, weight_decay, warmup_ratio: see config/default.yaml.
        frozen_features: what a frozen encoder's features are rounded to (`features.feature_dtype`), None if it trains.
        share_image_prefix: whether the language model reads a picture once for all its rows in a training batch.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        stage: Stage,
        *,
        kept: set[str],
        total_steps: int,
        optimizer: str,
        lr: float,
        muon_lr: float,
        weight_decay: float,
        warmup_ratio: float,
        frozen_features: torch.dtype | None = None,
        share_image_prefix: bool = False,
    ) -> None:
        super().__init__()
        self.strict_loading = False  # checkpoints hold the trained tensors only; keys are checked in on_load_checkpoint
        self.model, self.stage, self.kept = model, stage, kept
        self.frozen_features, self.share_image_prefix = frozen_features, share_image_prefix
        self._adapters_seen = False
        self._overlap: torch.Tensor | None = None  # the last batch's overlap loss beside the answers'
        self._accumulated: list[int] = []  # terms of the batches since the last step
        self._validated = LossSum()
        self.total_steps, self.warmup_steps = total_steps, round(warmup_ratio * total_steps)
        self.optimizer_settings = {
            "optimizer": optimizer, "lr": lr, "muon_lr": muon_lr, "weight_decay": weight_decay,
        }  # fmt: skip

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """`loss` to differentiate; `whole_loss`, the mean over the `terms` of the batch of all ranks."""
        share = self._share(batch, self.share_image_prefix)
        if not torch.isfinite(share.whole_loss):
            raise TrainingError(
                f"the {self.stage} stage's loss is {share.whole_loss.item()} at epoch {self.current_epoch}, "
                f"batch {batch_idx}. Lower training.stage_configs.{self.stage}.lr (now "
                f"{self.optimizer_settings['lr']}), or set training.precision to 32-true. The last saved state is kept."
            )
        self._accumulated.append(share.terms)
        loss = share.loss * (share.terms / self._accumulated[0])
        return {"loss": loss, "whole_loss": share.whole_loss, "terms": share.terms, "overlap": self._overlap}

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the accumulated gradient that of one large batch: a mean over all its terms, not of batches' means.

        Lightning has divided by the number of batches, also where an epoch ends with fewer.
        """
        if not self._adapters_seen:
            self._adapters_seen = True
            if untouched := without_gradient(self.model.named_parameters()):
                raise TrainingError(
                    f"{len(untouched)} adapter tensors got no gradient from the first step and would never train: "
                    f"{', '.join(untouched[:8])}{' …' if len(untouched) > 8 else ''}. Name the layers to adapt in "
                    "lora.target_modules, without these"
                )
        scale = self.trainer.accumulate_grad_batches * self._accumulated[0] / sum(self._accumulated)
        self._accumulated.clear()
        if scale != 1:
            torch._foreach_mul_([p.grad for p in self.model.parameters() if p.grad is not None], scale)

    def on_validation_epoch_start(self) -> None:
        self._validated = LossSum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        share = self._share(batch, share_image_prefix=True)
        self._validated.add(share.whole_loss, share.terms)

    def on_validation_epoch_end(self) -> None:
        """`val_loss` is the mean over all terms of the set, however they were divided into batches and ranks."""
        self.log("val_loss", self._validated.mean())  # equal on all ranks: `share_of_batch` has added them up

    def _share(self, batch: dict[str, Any], share_image_prefix: bool) -> Share:
        """This process' part of a batch; an empty part still takes part in the gradient, with zeros."""
        if batch:
            inputs = dict(batch)
            if self.frozen_features is not None and "pixel_values" in inputs:
                inputs["vision_features"] = encode_frozen(self.model, inputs.pop("pixel_values"), self.frozen_features)
            if not share_image_prefix and "image_index" in inputs:  # each row with a picture of its own
                image_index = inputs.pop("image_index")
                of_pictures = ("pixel_values", "vision_features", "kept_views")
                inputs |= {key: inputs[key][image_index] for key in of_pictures if key in inputs}
            output = self.model(**inputs, stage=self.stage)
            loss = output["loss"]
            if "overlap_loss" in output:
                self._overlap = output["overlap_loss"].detach()
        else:
            loss = torch.stack([p.sum() for p in self.model.parameters() if p.requires_grad]).sum() * 0.0
        return share_of_batch(loss, _terms(batch))

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


def _terms(batch: dict[str, Any]) -> int:
    """How many terms the mean in the batch's loss has: supervised tokens, or panoramas where the loss reads no text.

    The overlap loss is a mean over panoramas, each with its own statistics, but for the mode `batchwise`, whose
    statistics are those of a batch: there panoramas are what batches are weighed by.
    """
    if not batch:
        return 0
    if "labels" not in batch:
        return len(next(iter(batch.values())))
    return int((batch["labels"][:, 1:] != IGNORED).sum())
