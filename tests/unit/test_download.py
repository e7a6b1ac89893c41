"""Downloads: what a server can do wrong, each answered in bounded time by a file or by a reason."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_server import OddServer, odd_server
from PIL import Image

from panollava.data import addresses
from panollava.data.addresses import is_public
from panollava.data.download import DownloadError, ImageCache
from panollava.data.hosts import Host, Manners
from panollava.data.http_request import Busy, retry_after_s
from panollava.data.prepare import prepare_csv
from panollava.data.samples import read_rows
from panollava.errors import DataError
from panollava.locks import Cancelled
from panollava.views.panorama import PanoramaError


def picture(size: tuple[int, int] = (64, 32), seed: int = 0, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


PICTURE = picture()


@pytest.fixture(scope="module")
def running() -> Iterator[OddServer]:
    with odd_server() as server:
        yield server


@pytest.fixture
def server(running: OddServer) -> OddServer:
    running.forget()
    running.pictures = {"a.png": PICTURE, "square.png": picture((32, 32))}
    return running


def cache_in(folder: Path, **settings: Any) -> ImageCache:
    """A cache in a hurry, but for time-outs: machines of tests are slow."""
    manners = {"first_pause_s": 0.01, "longest_pause_s": 2.0, **settings.pop("manners", {})}
    return ImageCache(
        folder / "cache",
        **{"attempts": 2, "timeout_s": 5.0, "allow_private": True, **settings},
        manners=Manners(**manners),
    )


@pytest.mark.parametrize(
    "how",
    ["ok", "slow", "chunked", "unmeasured", "as_html", "moved", "flaky", "breaks", "damaged", "breaks_and_waits",
     "busy_without_a_word", "nonsense_length"],
)  # fmt: skip
def test_what_can_be_had_is_had_once(tmp_path: Path, server: OddServer, how: str) -> None:
    cache = cache_in(tmp_path, timeout_s=0.5 if how == "breaks_and_waits" else 5)
    file = cache(f"{server.base}/{how}/a.png")
    asked = server.asked.total()
    assert file.read_bytes() == PICTURE and file == cache(f"{server.base}/{how}/a.png")
    assert server.asked.total() == asked
    assert sorted(file.parent.iterdir()) == [file]  # nothing partial is left
    assert cache.summary().startswith("1 images downloaded") and "1 were in" in cache.summary()


@pytest.mark.parametrize(
    ("how", "reason", "requests"),
    [
        ("absent", "HTTP 404 Not Found", 1),
        ("gone", "HTTP 410 Gone", 1),
        ("forbidden", "HTTP 403 Forbidden", 1),
        ("error", "HTTP 500 Internal Server Error \\(tried 2 times\\)", 2),
        ("always_busy", "HTTP 429 Too Many Requests \\(tried 2 times\\)", 2),
        ("busy_for_an_hour", "asks to wait 3600 s \\(HTTP 429 Too Many Requests\\)", 1),
        ("truncates", f"the answer broke off after {len(PICTURE) // 2} of {len(PICTURE)} bytes \\(tried 2 times\\)", 2),
        ("truncates_silently", "truncated", 2),
        ("says_less", "truncated", 2),
        ("chunks_break", "the answer broke off after", 2),
        ("page", "not an image: it begins with b'<!DOCTYP'", 2),
        ("nothing", "truncated: the file is empty", 2),
        ("no_content", "truncated: the file is empty", 2),
        ("zipped", "not an image", 2),
        ("huge", "1000000000000 bytes, at most 100000 are accepted", 1),
        ("endless", "more than 100000 bytes", 1),
        ("hangs", "no answer within 0.5 s \\(tried 2 times\\)", 2),
        ("hangs_in_the_header", "no answer within 0.5 s \\(tried 2 times\\)", 2),
        ("hangs_in_the_middle", f"nothing came for 0.5 s after 100 of {len(PICTURE)} bytes \\(tried 2 times\\)", 2),
        ("trickles", "slower than 1024 bytes a second|nothing came for 0.5 s", 2),
        ("gibberish", "tried 2 times", 2),
        ("hangs_up", "tried 2 times", 2),
        ("circle", "HTTP 302 Found: redirected in a circle, or more than 5 times", 6),
        ("maze", "HTTP 302 Found: redirected in a circle, or more than 5 times", 1),
        ("to_a_file", "HTTP 302 Found: redirected to 'file:///etc/passwd', only http and https are followed", 1),
        ("to_ftp", "HTTP 301 Moved Permanently: redirected to 'ftp://127.0.0.1/picture.png', only http", 1),
        ("to_data", "HTTP 307 Temporary Redirect: redirected to 'data:image/png", 1),
        ("to_nowhere", "HTTP 302 Found: a redirect to nowhere", 1),
    ],
)  # fmt: skip
def test_what_cannot_be_had_has_its_reason(
    tmp_path: Path, server: OddServer, how: str, reason: str, requests: int
) -> None:
    waits = how.startswith(("hangs_in", "trickles")) or how == "hangs"
    cache = cache_in(tmp_path, max_bytes=100_000, timeout_s=0.5 if waits else 5)
    started = time.monotonic()
    with pytest.raises((DownloadError, PanoramaError)) as caught:
        cache(f"{server.base}/{how}/a.png")
    assert re.search(reason, str(caught.value))
    assert server.asked[f"/{how}/a.png"] == requests
    assert time.monotonic() - started < 10
    assert not [path for path in cache.folder.iterdir() if not path.name.startswith(".")]


def test_a_picture_of_another_shape_is_kept_but_refused_and_comes_once(tmp_path: Path, server: OddServer) -> None:
    for _ in range(2):
        with pytest.raises(PanoramaError, match="not about 2:1: 32 x 32"):
            cache_in(tmp_path)(f"{server.base}/ok/square.png")
    assert server.asked.total() == 1


def test_a_file_that_was_damaged_since_comes_again(tmp_path: Path, server: OddServer) -> None:
    cache = cache_in(tmp_path)
    file = cache(f"{server.base}/ok/a.png")
    file.write_bytes(PICTURE[:500])
    assert cache(f"{server.base}/ok/a.png").read_bytes() == PICTURE
    assert server.asked.total() == 2


@pytest.mark.parametrize("how", ["busy", "busy_by_date"])
def test_retry_after_is_honoured(tmp_path: Path, server: OddServer, how: str) -> None:
    cache_in(tmp_path)(f"{server.base}/{how}/a.png")
    first, second = server.times[f"/{how}/a.png"]
    assert second - first >= 0.95


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), (" 0 ", 0.0), ("Wed, 21 Oct 2015 07:00:00 GMT", 0.0), ("soon", None), ("-5", None), ("", None),
     (None, None), ("1.5", None), ("٣", None)],
)  # fmt: skip
def test_retry_after_values(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text) == seconds


def test_retry_after_a_date() -> None:
    waits = retry_after_s(formatdate(time.time() + 30, usegmt=True))
    assert waits is not None and 25 < waits <= 30


def test_a_busy_host_is_asked_by_fewer_and_its_refusals_count_together(tmp_path: Path, server: OddServer) -> None:
    cache = cache_in(tmp_path, attempts=4, manners={"busy_limit": 3, "first_pause_s": 0.05})
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(lambda n: _reason(cache, f"{server.base}/always_busy/{n}.png"), range(20)))
    assert all("asked to wait 3 times in a row (HTTP 429 Too Many Requests)" in reason for reason in reasons)
    assert 3 <= server.asked.total() <= 4 + 2 + 1  # 4 at once, then 2, then 1
    assert time.monotonic() - started > 0.75 * (0.05 + 0.1)  # the pauses between them
    assert cache.given_up == [reasons[0]]


@pytest.mark.parametrize(("answers", "trusted"), [(4, False), (5, True)])
def test_a_host_that_was_busy_is_trusted_again_by_and_by(answers: int, trusted: bool) -> None:
    host = Host("h", Manners(at_once=2, trust_after=5, first_pause_s=0.01), threading.Event())
    with pytest.raises(Busy), host.turn():
        raise Busy("HTTP 429", None)
    for _ in range(answers):
        with host.turn():
            pass
    entered = threading.Event()

    def two_at_once() -> None:
        with suppress(Cancelled), host.turn(), host.turn():
            entered.set()

    thread = threading.Thread(target=two_at_once)
    thread.start()
    assert entered.wait(5 if trusted else 0.2) == trusted
    host.cancelled.set()
    host.wake()
    thread.join()


def test_a_host_gets_no_more_requests_at_once_than_is_polite(tmp_path: Path, server: OddServer) -> None:
    server.pictures = {f"{n}.png": PICTURE for n in range(12)}
    cache = cache_in(tmp_path, manners={"at_once": 3})
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda n: cache(f"{server.base}/slow/{n}.png"), range(12)))
    assert server.most_at_once == 3


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9 did not answer 3 times in a row (Connection refused)"),
        ("http://no-such-host.invalid", "no-such-host.invalid cannot be found"),
    ],
)
def test_a_host_that_is_not_there_is_given_up(tmp_path: Path, base: str, reason: str) -> None:
    cache = cache_in(tmp_path, manners={"silent_limit": 3, "unresolved_limit": 3})
    started = time.monotonic()
    reasons = [_reason(cache, f"{base}/{n}.jpg") for n in range(200)]
    assert reason in reasons[-1] and reason in cache.given_up[0]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "url",
    ["http://", "https:///x.jpg", "https://[/x.jpg", "http://exa mple/x.jpg", "http://a:port/x.jpg", "http://a:99999/x",
     "file:///etc/passwd", "ftp://127.0.0.1/x.jpg", "data:image/png;base64,AAAA", "//127.0.0.1/x.jpg", "x.jpg",
     "http://a\r\nX: y/x.jpg", "http://" + "a" * 70 + "é/x.jpg"],
)  # fmt: skip
def test_what_is_no_http_url_is_not_fetched(tmp_path: Path, url: str) -> None:
    cache = cache_in(tmp_path, attempts=1)
    assert _reason(cache, url).startswith(("not a URL", "cannot be found", "Name or service", "Temporary failure", "["))


# ---- going on where it was -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "tag", "ranges"),
    [
        ("breaks", '"v1"', [None, "bytes={half}-"]),
        ("breaks", None, [None, None]),
        ("breaks", 'W/"v1"', [None, None]),  # a weak tag does not vouch for bytes
    ],
)
def test_the_rest_of_a_broken_file_is_asked_for(
    tmp_path: Path, server: OddServer, how: str, tag: str | None, ranges: list[str | None]
) -> None:
    if tag:
        server.tags["a.png"] = tag
    cache = cache_in(tmp_path)
    assert cache(f"{server.base}/{how}/a.png").read_bytes() == PICTURE
    half = len(PICTURE) // 2
    assert server.ranges[f"/{how}/a.png"] == [text and text.format(half=half) for text in ranges]


@pytest.mark.parametrize("how", ["ok", "another_range", "no_such_range"])
def test_a_partial_file_of_another_version_is_not_mixed_in(tmp_path: Path, server: OddServer, how: str) -> None:
    """A BMP, because in that nobody would notice afterwards."""
    url = f"{server.base}/{how}/a.bmp"
    server.pictures["a.bmp"] = picture(form="BMP")
    cache = cache_in(tmp_path)
    target = cache.path_of(url)
    target.parent.mkdir()
    partial = target.with_name(f".{target.name}.partial")
    partial.write_bytes(picture(seed=1, form="BMP")[:1000])
    partial.with_name(f"{partial.name}.tag").write_text('"old"')
    server.tags["a.bmp"] = '"new"'
    assert cache(url).read_bytes() == server.pictures["a.bmp"]
    assert sorted(cache.folder.iterdir()) == [target]


def test_after_kill_9_finished_files_stay_and_the_others_go_on(tmp_path: Path, server: OddServer) -> None:
    server.tags["a.png"] = '"v1"'
    urls = [f"{server.base}/{how}/a.png" for how in ("ok", "breaks_and_waits", "slow")]
    csv = tmp_path / "in.csv"
    csv.write_text("url,query,annotation\n" + "".join(f"{url},q,x\n" for url in urls))
    command = [sys.executable, "-m", "panollava", "prepare", "in.csv", "--output-dir", "out",
               "--allow-private-addresses"]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: len(list(tmp_path.glob("cache/images/[!.]*"))) == 2 and _sizes(tmp_path) == [len(PICTURE) // 2])
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    cache = ImageCache(tmp_path / "cache/images", allow_private=True)
    summary = prepare_csv([csv], tmp_path / "out.csv", tmp_path / "r.csv", root=tmp_path, fetch=cache, progress=False)
    assert summary.num_accepted == 3 and len(read_rows(tmp_path / "out.csv")) == 3
    assert [server.asked[f"/{how}/a.png"] for how in ("ok", "slow", "breaks_and_waits")] == [1, 1, 2]
    assert server.ranges["/breaks_and_waits/a.png"] == [None, f"bytes={len(PICTURE) // 2}-"]
    assert "1 images downloaded (1 of them continued)" in cache.summary() and "2 were in" in cache.summary()


def test_ctrl_c_ends_soon_and_says_what_stays(tmp_path: Path, server: OddServer) -> None:
    rows = "".join(f"{server.base}/hangs/{n}.png,q,x\n" for n in range(30))
    (tmp_path / "in.csv").write_text(f"url,query,annotation\n{rows}")
    command = [sys.executable, "-m", "panollava", "prepare", "in.csv", "--output-dir", "out",
               "--allow-private-addresses"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # counts also in a shell's background
    )  # fmt: skip
    _until(lambda: server.asked.total() >= 4)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and time.monotonic() - started < 25  # one request alone would wait for 30 s
    assert "what was downloaded is kept" in said and said.endswith("interrupted\n") and "Traceback" not in said


def test_two_processes_share_one_download(tmp_path: Path, server: OddServer) -> None:
    caches = [cache_in(tmp_path) for _ in range(4)]  # each opens and locks the partial file for itself
    with ThreadPoolExecutor(4) as pool:
        files = set(pool.map(lambda cache: cache(f"{server.base}/slow/a.png"), caches))
    assert len(files) == 1 and files.pop().read_bytes() == PICTURE
    assert server.asked.total() == 1 and len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize("how", ["hangs", "hangs_in_the_middle", "endless", "always_busy"])
def test_cancelled_downloads_end_at_once(tmp_path: Path, server: OddServer, how: str) -> None:
    cache = cache_in(tmp_path, timeout_s=60, attempts=9, manners={"first_pause_s": 60, "longest_pause_s": 60})
    threading.Timer(0.2, cache.cancel).start()
    started = time.monotonic()
    with pytest.raises((Cancelled, DownloadError)):
        cache(f"{server.base}/{how}/a.png")
    assert time.monotonic() - started < 10


# ---- prepared ------------------------------------------------------------------------------------
def test_a_csv_of_urls_good_and_bad(tmp_path: Path, server: OddServer) -> None:
    names = ("ok/a.png", "ok/사 .png", "flaky/a.png", "busy_without_a_word/a.png", "absent/a.png", "page/a.png",
             "ok/square.png", "to_a_file/a.png", "ok/a.png")  # fmt: skip
    server.pictures |= {"%EC%82%AC%20.png": PICTURE}
    csv = tmp_path / "in.csv"
    csv.write_text("url,query,annotation\n" + "".join(f"{server.base}/{name},q,{name}\n" for name in names))
    for run in range(2):
        summary = prepare_csv(
            [csv], tmp_path / "out.csv", tmp_path / "rejected.csv", fetch=cache_in(tmp_path), root=tmp_path,
            max_rejected_fraction=0.5, progress=False,
        )  # fmt: skip
        assert [row.annotation for row in read_rows(tmp_path / "out.csv")] == [*names[:4], "ok/a.png"], run
        assert summary.reasons == {"download failed": 2, "not an image": 1, "not about 2:1": 1}
    assert server.asked["/ok/a.png"] == server.asked["/ok/square.png"] == 1
    assert (tmp_path / read_rows(tmp_path / "out.csv")[0].image_path).read_bytes() == PICTURE


def test_what_failed_for_the_moment_is_tried_again_at_the_end(tmp_path: Path, server: OddServer) -> None:
    csv = tmp_path / "in.csv"
    csv.write_text(f"url,query,annotation\n{server.base}/flaky/a.png,q,x\n")
    summary = prepare_csv(
        [csv], tmp_path / "out.csv", tmp_path / "r.csv", fetch=cache_in(tmp_path, attempts=1), root=tmp_path,
        progress=False,
    )  # fmt: skip
    assert summary.num_accepted == 1 and server.asked.total() == 2


def test_without_a_network_the_error_says_so_and_all_rows_are_kept(tmp_path: Path) -> None:
    csv = tmp_path / "in.csv"
    csv.write_text("url,query,annotation\n" + "".join(f"http://no.invalid/{n}.jpg,q,x\n" for n in range(500)))
    with pytest.raises(DataError) as caught:
        prepare_csv(
            [csv], tmp_path / "out.csv", tmp_path / "r.csv", fetch=cache_in(tmp_path), progress=False
        )  # fmt: skip
    for part in ("500 rejected (500 download failed)", "No row is left", "no.invalid cannot be found", "no network",
                 "run the same command again", "r.csv"):  # fmt: skip
        assert part in str(caught.value)
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 501


def _reason(cache: ImageCache, url: str) -> str:
    with pytest.raises(DownloadError) as caught:
        cache(url)
    return str(caught.value)


def _sizes(root: Path) -> list[int]:
    return [path.stat().st_size for path in root.glob("cache/images/.*.partial")]


def _until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def test_an_edited_download_is_downloaded_again(tmp_path: Path, server: OddServer) -> None:
    url = f"{server.base}/ok/a.png"
    path = cache_in(tmp_path)(url)
    Image.new("RGB", (64, 32)).save(path)  # a whole panorama, but another one
    assert cache_in(tmp_path)(url).read_bytes() == PICTURE and server.asked["/ok/a.png"] == 2
    assert cache_in(tmp_path)(url) == path and server.asked["/ok/a.png"] == 2


# ---- addresses -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.0.1", False), ("0.0.0.0", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("224.0.0.1", False), ("::1", False), ("::", False),
        ("fe80::1%eth0", False), ("fd00::1", False), ("ff02::1", False), ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("8.8.8.8", True), ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True), ("fec0::1", False), ("64:ff9b:1::a00:1", False),
        ("::127.0.0.1", False), ("fec0::1%2", False),
    ],
)  # fmt: skip
def test_what_is_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "place", ["{base}/ok/a.png", "http://localhost:{port}/ok/a.png", "http://2130706433:{port}/ok/a.png",
              "http://[::ffff:127.0.0.1]:{port}/ok/a.png", "http://images.example:{port}/ok/a.png"],
)  # fmt: skip
def test_nothing_of_this_machine_is_fetched(
    tmp_path: Path, server: OddServer, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """By its address, however it is written, and by a name that leads there."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest, **more: real(
            "127.0.0.1" if host == "images.example" else host, *rest, **more)
    )  # fmt: skip
    with pytest.raises(DownloadError, match=r"not of the public internet.*data\.allow_private_addresses: true") as told:
        cache_in(tmp_path, allow_private=False)(place.format(base=server.base, port=server.server_port))
    assert not told.value.temporary and not server.asked


