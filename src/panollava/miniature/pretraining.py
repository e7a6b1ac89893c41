"""What both miniatures share: the training loop and its schedule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from panollava.errors import TrainingError
from panollava.logs import LOGGER
from panollava.training.optimizers import build_optimizer


@dataclass(frozen=True)
class Schedule:
    """Learning rates and length of a pre-training, in optimiser steps.

    The rate rises over `warmup`, stays, and falls to zero over the last `decay` steps. The fall begins when a check
    (every `check_every` steps) says that the skill is there, at the latest so that `max_steps` is not exceeded:
    skills of small models appear abruptly, at a step that depends on the seed.
    """

    max_steps: int
    decay: int
    warmup: int
    check_every: int
    lr: float
    muon_lr: float
    weight_decay: float = 0.01


def train(
    module: nn.Module, schedule: Schedule, loss_of: Callable[[int], Tensor], learned: Callable[[], bool], name: str
) -> int:
    """Train `module` in place and return the number of steps taken. `loss_of(step)` gives a step's loss."""
    optimizer = build_optimizer(
        module.named_parameters(),
        optimizer="muon",
        lr=schedule.lr,
        muon_lr=schedule.muon_lr,
        weight_decay=schedule.weight_decay,
    )
    peaks = [group["lr"] for group in optimizer.param_groups]
    decay = min(schedule.decay, schedule.max_steps)
    last = schedule.max_steps
    started, losses = time.monotonic(), []
    module.train()
    step = 0
    while step < last:
        factor = min((step + 1) / max(1, schedule.warmup), (last - step) / max(1, decay), 1.0)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise TrainingError(
                f"{name}: the loss is {losses[-1]} at step {step}. Lower its lr (now {schedule.lr}) or muon_lr (now "
                f"{schedule.muon_lr}) below models.miniature."
            )
        step += 1
        if step % schedule.check_every == 0 or step == last:
            mean, seconds = sum(losses) / len(losses), time.monotonic() - started
            LOGGER.info("%s step %d: loss %.4f, %.0f ms a step", name, step, mean, 1000 * seconds / step)
            losses.clear()
            if step + decay < last and learned():
                last = step + decay
                LOGGER.info("%s: learned at step %d; the rate falls until step %d", name, step, last)
    module.eval()
    return step
