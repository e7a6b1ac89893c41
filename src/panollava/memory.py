"""How much memory this machine has, and whether an error means that it did not suffice. No torch."""

from __future__ import annotations

import os

# PyTorch on a GPU and on a CPU; workers that the system killed, of a process pool and of a data loader.
_SIGNS = ("out of memory", "can't allocate memory", "terminated abruptly", "is killed by signal: Killed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on a CPU, or the system killed a worker for its memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS)


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
