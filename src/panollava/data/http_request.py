"""One HTTP request: a URL enters, its content is appended to a partial file, or an error says what helps.

The rest of a partial file is asked for (`Range`), and only if the server confirms by `If-Range` that the file is still
the same one; else it is fetched from its beginning. Only http and https are spoken, before and after redirects. Every
wait is bounded: for a connection, for the header as a whole, for each piece of the body, and for a body that trickles.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit, urlunsplit

from panollava import __version__
from panollava.data.http_connection import make_opener, redirect_problem

USER_AGENT = f"panollava/{__version__} (research on panoramic images)"
_CHUNK = 1 << 16
_LEAST_BYTES_PER_S = 1024
_TEMPORARY = {408, 425, 500, 502, 504}
_BUSY = {429, 503}


class Refused(Exception):
    """Asking again cannot help: no such file, a forbidden redirect, too large."""


class Busy(Exception):
    """The server asks to be left alone for a while; `retry_after_s` is what it says, None where it says nothing."""

    def __init__(self, reason: str, retry_after_s: float | None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(reason)


class Unresolved(Exception):
    """The host's name has no address: a wrong name, or no network."""


class Silent(Exception):
    """The host did not answer."""


class BrokenOff(Exception):
    """The host answered, but not with the whole file."""


@dataclass
class Client:
    """Fetches URLs; safe to use from several threads. `cancel()` ends every request in progress."""

    timeout_s: float
    max_bytes: int
    _sockets: weakref.WeakSet[socket.socket] = field(default_factory=weakref.WeakSet, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _cancelled: bool = False

    def __post_init__(self) -> None:
        self._opener = make_opener(self.timeout_s, self._watch)

    def fetch(self, url: str, partial: Path) -> None:
        """Complete `partial`, which exists and may hold the beginning of an earlier attempt.

        Raises Refused, Busy, Unresolved, Silent or BrokenOff; OSError where the file cannot be written.
        """
        state = _PartialFile(partial)
        offset, tag = state.resumable()
        headers = {"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5"}
        if tag:
            headers |= {"Range": f"bytes={offset}-", "If-Range": tag}
        try:
            answer = self._opener.open(urllib.request.Request(_plain(url), headers=headers), timeout=self.timeout_s)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:  # the range of an earlier attempt does not fit this file
                    state.restart(None)
                raise _of_status(error) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            raise _of_connection(error, self.timeout_s) from error
        except ValueError as error:
            raise Refused(f"not a URL: {error}") from error
        if answer is None:
            raise Refused("only http and https are fetched")
        with answer:
            self._receive(answer, state, offset if tag else 0)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            for sock in self._sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _watch(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
            if self._cancelled:
                raise ConnectionAbortedError("cancelled")

    def _receive(self, answer: http.client.HTTPResponse, state: _PartialFile, offset: int) -> None:
        length = answer.length  # None where the server did not say, or said nonsense
        if answer.status == 206:
            start = _range_start(answer.headers.get("Content-Range"))
            if start is None or start != offset:
                state.restart(None)
                raise BrokenOff(f"the server sent another part of the file than bytes {offset} and following")
        else:
            offset = 0
            state.restart(_validator(answer.headers))
        expected = None if length is None else offset + length
        if expected is not None and expected > self.max_bytes:
            raise Refused(f"{expected} bytes, at most {self.max_bytes} are accepted")
        received = offset
        started = time.monotonic()
        with state.path.open("ab", buffering=0) as stream:
            while chunk := self._read(answer, received, expected):
                _write_all(stream, chunk)
                received += len(chunk)
                if received > self.max_bytes:
                    raise Refused(f"more than {self.max_bytes} bytes")
                elapsed = time.monotonic() - started
                if elapsed > self.timeout_s and (received - offset) / elapsed < _LEAST_BYTES_PER_S:
                    raise BrokenOff(f"slower than {_LEAST_BYTES_PER_S} bytes a second, given up after {elapsed:.0f} s")
        if expected is not None and received != expected:
            raise BrokenOff(f"the answer broke off after {received} of {expected} bytes")

    def _read(self, answer: http.client.HTTPResponse, received: int, expected: int | None) -> bytes:
        of = "" if expected is None else f" of {expected}"
        try:
            return answer.read1(_CHUNK)
        except TimeoutError as error:
            raise BrokenOff(f"nothing came for {self.timeout_s:g} s after {received}{of} bytes") from error
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise BrokenOff(f"the answer broke off after {received}{of} bytes") from error


class _PartialFile:
    """What has come of a file, and beside it (`.tag`) what names this version of it to the server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tag = tag_of(path)

    def resumable(self) -> tuple[int, str | None]:
        """The bytes that are there, and the version they belong to (None: begin afresh)."""
        size = self.path.stat().st_size
        try:
            tag = self.tag.read_text(encoding="latin-1") if size else ""
        except OSError:
            tag = ""
        return size, tag or None

    def restart(self, tag: str | None) -> None:
        with self.path.open("r+b") as stream:
            stream.truncate(0)
        if tag is None:
            self.tag.unlink(missing_ok=True)
        else:
            self.tag.write_text(tag, encoding="latin-1")


def tag_of(partial: Path) -> Path:
    """Where the version of a partial file's content is noted."""
    return partial.with_name(f"{partial.name}.tag")


def _write_all(stream: IO[bytes], chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[stream.write(view) :]


def _plain(url: str) -> str:
    """The URL in ASCII. Spaces and Korean are common in such lists; what is quoted already stays as it is."""
    parts = urlsplit(url)
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    path, query = quote(parts.path, "/%:@!$&'()*+,;=~"), quote(parts.query, "=&%+/?:@,;")
    return urlunsplit(parts._replace(netloc=host, path=path, query=query, fragment=""))


def _validator(headers: Any) -> str | None:
    """What names this version of a file in `If-Range`: a strong entity tag, else the time of its last change."""
    tag = headers.get("ETag", "")
    if tag.startswith('"'):
        return str(tag)
    return headers.get("Last-Modified")


def _range_start(content_range: str | None) -> int | None:
    unit, _, rest = (content_range or "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isascii() and start.isdigit() else None


def retry_after_s(text: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date. None where it is neither."""
    text = (text or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _of_status(error: urllib.error.HTTPError) -> Exception:
    reason = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".strip()
    if 300 <= error.code < 400:
        return Refused(f"{reason}: {redirect_problem(error.headers.get('Location'))}")
    if error.code in _BUSY:
        return Busy(reason, retry_after_s(error.headers.get("Retry-After")))
    if error.code in _TEMPORARY or error.code == 416:
        return BrokenOff(reason)
    return Refused(reason)


def _of_connection(error: BaseException, timeout_s: float) -> Exception:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, http.client.InvalidURL):
        return Refused(f"not a URL: {cause}")
    if isinstance(cause, socket.gaierror):
        return Unresolved(cause.strerror or str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(f"the server's certificate is not valid: {cause.verify_message}")
    if isinstance(cause, str):  # urllib's own words, for instance of a scheme it does not know
        return Refused(cause)
    if isinstance(cause, TimeoutError):
        return Silent(f"no answer within {timeout_s:g} s")
    return Silent((getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).splitlines()[0][:200])
