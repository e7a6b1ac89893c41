"""Why a panorama cannot be used."""

from __future__ import annotations

from pathlib import Path

from panollava.errors import DataError


class PanoramaError(DataError):
    """A panorama cannot be used.

    `reason` is one of "image missing", "truncated", "not an image" (or one in a format or depth that is not read),
    "not about 2:1", "not equirectangular" (another projection, an unstitched frame), "contradictory metadata"
    (its XMP does not fit its pixels); `detail` says what was found. With `shows_content` the detail holds bytes of the
    file, which nobody is shown of a download.
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "", shows_content: bool = False) -> None:
        self.reason = reason
        self.detail = detail
        self.shows_content = shows_content
        super().__init__(f"{path}: {reason}" + (f": {detail}" if detail else ""))

    @property
    def of_download(self) -> str:
        """What may be shown of a file that came from elsewhere: the reason, and the detail where it holds no bytes."""
        return f"{self.reason}: {self.detail}" if self.detail and not self.shows_content else self.reason

    def __reduce__(self) -> tuple[type[PanoramaError], tuple[str, str, str, bool]]:
        path = str(self).split(f": {self.reason}", 1)[0]
        return PanoramaError, (
            path,
            self.reason,
            self.detail,
            self.shows_content,
        )  # it may come back from another process
