"""An HTTP server on 127.0.0.1 that misbehaves on demand: the first part of a path says how."""

from __future__ import annotations

import gzip
import http.server
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate


class OddServer(http.server.ThreadingHTTPServer):
    """Serves `pictures[name]` as `/HOW/name`. It counts requests, and how many slow ones were under way at once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.base = f"http://127.0.0.1:{self.server_port}"
        self.forget()

    def forget(self) -> None:
        self.pictures: dict[str, bytes] = {}
        self.tags: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.ranges: dict[str, list[str | None]] = {}
        self.times: dict[str, list[float]] = {}
        self.at_once = self.most_at_once = 0

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up is no news


@contextmanager
def odd_server() -> Iterator[OddServer]:
    server = OddServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: OddServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked[self.path] += 1
            server.ranges.setdefault(self.path, []).append(self.headers.get("Range"))
            server.times.setdefault(self.path, []).append(time.monotonic())
        self.first = server.asked[self.path] == 1
        how, _, name = self.path.lstrip("/").partition("/")
        self.content = server.pictures.get(name, b"")
        self.tag = server.tags.get(name)
        getattr(self, how, self.absent)()

    def answer(self, status: int = 200, body: bytes | None = None, length: int | None = None, **headers: str) -> None:
        body = self.content if body is None else body
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        if length is None or length >= 0:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        if self.tag and status in (200, 206):
            self.send_header("ETag", self.tag)
        self.end_headers()
        self.wfile.write(body)

    def rest(self, body: bytes) -> None:
        """Answer a request for a range, unless it is for another version than there is: then send the whole."""
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range", self.tag) == self.tag:
            start = int(wanted[1])
            self.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.answer(body=body)

    def wait(self, seconds: float = 60.0) -> None:
        self.server.closing.wait(seconds)

    # ---- well-meaning ----
    def ok(self) -> None:
        self.rest(self.content)

    def slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.count_at_once(1)
        for start in range(0, len(self.content) - 1, 1000):
            self.wfile.write(self.content[start : min(start + 1000, len(self.content) - 1)])
            self.wait(0.01)
        self.count_at_once(-1)  # before the last byte: the client may ask for its next file as soon as it has that
        self.wfile.write(self.content[-1:])

    def count_at_once(self, more: int) -> None:
        with self.server.lock:
            self.server.at_once += more
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)

    def chunked(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        half = len(self.content) // 2
        for part in (self.content[:half], self.content[half:]):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def unmeasured(self) -> None:
        self.answer(length=-1)

    def as_html(self) -> None:
        self.answer(Content_Type="text/html")

    def moved(self) -> None:
        self.answer(302, b"", Location=f"/ok/{self.path.rpartition('/')[2]}")

    # ---- at first only ----
    def flaky(self) -> None:
        self.answer(500, b"") if self.first else self.ok()

    def breaks(self) -> None:
        self.answer(body=self.content[: len(self.content) // 2], length=len(self.content)) if self.first else self.ok()

    def breaks_and_waits(self) -> None:
        """Half of it, then nothing."""
        if self.first:
            self.answer(body=self.content[: len(self.content) // 2], length=len(self.content))
            self.wait()
        else:
            self.ok()

    def busy(self) -> None:
        self.answer(429, b"", Retry_After="1") if self.first else self.ok()

    def busy_by_date(self) -> None:
        self.answer(503, b"", Retry_After=formatdate(time.time() + 2, usegmt=True)) if self.first else self.ok()

    def busy_without_a_word(self) -> None:
        self.answer(429, b"") if self.first else self.ok()

    def damaged(self) -> None:
        self.answer(body=self.content[: len(self.content) // 2]) if self.first else self.ok()

    # ---- broken ----
    def absent(self) -> None:
        self.answer(404, b"nothing here")

    def gone(self) -> None:
        self.answer(410, b"")

    def forbidden(self) -> None:
        self.answer(403, b"")

    def error(self) -> None:
        self.answer(500, b"")

    def always_busy(self) -> None:
        self.wait(0.02)  # so that requests are under way together
        self.answer(429, b"")

    def busy_for_an_hour(self) -> None:
        self.answer(429, b"", Retry_After="3600")

    def truncates(self) -> None:
        self.answer(body=self.content[: len(self.content) // 2], length=len(self.content))

    def truncates_silently(self) -> None:
        self.answer(body=self.content[: len(self.content) // 2], length=-1)

    def says_less(self) -> None:
        self.answer(length=len(self.content) // 2)

    def nonsense_length(self) -> None:
        self.answer(length=-1, Content_Length="many")

    def chunks_break(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%s" % (len(self.content), self.content[:100]))

    def page(self) -> None:
        self.answer(body=b"<!DOCTYPE html><title>Sign in</title>", Content_Type="image/jpeg")

    def nothing(self) -> None:
        self.answer(body=b"")

    def no_content(self) -> None:
        self.answer(204, b"")

    def zipped(self) -> None:
        self.answer(body=gzip.compress(self.content), Content_Encoding="gzip")

    def huge(self) -> None:
        self.answer(body=b"", length=10**12)

    def endless(self) -> None:
        self.answer(body=b"", length=-1)
        while not self.server.closing.is_set():
            self.wfile.write(bytes(1 << 16))

    def hangs(self) -> None:
        self.wait()

    def hangs_in_the_header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for _ in range(200):
            self.wfile.write(b"X-Drip: drop\r\n")
            self.wait(0.05)

    def hangs_in_the_middle(self) -> None:
        self.answer(body=self.content[:100], length=len(self.content))
        self.wait()

    def trickles(self) -> None:
        self.answer(body=b"", length=len(self.content))
        for place in range(len(self.content)):
            self.wfile.write(self.content[place : place + 1])
            self.wait(0.05)

    def gibberish(self) -> None:
        self.wfile.write(b"\x00\x01 hello\r\n\r\n")

    def hangs_up(self) -> None:
        self.close_connection = True

    def circle(self) -> None:
        self.answer(302, b"", Location=self.path)

    def maze(self) -> None:
        self.answer(302, b"", Location=f"/maze/{self.server.asked.total()}")

    def to_a_file(self) -> None:
        self.answer(302, b"", Location="file:///etc/passwd")

    def to_ftp(self) -> None:
        self.answer(301, b"", Location="ftp://127.0.0.1/picture.png")

    def to_localhost(self) -> None:
        self.answer(302, b"", Connection="close", Location=f"http://localhost:{self.server.server_port}/ok/a.png")

    def to_data(self) -> None:
        self.answer(307, b"", Location="data:image/png;base64,AAAA")

    def to_nowhere(self) -> None:
        self.answer(302, b"")

    def another_range(self) -> None:
        if self.headers.get("Range"):
            self.answer(206, self.content[7:], Content_Range=f"bytes 7-{len(self.content) - 1}/{len(self.content)}")
        else:
            self.answer()

    def no_such_range(self) -> None:
        self.answer(416, b"") if self.headers.get("Range") else self.answer()
