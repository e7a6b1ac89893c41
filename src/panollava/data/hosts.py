"""Rate limiting by host: how many requests at once, how long to wait when the host is busy, when to give it up.

Decides from the outcomes of earlier requests when the next one may start. Pauses belong to a host, not to one URL: a
host that is busy for one request is busy for all. A host that cannot be resolved, does not answer or stays busy is
given up for the rest of the run, so that thousands of URLs without a network fail in seconds, not hours.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from panollava.data.http_request import Busy, Silent, Unresolved
from panollava.locks import Cancelled
from panollava.logs import LOGGER

_LONG_PAUSE_S = 5.0  # one that is worth a line


class GivenUp(Exception):
    """The host is left alone for the rest of the run; the message says why."""


@dataclass(frozen=True)
class Manners:
    """`at_once` requests to one host; a pause of `first_pause_s`, then twice that, …, at most `longest_pause_s`.

    Half as many go at once when the host asks to wait, and one more after each `trust_after` answers.
    A longer `Retry-After` than `longest_pause_s` gives the host up, as do `busy_limit` answers in a row that ask to
    wait, `silent_limit` requests in a row without an answer, `unresolved_limit` failures in a row to find its address.
    """

    at_once: int = 4
    trust_after: int = 100
    first_pause_s: float = 1.0
    longest_pause_s: float = 120.0
    busy_limit: int = 10
    silent_limit: int = 12
    unresolved_limit: int = 3


@dataclass
class Host:
    """One server, and what its answers so far allow."""

    name: str
    manners: Manners
    cancelled: threading.Event
    given_up: str | None = None
    _width: int = 0
    _active: int = 0
    _not_before: float = 0.0
    _round: int = 0
    _busy: int = 0
    _good: int = 0
    _silent: int = 0
    _unresolved: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def __post_init__(self) -> None:
        self._width = self.manners.at_once

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One request inside the block. Raises GivenUp and Cancelled before it; takes note of what the block raises."""
        number = self._begin()
        try:
            yield
        except Busy as error:
            self._was_busy(number, error)
            raise
        except Unresolved as error:
            with self._changed:
                self._unresolved += 1
                if self._unresolved >= self.manners.unresolved_limit:
                    self._give_up(f"{self.name} cannot be found ({error}): a wrong name, or no network")
            raise
        except Silent as error:
            with self._changed:
                self._silent += 1
                if self._silent >= self.manners.silent_limit:
                    self._give_up(f"{self.name} did not answer {self._silent} times in a row ({error})")
            raise
        except BaseException:
            self._answered()
            raise
        else:
            self._answered()
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def pause(self, attempt: int) -> None:
        """Wait before another attempt at one URL, the first of which is number 1. Raises Cancelled."""
        if self.cancelled.wait(self._seconds(attempt)):
            raise Cancelled

    def wake(self) -> None:
        """Let those who wait notice that `cancelled` is set."""
        with self._changed:
            self._changed.notify_all()

    def _begin(self) -> int:
        with self._changed:
            while True:
                if self.cancelled.is_set():
                    raise Cancelled
                if self.given_up is not None:
                    raise GivenUp(self.given_up)
                wait_s = self._not_before - time.monotonic()
                if wait_s <= 0 and self._active < self._width:
                    self._active += 1
                    return self._round
                self._changed.wait(wait_s if wait_s > 0 else None)

    def _answered(self) -> None:
        with self._changed:
            self._silent = self._unresolved = self._busy = 0
            self._good += 1
            if self._good % self.manners.trust_after == 0:
                self._width = min(self._width + 1, self.manners.at_once)

    def _was_busy(self, number: int, error: Busy) -> None:
        """Requests that were under way together and are all refused count once."""
        with self._changed:
            self._silent = self._unresolved = 0
            if number != self._round:
                return
            self._round += 1
            self._busy += 1
            self._width, self._good = max(1, self._width // 2), 0
            wait_s = self._seconds(self._busy) if error.retry_after_s is None else error.retry_after_s
            if error.retry_after_s is not None and error.retry_after_s > self.manners.longest_pause_s:
                self._give_up(f"{self.name} asks to wait {error.retry_after_s:.0f} s ({error})")
            elif self._busy >= self.manners.busy_limit:
                self._give_up(f"{self.name} asked to wait {self._busy} times in a row ({error})")
            else:
                self._not_before = time.monotonic() + wait_s
                if wait_s >= _LONG_PAUSE_S:
                    LOGGER.info("%s is busy (%s): waiting %.0f s", self.name, error, wait_s)

    def _give_up(self, reason: str) -> None:
        if self.given_up is None:
            self.given_up = reason
            LOGGER.warning("%s: given up", reason)
        self._changed.notify_all()

    def _seconds(self, number: int) -> float:
        """Twice as long each time, and never for two the same: who waited together should not come back together."""
        longest = min(self.manners.first_pause_s * 2.0 ** min(number - 1, 30), self.manners.longest_pause_s)
        return longest * random.uniform(0.75, 1.0)
