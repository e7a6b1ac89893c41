"""Locks of a killed snakemake are removed, those of a living one are not.

Snakemake's lock files name no owner. So every snakemake that reads the Snakefile holds a shared flock on
`.snakemake/panollava.lock`, which dies with it, however it dies. Who can have that lock alone knows that nobody else
is alive, and that any lock files are left over.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from pathlib import Path
from typing import IO

from panollava.files import storage_error

_LEAST_BYTES = 2**20  # with less, snakemake cannot write what it needs to plan and to remember
_HELD: dict[Path, IO[str]] = {}


def clear_dead_locks(folder: str | Path) -> bool:
    """Remove `folder`/locks if no other snakemake lives here; hold the shared lock from now on.

    Returns whether locks were removed. Does nothing where this process holds the lock already. Raises StorageError
    where the folder cannot be written or the disk is full: snakemake can do nothing there.
    """
    lock = Path(folder).resolve() / "panollava.lock"
    if lock in _HELD:
        return False
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("a+", encoding="utf-8")
        if shutil.disk_usage(lock.parent).free < _LEAST_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise storage_error(error, lock) or error from None
    removed = False
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locks = lock.parent / "locks"
        removed = locks.is_dir() and any(locks.iterdir())
        shutil.rmtree(locks, ignore_errors=True)
    except BlockingIOError:
        pass  # somebody is alive: the locks, if any, may be theirs
    fcntl.flock(stream, fcntl.LOCK_SH)
    _HELD[lock] = stream
    return removed
