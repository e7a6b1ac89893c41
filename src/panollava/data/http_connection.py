"""Connections of which every wait is bounded, and redirects that stay with http and https.

A time-out and a function that is told each socket enter; urllib's opener leaves, with proxies as the environment says
(http_proxy, https_proxy, no_proxy). It knows no other scheme: not file, not ftp, not data.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

MAX_REDIRECTS = 5
Watch = Callable[[socket.socket], None]


def make_opener(header_within_s: float, watch: Watch) -> urllib.request.OpenerDirector:
    """An opener whose servers must send their header within so many seconds; `watch` is told each socket."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Plain(header_within_s, watch),
        _Encrypted(header_within_s, watch),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def redirect_problem(location: str | None) -> str:
    """Why a redirect to `location` was not followed."""
    if location is None:
        return "a redirect to nowhere"
    if urlsplit(location).scheme not in ("", "http", "https"):
        return f"redirected to {location[:100]!r}, only http and https are followed"
    return f"redirected in a circle, or more than {MAX_REDIRECTS} times"


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS
    max_repeats = 2

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):  # urllib itself would follow to ftp
            raise urllib.error.HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Connection(http.client.HTTPConnection):
    def __init__(self, header_within_s: float, watch: Watch, host: str, **options: Any) -> None:
        self._header_within_s, self._watch = header_within_s, watch
        super().__init__(host, **options)

    def connect(self) -> None:
        super().connect()
        self._watch(self.sock)

    def getresponse(self) -> http.client.HTTPResponse:
        with _within(self.sock, self._header_within_s):
            return super().getresponse()


class _EncryptedConnection(_Connection, http.client.HTTPSConnection):
    pass


class _Plain(urllib.request.HTTPHandler):
    def __init__(self, header_within_s: float, watch: Watch) -> None:
        super().__init__()
        self._connection = partial(_Connection, header_within_s, watch)

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req)


class _Encrypted(urllib.request.HTTPSHandler):
    def __init__(self, header_within_s: float, watch: Watch) -> None:
        super().__init__()
        self._connection = partial(_EncryptedConnection, header_within_s, watch)
        self._certificates = ssl.create_default_context()

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection, req, context=self._certificates)


@contextmanager
def _within(sock: socket.socket, seconds: float) -> Iterator[None]:
    """A server that sends its header byte by byte never trips the socket's time-out: then the socket is shut."""
    late = threading.Event()

    def shut() -> None:
        late.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if late.is_set():
            raise TimeoutError(f"no answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"no answer within {seconds:g} s")
