"""One snakemake at a time builds in a folder; the next one waits and says for whom. Dead locks are removed.

Snakemake's own lock files name no owner, and survive a kill. So every snakemake that is about to build holds an flock
on `.snakemake/panollava.lock`, which dies with it, however it dies. Who has that lock knows that nobody else builds
here, and that any of Snakemake's lock files are left over; who had to wait plans on what the other one built.
"""

from __future__ import annotations

import errno
import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from panollava.files import storage_error
from panollava.locks import take_flock

_LEAST_BYTES = 2**20  # with less, snakemake cannot write what it needs to plan and to remember
_HELD: dict[Path, IO[str]] = {}


def take_folder(folder: str | Path, wait: bool = True) -> None:
    """Hold `folder`'s (`.snakemake`) lock until this process ends, then remove what dead snakemakes left.

    With `wait` False (who only looks) the lock is tried and given back at once. Does nothing where this process holds
    it already. Raises StorageError where the folder cannot be written or the disk is full: snakemake can do nothing
    there.
    """
    lock = Path(folder).resolve() / "panollava.lock"
    if lock in _HELD:
        return
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("a+", encoding="utf-8")
        if shutil.disk_usage(lock.parent).free < _LEAST_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise storage_error(error, lock) or error from None
    if not take_flock(stream, _tell_owner, math.inf if wait else 0):
        stream.close()
        return
    locks = lock.parent / "locks"
    locks.mkdir(exist_ok=True)  # the other snakemake took it away when it ended
    for left_over in locks.glob("*.lock"):
        left_over.unlink(missing_ok=True)
    if not wait:
        stream.close()
        return
    stream.truncate(0)
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name or "python"
    command = shlex.join([name, *sys.argv[1:]])
    stream.write(f"{os.getpid()} ({command})\n")
    stream.flush()
    _HELD[lock] = stream


@contextmanager
def holding(folder: str | Path) -> Iterator[None]:
    """`take_folder` for the block alone: who builds in a process of his own gives the folder back behind it."""
    lock = Path(folder).resolve() / "panollava.lock"
    held_before = lock in _HELD
    take_folder(folder)
    try:
        yield
    finally:
        if not held_before:
            _HELD.pop(lock).close()


def _tell_owner(owner: str) -> None:
    print(
        f"waiting for process {owner}, which builds in this folder; Ctrl-C gives up, --nolock does not wait",
        file=sys.stderr,
        flush=True,
    )
