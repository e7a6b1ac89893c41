"""A progress bar on a terminal, a log line now and then without one."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from panollava.logs import LOGGER

Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 15.0


def track(items: Iterable[Item], total: int, label: str, *, enabled: bool = True) -> Iterator[Item]:
    """Pass `items` on and show how many of `total` are done, on standard error."""
    if not enabled:
        yield from items
    elif sys.stderr.isatty():
        from rich.console import Console  # costs 0.1 s: only where there is a terminal to draw on
        from rich.progress import track as draw

        yield from draw(items, total=total, description=label, console=Console(stderr=True))
    else:
        start = last = time.monotonic()
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            if now - last >= _SECONDS_BETWEEN_LINES and done < total:
                LOGGER.info("%s: %d of %d (%.1f a second)", label, done, total, done / (now - start))
                last = now
        LOGGER.info("%s: %d done in %.1f s", label, total, time.monotonic() - start)
