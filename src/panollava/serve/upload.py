"""Open an upload in a process of its own, with a time limit. No torch, no gradio.

A file of few bytes can keep a decoder busy for minutes, and a thread that decodes cannot be stopped. Takes a file and
the views to render, and returns `Opened` with the pixels. Raises DataError with what is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from panollava.errors import DataError
from panollava.processes import die_with_parent
from panollava.views.panorama import PanoramaError, Pixels, decode_panorama, read_image, shows_two_discs
from panollava.views.render import open_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import View

OPENING_S = 30.0
"""How long opening one upload may take, the start of its process included."""


@dataclass(frozen=True)
class Opened:
    """`views` uint8 [V, h, w, 3], `panorama` uint8 [H, W, 3] at least `width` wide. `unstitched`: two discs."""

    views: Pixels
    panorama: Pixels
    unstitched: bool


def open_panorama(
    path: str | Path, views: Sequence[View], image_size: tuple[int, int], rendering: Rendering, width: int
) -> Opened:
    """Open a file in this process. Raises PanoramaError."""
    rendered = open_views(path, views, image_size, rendering)
    panorama = decode_panorama(read_image(path), path, width, **rendering.pose)
    return Opened(rendered, panorama, bool(shows_two_discs(panorama)))


def open_upload(
    path: str | Path, views: Sequence[View], image_size: tuple[int, int], rendering: Rendering, width: int,
    limit_s: float = OPENING_S,
) -> Opened:  # fmt: skip
    """`open_panorama` in a process that is killed after `limit_s` seconds. Raises PanoramaError as it, and DataError
    where the time was over or the process ended without a word (its memory)."""
    asked = {"path": str(path), "views": [view.to_json() for view in views], "image_size": list(image_size),
             "rendering": rendering.to_json(), "width": width}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="panollava-open-") as folder:
        output = Path(folder) / "opened.npz"
        command = [sys.executable, "-P", "-m", "panollava.serve.upload", str(output)]
        try:
            done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=limit_s)
        except subprocess.TimeoutExpired:
            raise DataError(
                f"The picture could not be opened within {limit_s:.0f} seconds. Make it smaller, or save it as JPEG."
            ) from None
        try:
            reply: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise DataError("The picture could not be opened: it may need more memory than there is.") from None
        if "reason" in reply:
            raise PanoramaError(path, reply["reason"], reply["detail"])
        with np.load(output) as arrays:
            return Opened(arrays["views"], arrays["panorama"], reply["unstitched"])


def main() -> None:
    """What runs in the process: JSON on standard input, arrays in the file that is named, JSON on standard output."""
    die_with_parent()
    asked = json.load(sys.stdin)
    try:
        opened = open_panorama(
            asked["path"], [View.from_json(view) for view in asked["views"]], tuple(asked["image_size"]),
            Rendering.from_json(asked["rendering"]), asked["width"],
        )  # fmt: skip
    except PanoramaError as error:
        print(json.dumps({"reason": error.reason, "detail": error.detail}))
        return
    np.savez(sys.argv[1], views=opened.views, panorama=opened.panorama)
    print(json.dumps({"unstitched": opened.unstitched}))


if __name__ == "__main__":
    main()
