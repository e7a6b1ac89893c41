"""Estimate the memory of a step's activations, and decide whether to recompute them instead of keeping them.

Decides about gradient checkpointing (Chen et al. 2016) from a model whose stage is set and the size of its largest
batch: blocks keep only their inputs and run again in the backward pass, which costs about a third more time and changes
no gradient.
"""

from __future__ import annotations

import torch

from panollava.logs import LOGGER
from panollava.models.panorama_model import PanoramaModel

# What one block keeps of one position, in numbers of the hidden width: measured on one and two blocks of Qwen2.5,
# Qwen3, Llama 3.2 and Gemma 2 with scaled dot-product attention, 37 to 60 bytes in bfloat16, 66 to 89 in float32.
BYTES_HALF, BYTES_FULL = 50, 80
SHARE_OF_MEMORY = 0.5


def activation_bytes(model: PanoramaModel, panoramas: int, positions: int, precision: str) -> int:
    """About how much the backbones' blocks keep for the backward pass of one batch.

    `panoramas` are the batch's rows on one device, `positions` those of its sequences together (0 in the vision
    stage). Of the encoder only blocks that train count, and those behind them.
    """
    return model.kept_numbers(panoramas, positions) * (BYTES_FULL if precision == "32-true" else BYTES_HALF)


def wants_checkpointing(choice: bool | str, needed: int, memory: int | None) -> bool:
    """Whether to recompute activations of `needed` bytes on a device with `memory` bytes (None: a CPU).

    `auto` does where they would fill more than half of a GPU's memory.
    """
    if choice != "auto":
        return bool(choice)
    return memory is not None and needed > SHARE_OF_MEMORY * memory


def gpu_memory() -> int | None:
    """Bytes of the GPU that this process trains on, None without one."""
    if not torch.cuda.is_available():
        return None
    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def choose_checkpointing(
    model: PanoramaModel, choice: bool | str, panoramas: int, positions: int, precision: str
) -> None:
    """Switch gradient checkpointing on where `training.gradient_checkpointing` wants it, and say so."""
    needed = activation_bytes(model, panoramas, positions, precision)
    if wants_checkpointing(choice, needed, gpu_memory()):
        LOGGER.info("gradient checkpointing: on, a batch would keep about %.1f GiB", needed / 2**30)
        model.enable_gradient_checkpointing()
