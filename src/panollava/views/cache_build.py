"""Build a view cache from image paths and a list of views: a folder that `panollava.views.cache` reads.

Rendering runs in parallel, writing in order: the bytes are the same however many threads there are, and no more than a
few panoramas are in memory. `index.json` is written last: without it there is no cache, whatever else lies in the
folder.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from panollava.files import atomic_path, write_json
from panollava.processes import available_cores
from panollava.progress import track
from panollava.views.cache import JPEG_LAYOUT, LAYOUTS, VERSION, npy_header
from panollava.views.jpeg import encode_views
from panollava.views.panorama import place_panorama, read_planned
from panollava.views.render import render_views, required_width
from panollava.views.rendering import DEFAULT_RENDERING, Rendering
from panollava.views.strategies import View


def build_view_cache(
    image_paths: Iterable[str],
    views: Sequence[View],
    image_size: tuple[int, int],
    folder: str | Path,
    rendering: Rendering = DEFAULT_RENDERING,
    progress: bool = True,
    root: str | Path = ".",
    layout: str = "raw",
    *,
    sha256: Mapping[str, str] | None = None,
) -> None:
    """Render each image once (in order of first appearance) and write the folder, in parallel and atomically.

    `image_paths` are the prepared CSV's, relative to `root` or absolute; they are the keys of the cache. `layout` is
    raw or jpeg. Raises PanoramaError for the first image that cannot be used, FileChanged for the first whose content
    is not what `sha256` says of its path, OSError where the disk is full.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    paths = list(dict.fromkeys(image_paths))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index_path = folder / "index.json"
    index_path.unlink(missing_ok=True)  # from here on the old pixels are nobody's cache
    shape = (len(paths), len(views), *image_size, 3)
    render = partial(
        _render, root=Path(root), views=views, image_size=image_size, rendering=rendering, layout=layout,
        sha256=sha256 or {},
    )  # fmt: skip

    images: dict[str, Any] = {}
    with atomic_path(folder / "views.npy") as partial_file, partial_file.open("wb") as stream:
        header = npy_header(shape if layout != JPEG_LAYOUT else (0,))
        if paths and layout != JPEG_LAYOUT:  # reserve the space now: a full disk is an error here, not an hour later
            os.posix_fallocate(stream.fileno(), 0, len(header) + int(np.prod(shape)))
        stream.write(header)
        written = 0
        with _one_thread_per_image():
            rows = _in_parallel(render, paths)
            for path, row in track(zip(paths, rows, strict=True), len(paths), "Rendering views", enabled=progress):
                images[path] = row.entry(written)
                written += stream.write(row.content)
        if layout == JPEG_LAYOUT:
            stream.seek(0)
            stream.write(npy_header((written,)))

    write_json(
        index_path,
        {
            "version": VERSION,
            "layout": layout,
            "views": [view.to_json() for view in views],
            "image_size": list(image_size),
            **rendering.to_json(),
            "images": images,
        },
    )


@dataclass(frozen=True)
class _Row:
    """A panorama's views as they are stored: pixels, or JPEGs one behind the other."""

    content: bytes
    lengths: list[int]
    sha256: str
    coverage: tuple[float, ...]

    def entry(self, offset: int) -> dict[str, Any]:
        partial_panorama = min(self.coverage, default=1.0) < 1
        return {
            "sha256": self.sha256,
            "crc32": zlib.crc32(self.content),
            "offset": offset,
            "lengths": self.lengths,
            **({"coverage": list(self.coverage)} if partial_panorama else {}),
        }


def _render(
    path: str,
    *,
    root: Path,
    views: Sequence[View],
    image_size: tuple[int, int],
    rendering: Rendering,
    layout: str,
    sha256: Mapping[str, str],
) -> _Row:
    content, found = read_planned(root / path, sha256.get(path))
    panorama = place_panorama(content, path, required_width(views, image_size, rendering), **rendering.pose)
    pixels = render_views(panorama.pixels, views, image_size, rendering)
    parts = encode_views(pixels) if layout == JPEG_LAYOUT else [pixels.tobytes()]
    return _Row(b"".join(parts), [len(part) for part in parts], found, panorama.placement.coverage(views))


def _in_parallel(render: Callable[[str], _Row], paths: Sequence[str]) -> Iterator[_Row]:
    """All rows in order. Threads are enough: decoding and remapping leave the interpreter's lock."""
    threads = available_cores()
    rest = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[_Row]] = deque(pool.submit(render, path) for path in islice(rest, 2 * threads))
        try:
            while running:
                row = running.popleft().result()
                running.extend(pool.submit(render, path) for path in islice(rest, 1))
                yield row
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_thread_per_image() -> Iterator[None]:
    """The images are what runs in parallel."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
