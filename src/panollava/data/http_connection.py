"""A requests session of which every wait is bounded and every request can be cancelled.

urllib3's connections are made to send their header within a time (a server that sends it byte by byte never trips a
socket's time-out), and to name their sockets, so that another thread can shut them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema
from requests.utils import select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.response import BaseHTTPResponse

from panollava.data.addresses import public_addresses, refuse_private_host

MAX_REDIRECTS = 5
Watch = Callable[[socket.socket], None]


def make_session(
    header_within_s: float, watch: Watch, connections: int = 16, *, allow_private: bool = False
) -> Session:
    """A session for http and https, with proxies as the environment names them; it keeps neither cookies nor passwords.

    Servers must send their header within so many seconds; `watch` is called with each socket. Without `allow_private` a
    connection to an address of this machine or its network raises PrivateAddress, redirected or not.
    """
    session = _Session()
    session.max_redirects = MAX_REDIRECTS
    session.auth = _no_auth  # else passwords of ~/.netrc would be sent
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(header_within_s, watch, connections, allow_private))
    return session


class _Session(Session):
    def get_redirect_target(self, resp: Response) -> str | None:
        target = super().get_redirect_target(resp)
        if target is not None and urlsplit(target).scheme.lower() not in ("", "http", "https"):
            raise InvalidSchema(f"redirected to {target[:100]!r}, only http and https are followed", response=resp)
        return target


def _no_auth(request: PreparedRequest) -> PreparedRequest:
    return request


class _Adapter(HTTPAdapter):
    def __init__(self, header_within_s: float, watch: Watch, connections: int, allow_private: bool) -> None:
        self._allow_private = allow_private

        class Connection(_Watched, HTTPConnection):
            pass

        class EncryptedConnection(_Watched, HTTPSConnection):
            pass

        for kind in (Connection, EncryptedConnection):
            kind.header_within_s, kind.watch = header_within_s, staticmethod(watch)
            kind.allow_private = allow_private
        self._pools = {
            "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": Connection}),
            "https": type("EncryptedPool", (HTTPSConnectionPool,), {"ConnectionCls": EncryptedConnection}),
        }
        super().__init__(pool_connections=connections, pool_maxsize=connections)

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        url, proxies = str(request.url), options.get("proxies") or {}
        if not self._allow_private and select_proxy(url, proxies):
            refuse_private_host(urlsplit(url).hostname or "")  # the connection's own address is the proxy's
        return super().send(request, *args, **options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


class _Watched(HTTPConnection):
    header_within_s: float
    watch: Watch
    allow_private: bool

    def _new_conn(self) -> socket.socket:
        """Connect to an address that was looked at: asked again, a name might have another one."""
        if self.allow_private or self.proxy is not None:  # the user's own proxy may be anywhere
            return super()._new_conn()
        try:
            addresses = public_addresses(self._dns_host, self.port or self.default_port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        host = self._dns_host
        try:
            for address in addresses[:-1]:
                self._dns_host = address
                with suppress(NewConnectionError, ConnectTimeoutError):
                    return super()._new_conn()
            self._dns_host = addresses[-1]
            return super()._new_conn()
        finally:
            self._dns_host = host

    def connect(self) -> None:
        super().connect()
        self.watch(self.sock)

    def getresponse(self) -> BaseHTTPResponse:  # type: ignore[override]
        with _within(self.sock, self.header_within_s):
            return super().getresponse()


@contextmanager
def _within(sock: socket.socket, seconds: float) -> Iterator[None]:
    """Shut the socket where the block takes longer."""
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
    except Exception as error:
        if late.is_set():
            raise TimeoutError(f"no answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"no answer within {seconds:g} s")
