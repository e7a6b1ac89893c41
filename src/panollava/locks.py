"""Locks between processes, which die with the process that holds them.

`locked` is filelock's. The other two name their owner, so that whoever waits can say for whom: filelock keeps no text
in its file.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from panollava.errors import TrainingError
from panollava.logs import LOGGER

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


def take_flock(stream: IO[str], tell: Callable[[str], None], wait_s: float = float("inf")) -> bool:
    """Hold an flock on `stream` until it is closed; False where another process still holds it after `wait_s` seconds.

    `tell` is called once, with what the owner wrote into the file, if this process has to wait.
    """
    deadline, reported = time.monotonic() + wait_s, False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        if not reported:
            tell(owner_of(stream))
            reported = True
        time.sleep(_POLL_S)


def owner_of(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read().strip() or "unknown"


class FolderLock:
    """An exclusive lock on a folder that dies with its process; a second process waits and says for whom."""

    def __init__(self, folder: Path, wait_s: float = 3600.0) -> None:
        self.folder, self.wait_s = folder, wait_s
        self._stream: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        stream = (self.folder / "lock").open("a+", encoding="utf-8")
        if not take_flock(
            stream, lambda owner: LOGGER.info("waiting for process %s, which uses %s", owner, self.folder), self.wait_s
        ):
            owner = owner_of(stream)
            stream.close()
            raise TrainingError(
                f"{self.folder} is still in use by process {owner} after {self.wait_s:.0f} s. "
                "Wait for it to end or stop it, then run the same command again."
            )
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        self._stream = stream
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
