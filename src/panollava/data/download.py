"""An image URL enters; the path of a file in the image cache leaves, downloaded at most once.

A file appears under its final name only when it is complete, so that a killed job goes on where it was. Each URL is
tried a few times where trying again can help (connection, 5xx, 429), once where it cannot (404). A host that never
answers is given up for the rest of the run: without a network, thousands of URLs fail in seconds, not hours.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from panollava.errors import DataError

_USER_AGENT = "panollava (research; https://pypi.org/project/panollava)"
_CHUNK = 1 << 16
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(DataError):
    """An image could not be downloaded; the message is the reason without the URL."""


@dataclass
class ImageCache:
    """Downloads into a folder; safe to call from several threads. `cache(url)` is the file's path.

    Raises DownloadError where the image cannot be had, OSError where the folder cannot be written.
    """

    folder: Path
    attempts: int = 4
    timeout_s: float = 30.0
    first_pause_s: float = 0.5
    failures_to_give_up: int = 12
    _unanswered: dict[str, int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, url: str) -> Path:
        try:
            target, host = self.path_of(url), urlsplit(url).netloc
        except ValueError as error:
            raise DownloadError(f"not a URL: {error}") from error
        if target.is_file():
            return target
        for attempt in range(1, self.attempts + 1):
            if self._unanswered.get(host, 0) >= self.failures_to_give_up:
                raise DownloadError(f"{host} did not answer {self.failures_to_give_up} times in a row, given up")
            try:
                self._fetch(url, target)
            except urllib.error.HTTPError as error:
                self._note(host, answered=True)
                reason = f"HTTP {error.code} {error.reason}"
                if error.code not in _TEMPORARY:
                    raise DownloadError(reason) from error
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                self._note(host, answered=isinstance(error, http.client.IncompleteRead))
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            except ValueError as error:
                raise DownloadError(f"not a URL: {error}") from error
            else:
                self._note(host, answered=True)
                return target
            if attempt < self.attempts:
                time.sleep(self.first_pause_s * 2 ** (attempt - 1))
        raise DownloadError(f"{reason} (tried {self.attempts} times)")

    def path_of(self, url: str) -> Path:
        """Where a URL's file lies: the digest of the URL, then the end of its name for the eye."""
        name = re.sub(r"[^A-Za-z0-9._-]", "-", urlsplit(url).path.rsplit("/", 1)[-1])[-60:]
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}_{name or 'image'}"

    def _fetch(self, url: str, target: Path) -> None:
        parts = urlsplit(url)
        # Spaces and Korean are common in such lists; what is quoted already stays as it is.
        plain = urlunsplit(
            parts._replace(path=quote(parts.path, "/%:@!$&'()*+,;=~"), query=quote(parts.query, "=&%+/?:@,;"))
        )
        request = urllib.request.Request(plain, headers={"User-Agent": _USER_AGENT})
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.partial")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer, partial.open("wb") as stream:
                expected = answer.headers.get("Content-Length")
                while chunk := answer.read(_CHUNK):
                    stream.write(chunk)
                if expected is not None and stream.tell() != int(expected):
                    raise http.client.IncompleteRead(b"", int(expected) - stream.tell())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)

    def _note(self, host: str, *, answered: bool) -> None:
        with self._lock:
            self._unanswered[host] = 0 if answered else self._unanswered.get(host, 0) + 1
