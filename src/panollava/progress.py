"""Progress bars on a terminal and in Jupyter; elsewhere, and in the DAG's jobs, a log line now and then.

Bars go to standard error, never to a log file: several jobs of the DAG share one terminal, and `panollava run` shows a
line a job (`dag.run_console`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from panollava.logs import LOGGER

Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 15.0
_SWITCH = "PANOLLAVA_BARS"


def no_bars() -> None:
    """From here on this process, and those that it starts, draw none: it is one of several on a terminal."""
    os.environ[_SWITCH] = "0"
    os.environ.setdefault("TQDM_DISABLE", "1")  # those of libraries


def bars_are_shown() -> bool:
    """Whether somebody looks: at a terminal, or at a notebook."""
    return os.environ.get(_SWITCH) != "0" and (sys.stderr.isatty() or in_notebook())


def in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


class Bar:
    """How much of something is done; without anybody who looks it draws nothing."""

    def __init__(self, drawn: Any = None) -> None:
        self._drawn = drawn

    def to(self, done: float, **said: Any) -> None:
        """`done` of the total is done; what else is `said` is shown after it."""
        if self._drawn is None:
            return
        if said:
            self._drawn.set_postfix({key: f"{v:.4f}" if isinstance(v, float) else v for key, v in said.items()}, False)
        self._drawn.update(done - self._drawn.n)


@contextmanager
def bar(total: float | None, label: str, *, done: float = 0, enabled: bool = True) -> Iterator[Bar]:
    """A bar that is moved by hand (`Bar.to`); `done` is done already. Log lines on the console are printed above it."""
    if not enabled or not bars_are_shown():
        yield Bar()
        return
    from tqdm.auto import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    about = {"total": total, "initial": done, "desc": label, "dynamic_ncols": True, "leave": False}
    with logging_redirect_tqdm([LOGGER]), tqdm(**about) as drawn:
        yield Bar(drawn)


def track(items: Iterable[Item], total: int, label: str, *, enabled: bool = True, lines: bool = True) -> Iterator[Item]:
    """Pass `items` on and show how many of `total` are done. Without `lines` the caller logs by itself."""
    if not enabled:
        yield from items
        return
    start = last = time.monotonic()
    drawn = bars_are_shown() or not lines
    with bar(total, label) as shown:
        for done, item in enumerate(items, start=1):
            yield item
            shown.to(done)
            now = time.monotonic()
            if not drawn and now - last >= _SECONDS_BETWEEN_LINES and done < total:
                LOGGER.info("%s: %d of %d (%.1f a second)", label, done, total, done / (now - start))
                last = now
    if not drawn:
        LOGGER.info("%s: %d done in %.1f s", label, total, time.monotonic() - start)
