"""One log file per job: console and file at once, the previous log kept under its time stamp."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

LOGGER = logging.getLogger("panollava")
CONSOLE_LEVEL = "PANOLLAVA_CONSOLE"
"""The least level of what jobs write to the console (WARNING below `panollava run`, which shows a line a job)."""
_FOREIGN = ("transformers", "lightning", "torch", "peft")
_FORMAT = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")


class _LogFile(logging.FileHandler):
    """A log that can no longer be written (full disk) says so once, without a traceback at every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        for logger in (LOGGER, logging.getLogger("py.warnings")):
            logger.removeHandler(self)
        LOGGER.warning("%s: %s; what follows is on the console only", self.baseFilename, sys.exc_info()[1])


def start_log(path: str | Path | None = None, level: int = logging.INFO) -> logging.Logger:
    """Send panollava's log lines and Python's warnings to standard error and, if given, to `path`.

    With a log file the console gets what the environment's PANOLLAVA_CONSOLE lets through (all levels without it).
    A log that is already there is renamed to `NAME.YYYYmmdd-HHMMSS.log` (its own last change).
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        handlers.append(_LogFile(_fresh(Path(path)), encoding="utf-8"))
        handlers[0].setLevel(os.environ.get(CONSOLE_LEVEL) or logging.NOTSET)
    for handler in list(LOGGER.handlers):
        LOGGER.removeHandler(handler)
    for handler in handlers:
        handler.setFormatter(_FORMAT)
        LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    logging.captureWarnings(True)
    python_warnings = logging.getLogger("py.warnings")
    python_warnings.handlers = list(handlers)
    python_warnings.propagate = False
    for package in _FOREIGN:  # what libraries say to their own developers is no news to ours' users
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{package}\b")
    return LOGGER


@contextmanager
def log_as_before() -> Iterator[None]:
    """What `start_log` changes in the block is taken back behind it: for jobs inside somebody else's process."""
    loggers = (LOGGER, logging.getLogger("py.warnings"))
    before = [(logger, logger.propagate, logger.level, list(logger.handlers)) for logger in loggers]
    with warnings.catch_warnings():
        try:
            yield
        finally:
            for logger, propagate, level, handlers in before:
                for handler in logger.handlers:
                    if handler not in handlers:
                        handler.close()
                logger.propagate, logger.level, logger.handlers = propagate, level, handlers
            logging.captureWarnings(False)


def _fresh(path: Path) -> Path:
    """Make way for a new log; the previous one gets its time stamp.

    Snakemake removes a job's log before the job runs again. So each log has a second, hidden name (a hard link), under
    which the next start finds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = path.with_name(f".{path.name}")
    for previous in (path, kept):
        if previous.exists() and (stat := previous.stat()).st_size:
            stamp = datetime.fromtimestamp(stat.st_mtime).strftime("%Y%m%d-%H%M%S")
            previous.rename(path.with_name(f"{path.stem}.{stamp}{path.suffix}"))
        previous.unlink(missing_ok=True)
    path.touch()
    with suppress(OSError):  # a file system without hard links
        kept.hardlink_to(path)
    return path
