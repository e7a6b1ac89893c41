"""Where and in which arithmetic models compute: devices, precision, dtype."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from panollava.errors import ConfigError


def resolve_precision(precision: str) -> str:
    """`training.precision` with `auto` resolved: bf16-mixed on a GPU that has it, else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true"


def language_dtype(precision: str) -> torch.dtype:
    """The dtype of the language model's frozen weights; whatever trains stays in float32."""
    return torch.bfloat16 if resolve_precision(precision) == "bf16-mixed" else torch.float32


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The arithmetic of a resolved precision, as the trainer has it, for what runs outside of the trainer."""
    dtype = torch.float16 if precision == "16-mixed" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "32-true", cache_enabled=False)


def first_device() -> torch.device:
    """Where a single process computes, and rank 0 of several."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Devices:
    """How many processes train, each on a device of its own (`accelerator` gpu or cpu), in which precision."""

    accelerator: str
    processes: int
    ddp: bool
    precision: str


def devices_of(training: dict[str, Any]) -> Devices:
    """`training.devices`, `strategy` and `precision` on this machine. Raises ConfigError where it has too few GPUs."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = 1 if training["devices"] == "auto" else int(training["devices"])
    if gpus and count > gpus:
        raise ConfigError(
            f"training.devices is {count}, but this job sees {gpus} GPU{'s' * (gpus > 1)}. Set it to at most {gpus}: "
            "batch_size counts the rows of all devices and may stay"
        )
    return Devices(
        accelerator="gpu" if gpus else "cpu",
        processes=count,
        ddp=count > 1 or training["strategy"] == "ddp",
        precision=resolve_precision(training["precision"]),
    )
