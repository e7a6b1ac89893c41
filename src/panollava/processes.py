"""Processes that end with their parent: an orphan must not finish behind the user's back. Linux only."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int = signal.SIGTERM, parent: int | None = None) -> None:
    """Ask the kernel for `signal_number` when the parent dies; leave at once if it is dead already.

    `parent` is the expected parent's PID (default: the present parent's). Other systems than Linux have no such
    request; there the call does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    expected = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != expected:
        os.kill(os.getpid(), signal_number)


def peak_memory_gib() -> float:
    """The largest resident size of this process or of one of its finished children, in GiB."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 2**20
