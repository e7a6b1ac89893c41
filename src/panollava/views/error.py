"""Why a panorama cannot be used."""

from __future__ import annotations

from pathlib import Path

from panollava.errors import DataError


class PanoramaError(DataError):
    """A panorama cannot be used.

    `reason` is one of "image missing", "truncated", "not an image" (or one in a format or depth that is not read),
    "not about 2:1", "not equirectangular" (another projection, an unstitched frame), "contradictory metadata"
    (its XMP does not fit its pixels); `detail` says what was found.
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{path}: {reason}" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[PanoramaError], tuple[str, str, str]]:
        path = str(self).split(f": {self.reason}", 1)[0]
        return PanoramaError, (path, self.reason, self.detail)  # it may come back from another process