def test_a_name_whose_address_changes_is_not_asked_twice(
    tmp_path: Path, server: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was looked at is the one that is connected to."""
    real, asked, connected = socket.getaddrinfo, [], []

    def resolve(host: str, port: Any, *rest: Any, **more: Any) -> Any:
        if host == "images.example":
            asked.append(host)
            host = "8.8.8.8" if len(asked) == 1 else "127.0.0.1"
        return real(host, port, *rest, **more)

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(DownloadError):
        cache_in(tmp_path, allow_private=False, attempts=1)(f"http://images.example:{server.server_port}/ok/a.png")
    assert asked == ["images.example"] and connected == ["8.8.8.8"] and not server.asked


def test_a_redirect_leads_nowhere_private(tmp_path: Path, server: OddServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = addresses.is_public
    first = iter([True])
    monkeypatch.setattr(addresses, "is_public", lambda address: next(first, None) or real(address))
    with pytest.raises(DownloadError, match="not of the public internet"):
        cache_in(tmp_path, allow_private=False)(f"{server.base}/to_localhost/a.png")
    assert [path.split("/")[1] for path in server.asked] == ["to_localhost"]


def test_a_proxy_is_the_users_own_and_fetches_nothing_private(
    tmp_path: Path, server: OddServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.base)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(DownloadError, match=r"10\.0\.0\.1 is an address of this machine or its network"):
        cache_in(tmp_path, allow_private=False)("http://10.0.0.1/ok/a.png")
    assert not server.asked
    with pytest.raises(DownloadError) as told:  # this one the proxy is asked for
        cache_in(tmp_path, allow_private=False, attempts=1)("http://8.8.8.8/absent/a.png")
    assert server.asked and "public internet" not in str(told.value)


def test_no_byte_of_a_download_is_shown(tmp_path: Path, server: OddServer) -> None:
    server.pictures |= {"secret.png": b"password=hunter2 and more", "broken.png": PICTURE[:40] + b"hunter2" * 20}
    csv = tmp_path / "in.csv"
    rows = "".join(f"{server.base}/ok/{name}.png,q,x\n" for name in ("a", "secret", "broken"))
    csv.write_text(f"url,query,annotation\n{rows}")
    prepare_csv([csv], tmp_path / "out.csv", tmp_path / "r.csv", root=tmp_path, fetch=cache_in(tmp_path),
                max_rejected_fraction=1, progress=False)  # fmt: skip
    rejected = (tmp_path / "r.csv").read_text()
    assert rejected.count("download failed") + rejected.count("truncated") + rejected.count("not an image") >= 2
    assert "hunter2" not in rejected and "password" not in rejected and "b'" not in rejected
