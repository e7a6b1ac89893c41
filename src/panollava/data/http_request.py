"""One HTTP request: append a URL's content to a partial file, or raise an error with what helps.

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
import weakref
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlsplit, urlunsplit

from requests import Response
from requests import exceptions as failures
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from panollava import __version__
from panollava.data.addresses import PrivateAddress
from panollava.data.http_connection import MAX_REDIRECTS, make_session

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
    allow_private: bool = False
    _sockets: weakref.WeakSet[socket.socket] = field(default_factory=weakref.WeakSet, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _cancelled: bool = False

    def __post_init__(self) -> None:
        self._session = make_session(self.timeout_s, self._watch, allow_private=self.allow_private)

    def fetch(self, url: str, partial: Path) -> None:
        """Complete `partial`, which exists and may hold the beginning of an earlier attempt.

        Raises Refused, Busy, Unresolved, Silent or BrokenOff; OSError where the file cannot be written.
        """
        state = _PartialFile(partial)
        offset, tag = state.resumable()
        headers = {"User-Agent": USER_AGENT, "Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity"}
        if tag:
            headers |= {"Range": f"bytes={offset}-", "If-Range": tag}
        try:
            answer = self._session.get(_plain(url), headers=headers, timeout=self.timeout_s, stream=True)
        except PrivateAddress as error:
            raise Refused(str(error)) from error
        except failures.RequestException as error:
            raise _of_failure(error, self.timeout_s) from error
        except (HTTPError, OSError) as error:
            raise _of_cause(error, self.timeout_s) from error
        except ValueError as error:
            raise Refused(f"not a URL: {error}") from error
        with answer:
            if answer.status_code == 416:  # the range of an earlier attempt does not fit this file
                state.restart(None)
            if not 200 <= answer.status_code < 300:
                raise _of_status(answer)
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

    def _receive(self, answer: Response, state: _PartialFile, offset: int) -> None:
        length = answer.raw.length_remaining  # None where the server did not say, or said nonsense
        if answer.status_code == 206:
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
            for chunk in self._chunks(answer, offset, expected):
                _write_all(stream, chunk)
                received += len(chunk)
                if received > self.max_bytes:
                    raise Refused(f"more than {self.max_bytes} bytes")
                elapsed = time.monotonic() - started
                if elapsed > self.timeout_s and (received - offset) / elapsed < _LEAST_BYTES_PER_S:
                    raise BrokenOff(f"slower than {_LEAST_BYTES_PER_S} bytes a second, given up after {elapsed:.0f} s")
        if expected is not None and received != expected:
            raise BrokenOff(f"the answer broke off after {received} of {expected} bytes")

    def _chunks(self, answer: Response, received: int, expected: int | None) -> Iterator[bytes]:
        """The body as it comes, undecoded."""
        of = "" if expected is None else f" of {expected}"
        while True:
            try:
                chunk = answer.raw.read1(_CHUNK, decode_content=False)
            except (HTTPError, http.client.HTTPException, OSError, ValueError) as error:
                if isinstance(_root(error), TimeoutError):
                    raise BrokenOff(f"nothing came for {self.timeout_s:g} s after {received}{of} bytes") from error
                raise BrokenOff(f"the answer broke off after {received}{of} bytes") from error
            if not chunk:
                return
            received += len(chunk)
            yield chunk


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


def retry_after_s(text: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or a date. None where it is neither."""
    try:
        return Retry().parse_retry_after(text) if text else None
    except InvalidHeader:
        return None


def _of_status(answer: Response) -> Exception:
    code = answer.status_code
    reason = f"HTTP {code} {http.client.responses.get(code, '')}".strip()
    if 300 <= code < 400:
        return Refused(f"{reason}: a redirect to nowhere")
    if code in _BUSY:
        return Busy(reason, retry_after_s(answer.headers.get("Retry-After")))
    if code in _TEMPORARY or code == 416:
        return BrokenOff(reason)
    return Refused(reason)


def _of_failure(error: failures.RequestException, timeout_s: float) -> Exception:
    """What requests raises before there is an answer, or on the way through redirects."""
    if isinstance(error, failures.TooManyRedirects):
        return Refused(f"{_redirect(error.response)}redirected in a circle, or more than {MAX_REDIRECTS} times")
    if isinstance(error, failures.InvalidSchema):
        return Refused(f"{_redirect(error.response)}{error}")
    if isinstance(error, (failures.InvalidURL, failures.MissingSchema)):
        return Refused(f"not a URL: {error}")
    if isinstance(error, failures.Timeout):
        return Silent(f"no answer within {timeout_s:g} s")
    return _of_cause(error, timeout_s)


def _of_cause(error: BaseException, timeout_s: float) -> Exception:
    cause = _root(error)
    if isinstance(cause, socket.gaierror):
        return Unresolved(cause.strerror or str(cause))
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Refused(f"the server's certificate is not valid: {cause.verify_message}")
    if isinstance(cause, TimeoutError):
        return Silent(f"no answer within {timeout_s:g} s")
    return Silent((getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).splitlines()[0][:200])


def _redirect(answer: Response | None) -> str:
    return "" if answer is None else f"HTTP {answer.status_code} {answer.reason}: "


def _root(error: BaseException) -> BaseException:
    """What first went wrong, below the exceptions that urllib3 and requests wrap around it."""
    while True:
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((part for part in error.args if isinstance(part, BaseException)), None)
        inner = inner or error.__cause__ or error.__context__
        if inner is None:
            return error
        error = inner
