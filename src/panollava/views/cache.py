"""Image paths and a list of views enter; a folder with every view's pixels leaves, and is read back by image.

    FOLDER/views.npy    uint8 [N, V, h, w, 3], one row per image, opened as a memory map
    FOLDER/index.json   the views, how they were rendered, and each image's row and SHA-256

Raw pixels were chosen over JPEG: exact, 0.35 ms a panorama to read, at 1.77 MB for 9 views of 256. The set is never
held in memory. `index.json` is written last: without it there is no cache, whatever else lies in the folder.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from panollava.errors import DataError
from panollava.files import atomic_path, read_json, write_json
from panollava.progress import track
from panollava.views.panorama import decode_panorama, read_image
from panollava.views.render import render_views, required_width
from panollava.views.strategies import View

_VERSION = 1


def available_cores() -> int:
    """The cores this job may use: OMP_NUM_THREADS (Snakemake sets it to the rule's threads) or the machine's."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(threads)) if threads.isdigit() else len(os.sched_getaffinity(0))


def build_view_cache(
    image_paths: Iterable[str],
    views: Sequence[View],
    image_size: tuple[int, int],
    antialias: bool,
    folder: str | Path,
    progress: bool = True,
    root: str | Path = ".",
) -> None:
    """Render each image once (in order of first appearance) and write the folder, in parallel and atomically.

    `image_paths` are the prepared CSV's, relative to `root` or absolute; they are the keys of the cache. Raises
    PanoramaError for the first image that cannot be used, OSError where the disk is full.
    """
    paths = list(dict.fromkeys(image_paths))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    index_path = folder / "index.json"
    index_path.unlink(missing_ok=True)  # from here on the old pixels are nobody's cache
    shape = (len(paths), len(views), *image_size, 3)
    header = _npy_header(shape)
    row_bytes = int(np.prod(shape[1:]))
    min_width = required_width(views, image_size, antialias)

    with atomic_path(folder / "views.npy") as partial, partial.open("wb") as stream:
        file = stream.fileno()
        if paths:  # reserve the space now: a full disk is an error here, not a half-written row later
            os.posix_fallocate(file, 0, len(header) + len(paths) * row_bytes)
        os.pwrite(file, header, 0)

        def render_row(row: int) -> str:
            content = read_image(Path(root) / paths[row])
            panorama = decode_panorama(content, paths[row], min_width)
            pixels = render_views(panorama, views, image_size, antialias)
            _write_all(file, pixels.tobytes(), len(header) + row * row_bytes)
            return hashlib.sha256(content).hexdigest()

        digests = _run_all(render_row, len(paths), progress)

    write_json(
        index_path,
        {
            "version": _VERSION,
            "views": [view.to_json() for view in views],
            "image_size": list(image_size),
            "antialias": antialias,
            "images": {path: {"row": row, "sha256": digests[row]} for row, path in enumerate(paths)},
        },
    )


class ViewCache:
    """A built cache: `cache[image_path]` is uint8 [V, h, w, 3], read-only and read from disk when it is used.

    Cheap to send to data-loader workers: they open the folder again. Raises DataError where the folder is no whole
    cache and for an image that is not in it.
    """

    views: tuple[View, ...]
    image_size: tuple[int, int]
    antialias: bool

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            index = read_json(self.folder / "index.json")
        except FileNotFoundError as error:
            raise DataError(f"{self.folder} is no view cache: it has no index.json. Build it again") from error
        except ValueError as error:
            raise DataError(f"{self.folder}/index.json is damaged ({error}). Build the view cache again") from error
        if index.get("version") != _VERSION:
            raise DataError(
                f"{self.folder}: view cache of version {index.get('version')}, expected {_VERSION}. Build it again"
            )
        self.views = tuple(View.from_json(view) for view in index["views"])
        self.image_size = (index["image_size"][0], index["image_size"][1])
        self.antialias = index["antialias"]
        self.sha256: dict[str, str] = {path: entry["sha256"] for path, entry in index["images"].items()}
        self._rows: dict[str, int] = {path: entry["row"] for path, entry in index["images"].items()}
        self._pixels = self._map_pixels((len(self._rows), len(self.views), *self.image_size, 3))

    @classmethod
    def open(cls, folder: str | Path) -> ViewCache:
        return cls(folder)

    def __getitem__(self, image_path: str) -> NDArray[np.uint8]:
        if image_path not in self._rows:
            raise DataError(f"{self.folder}: the view cache holds no image {image_path!r}. Build it for this CSV")
        return self._pixels[self._rows[image_path]]

    def __contains__(self, image_path: object) -> bool:
        return image_path in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        """The image paths, by row."""
        return iter(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}  # a pickled memory map would carry all pixels

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def _map_pixels(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        path = self.folder / "views.npy"
        header = _npy_header(shape)
        expected = len(header) + int(np.prod(shape))
        try:
            with path.open("rb") as stream:
                found_header, found = stream.read(len(header)), os.fstat(stream.fileno()).st_size
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing. Build the view cache again") from error
        if found_header != header or found != expected:
            raise DataError(
                f"{path} is not what index.json says: expected uint8 {list(shape)} in {expected} bytes, "
                f"found {found} bytes. Build the view cache again"
            )
        if not shape[0]:
            return np.empty(shape, dtype=np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r", offset=len(header), shape=shape)


def _npy_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    descriptor = {"descr": "|u1", "fortran_order": False, "shape": tuple(int(size) for size in shape)}
    np.lib.format.write_array_header_1_0(stream, descriptor)
    return stream.getvalue()


def _write_all(file: int, content: bytes, offset: int) -> None:
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written


def _run_all(render_row: Callable[[int], str], count: int, progress: bool) -> list[str]:
    """The digests of all rows. Threads are enough: decoding and remapping leave the interpreter's lock."""
    digests = [""] * count
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are what runs in parallel
    with ThreadPoolExecutor(available_cores()) as pool:
        futures: dict[Future[str], int] = {pool.submit(render_row, row): row for row in range(count)}
        try:
            for future in track(as_completed(futures), count, "Rendering views", enabled=progress):
                digests[futures[future]] = future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        finally:
            cv2.setNumThreads(threads_before)
    return digests
