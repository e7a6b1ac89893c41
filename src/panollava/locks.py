"""Locks between processes, by filelock: a lock dies with the process that holds it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_POLL_S = 0.1


class Cancelled(Exception):
    """The user ended the run while something waited for its turn."""


@contextmanager
def locked(path: Path, cancelled: threading.Event | None = None, blocking: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, which is created, and removed again at the end.

    Raises Cancelled where `cancelled` is set while waiting, filelock.Timeout where another process holds the lock
    and `blocking` is off.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=blocking, poll_interval=_POLL_S, cancel_check=cancelled.is_set if cancelled else None)
    except Timeout:
        if cancelled is not None and cancelled.is_set():
            raise Cancelled from None
        raise
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits notices that the file has no name any more
        lock.release()
