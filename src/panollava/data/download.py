"""Download an image URL into the image cache, once and completely. Images must be about 2:1; returns the file's path.

A file gets its final name only when it is complete and could be decoded. Until then it is `.NAME.partial`, and a later
run, after a kill or a broken connection, asks for the rest of it. Several processes may share the cache: whoever holds
a partial file's lock (which dies with it) downloads, the others wait and find the result.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from panollava.data.hosts import GivenUp, Host, Manners
from panollava.data.http_request import BrokenOff, Busy, Client, Refused, Silent, Unresolved, tag_of
from panollava.errors import DataError
from panollava.files import sha256_file
from panollava.locks import locked
from panollava.logs import LOGGER
from panollava.views.panorama import MAX_BYTES, PanoramaError, load_panorama


class DownloadError(DataError):
    """An image could not be downloaded; the message is the reason without the URL.

    `temporary`: it may work a little later in the same run.
    """

    def __init__(self, reason: str, *, temporary: bool = False) -> None:
        self.temporary = temporary
        super().__init__(reason)


@dataclass
class ImageCache:
    """Downloads into a folder; safe to use from several threads and processes. `cache(url)` is the verified file.

    With `allow_private` also from addresses that only this machine or its network knows. Raises DownloadError where the
    image cannot be had, PanoramaError where what came is no panorama, OSError where the
    folder cannot be written.
    """

    folder: Path
    attempts: int = 4
    timeout_s: float = 30.0
    max_bytes: int = MAX_BYTES
    manners: Manners = field(default_factory=Manners)
    allow_private: bool = False
    _hosts: dict[str, Host] = field(default_factory=dict, repr=False)
    _counts: Counter[str] = field(default_factory=Counter, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self._client = Client(self.timeout_s, self.max_bytes, self.allow_private)
        # Beside the folder: what each image was when it was downloaded, as `sha256sum -c` reads it.
        self._sums = self.folder.with_name(f"{self.folder.name}.sha256")
        self._digests = _read_digests(self._sums)

    def __call__(self, url: str) -> Path:
        target, host = self._place(url)
        if target.is_file() and self._is_whole(target):
            self._count("kept")
            return target
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        with _owned(partial, self._cancelled):
            if not target.is_file():  # else another process brought it meanwhile
                self._download(url, host, partial, target)
        return target

    def _is_whole(self, target: Path) -> bool:
        """Whether a file of the cache is what was downloaded; else it is removed. Raises PanoramaError."""
        found = sha256_file(target)
        try:
            if self._digests.get(target.name, found) == found:
                load_panorama(target, min_width=1, to_the_end=True)  # the smallest scale is the fastest
                self._note(target, found)
                return True
            LOGGER.warning("%s is not what was downloaded: it is downloaded again", target)
        except PanoramaError as error:
            if error.reason == "not about 2:1":
                raise
        target.unlink(missing_ok=True)
        return False

    @property
    def given_up(self) -> list[str]:
        """Why hosts were given up, one sentence each."""
        return [host.given_up for host in self._hosts.values() if host.given_up is not None]

    def cancel(self) -> None:
        """End all downloads soon; what they have got so far stays for the next run."""
        self._cancelled.set()
        self._client.cancel()
        for host in list(self._hosts.values()):
            host.wake()

    def summary(self) -> str:
        """What was downloaded and what was there; empty where nothing was asked for."""
        counts = self._counts
        if not counts["new"] + counts["kept"]:
            return ""
        resumed = f" ({counts['resumed']} of them continued)" if counts["resumed"] else ""
        return (
            f"{counts['new']} images downloaded{resumed}, {counts['bytes'] / 1e6:.1f} MB; {counts['kept']} were in "
            f"{self.folder.as_posix()} before"
        )

    def path_of(self, url: str) -> Path:
        """Where a URL's file lies: the digest of the URL, then the end of its name for the eye."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", urlsplit(url).path.rsplit("/", 1)[-1])[-60:]
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name or 'image'}"

    def _place(self, url: str) -> tuple[Path, Host]:
        try:
            parts = urlsplit(url)
            if parts.scheme.lower() not in ("http", "https"):
                raise ValueError("only http and https are fetched")
            if not parts.hostname:
                raise ValueError("it names no host")
            name = parts.hostname if parts.port is None else f"{parts.hostname}:{parts.port}"
            target = self.path_of(url)
        except ValueError as error:
            raise DownloadError(f"not a URL: {error}") from error
        with self._lock:
            if name not in self._hosts:
                self._hosts[name] = Host(name, self.manners, self._cancelled)
            return target, self._hosts[name]

    def _download(self, url: str, host: Host, partial: Path, target: Path) -> None:
        reason, damaged = "", False
        for attempt in range(1, self.attempts + 1):
            before = partial.stat().st_size
            try:
                with host.turn():
                    self._client.fetch(url, partial)
                self._keep(partial, target)
            except GivenUp as error:
                raise DownloadError(str(error)) from error
            except Refused as error:
                partial.write_bytes(b"")
                raise DownloadError(str(error)) from error
            except PanoramaError as error:
                partial.write_bytes(b"")
                if damaged or error.reason == "not about 2:1":  # the same once more from its beginning: so it is there
                    raise
                reason, damaged = error.of_download, True
            except Busy as error:
                reason = str(error)  # the host's next turn comes after its pause
            except (Silent, Unresolved, BrokenOff) as error:
                reason = str(error)
                if attempt < self.attempts and host.given_up is None:
                    host.pause(attempt)
            else:
                self._count("new", "resumed" if before else "begun", size=target.stat().st_size)
                return
        raise DownloadError(f"{reason} (tried {self.attempts} times)", temporary=True)

    def _keep(self, partial: Path, target: Path) -> None:
        """Give a complete file its name. A whole picture of another shape is kept too, so that it comes only once."""
        try:
            load_panorama(partial, min_width=1, to_the_end=True)
        except PanoramaError as error:
            if error.reason == "not about 2:1":
                partial.rename(target)
                self._note(target, sha256_file(target))
            raise
        partial.rename(target)
        self._note(target, sha256_file(target))

    def _note(self, target: Path, sha256: str) -> None:
        """Remember what was downloaded, so that an edited file is detected. One line is written at once."""
        with self._lock:
            if self._digests.get(target.name) == sha256:
                return
            self._digests[target.name] = sha256
        with self._sums.open("a", encoding="utf-8") as stream:
            stream.write(f"{sha256}  {target.name}\n")

    def _count(self, *names: str, size: int = 0) -> None:
        with self._lock:
            self._counts.update(names)
            self._counts["bytes"] += size


def _read_digests(path: Path) -> dict[str, str]:
    """SHA-256 by file name from a file as `sha256sum` writes it; the last line of a name counts."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines) if len(digest) == 64 and name}


@contextmanager
def _owned(partial: Path, cancelled: threading.Event) -> Iterator[None]:
    """Hold the lock of `partial` (created where it is absent); remove it at the end where it is of no use."""
    with locked(partial.with_name(f"{partial.name}.lock"), cancelled):
        partial.touch()
        try:
            yield
        finally:
            tag = tag_of(partial)
            if not partial.exists() or partial.stat().st_size == 0 or not tag.is_file():
                tag.unlink(missing_ok=True)
                partial.unlink(missing_ok=True)
