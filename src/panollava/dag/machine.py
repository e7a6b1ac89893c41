"""Whether jobs that ask a model may run side by side on this machine. Planning asks, so torch is not loaded for it."""

from __future__ import annotations

import sys
from pathlib import Path

from panollava.memory import machine_memory

_GPU_FILES = ("nvidia*", "nvhost-gpu", "nvgpu", "kfd", "dxg", "accel*")
"""Device files of NVIDIA's GPUs and Jetson boards, of AMD's, of Windows' through WSL, and of other accelerators."""


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether there is anything here that torch could take for a GPU; a Mac always has one."""
    return sys.platform == "darwin" or any(any(devices.glob(one)) for one in _GPU_FILES)


def limits_without_gpu(cores: int) -> dict[str, int]:
    """What jobs on this machine share where it has no GPU that two of them could ask at once: as many may ask a model
    as there are cores, if their memory (MB) is there. Nothing where there is a GPU."""
    return {} if has_gpu() else {"gpu": cores, "mem_mb": machine_memory() // 10**6}
