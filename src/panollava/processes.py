"""Processes that get along: they end with their parent (Linux), and share the cores with others."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_MOST_KEPT = 32 * 2**20  # the most that glibc allows


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


def set_cpu_defaults() -> None:
    """Settings of the CPU's libraries, by environment. Call it before torch is imported; what the user set stays.

    GNU OpenMP's waiting threads spin for milliseconds: two trainings side by side on the same cores then run many
    times slower than one after the other (`benchmarks/spinning_threads.py`), so they give up their core soon. oneMKL
    promises equal results from run to run only with its conditional numerical reproducibility switched on.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    os.environ.setdefault("MKL_CBWR", "AUTO")


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, up to 32 MiB a block, and use it again (glibc); before it works.

    glibc gives much of it back to the system, and the next step pays for every page again
    (`benchmarks/page_faults.py`). What the user set in the environment stays.
    """
    libc, tunables = ctypes.CDLL(None), os.environ.get("GLIBC_TUNABLES", "")
    for parameter, name, value in (
        (_M_MMAP_THRESHOLD, "mmap_threshold", _MOST_KEPT),
        (_M_TRIM_THRESHOLD, "trim_threshold", 2**31 - 1),
    ):
        is_set = f"MALLOC_{name.upper()}_" in os.environ or f"malloc.{name}" in tunables
        if hasattr(libc, "mallopt") and not is_set:
            libc.mallopt(parameter, value)


def quiet_torch() -> None:
    """No warnings of torch's C++ parts, which no filter of Python's reaches; errors stay. Before torch is imported."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def available_cores() -> int:
    """The cores this job may use: OMP_NUM_THREADS (Snakemake sets it to the rule's threads) or the machine's."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(threads)) if threads.isdigit() else len(os.sched_getaffinity(0))


def peak_memory_gib() -> float:
    """The largest resident size of this process or of one of its finished children, in GiB."""
    kilobytes = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kilobytes / 2**20


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
