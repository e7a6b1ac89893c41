"""Read a view cache, a folder with every view's pixels: the views of one image by the image's path.

    FOLDER/views.npy    raw layout: uint8 [N, V, h, w, 3], one row per image, opened as a memory map;
                        jpeg layout: uint8 [bytes], the JPEGs of all views one behind the other
    FOLDER/index.json   the views, how they were rendered, and each image's SHA-256, its place in the file and the
                        CRC-32 of what is stored there; of a partial panorama also each view's coverage

Raw is exact and takes 0.2 ms a panorama at 1.77 MB for 9 views of 256; jpeg takes a fifth of the space and more time.
The set is never held in memory. What is damaged is an error with its remedy, never a picture.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panollava.errors import DataError
from panollava.files import digest_of, read_json
from panollava.views.jpeg import decode_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import View

VERSION = 2
RAW_LAYOUT, JPEG_LAYOUT = LAYOUTS = ("raw", "jpeg")


class ViewCache:
    """A built cache: `cache[image_path]` is uint8 [V, h, w, 3], read from disk when it is used.

    What is stored for an image is checked against its checksum: raw pixels when a process reads them first, JPEGs each
    time. With `sha256` (image path -> digest of the picture's file) its images are those, found by their content.
    Cheap to send to data-loader workers: they open the folder again. Raises DataError where the folder is no
    whole cache, for an image that is not in it, and for one whose views are damaged.
    """

    views: tuple[View, ...]
    image_size: tuple[int, int]
    rendering: Rendering
    layout: str
    coverage: dict[str, tuple[float, ...]]
    """The share of each view, in [0, 1], that a partial panorama covers; whole panoramas are not listed."""

    def __init__(self, folder: str | Path, sha256: Mapping[str, str] | None = None) -> None:
        self.folder, self._asked = Path(folder), sha256
        self._remedy = f"Remove {self.folder} and run the same command again, which builds it anew"
        try:
            index = read_json(self.folder / "index.json")
        except FileNotFoundError as error:
            raise DataError(f"{self.folder} is no view cache: it has no index.json. {self._remedy}") from error
        except ValueError as error:
            raise DataError(f"{self.folder}/index.json is damaged ({error}). {self._remedy}") from error
        if not isinstance(index, dict) or index.get("version") != VERSION:
            found = index.get("version") if isinstance(index, dict) else None
            raise DataError(f"{self.folder}: view cache of version {found}, expected {VERSION}. {self._remedy}")
        try:
            self.views = tuple(View.from_json(view) for view in index["views"])
            self.image_size = (index["image_size"][0], index["image_size"][1])
            self.rendering, self.layout = Rendering.from_json(index), index["layout"]
            self.sha256: dict[str, str] = {path: entry["sha256"] for path, entry in index["images"].items()}
            self.coverage = {
                path: tuple(entry["coverage"]) for path, entry in index["images"].items() if "coverage" in entry
            }
            self._crc32: dict[str, int] = {path: entry["crc32"] for path, entry in index["images"].items()}
            self._ends: dict[str, list[int]] = {
                path: list(accumulate(entry["lengths"], initial=entry["offset"]))
                for path, entry in index["images"].items()
            }
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise DataError(f"{self.folder}/index.json is damaged ({error!r}). {self._remedy}") from error
        self._checked: set[str] = set()
        self._stored = self._map_file()
        if sha256 is not None:
            self._find_by_content(sha256)
        with suppress(OSError):  # when it was last used: `panollava.views.cache_limit` reads it
            os.utime(self.folder)

    @classmethod
    def open(cls, folder: str | Path) -> ViewCache:
        return cls(folder)

    @property
    def digest(self) -> str:
        """A digest of what is in it: the pictures, the views, and every stored byte (by its checksum)."""
        images = [[path, self.sha256[path], self._crc32[path]] for path in self]
        views = [view.to_json() for view in self.views]
        return digest_of([VERSION, self.layout, self.rendering.to_json(), self.image_size, views, images])

    def _find_by_content(self, sha256: Mapping[str, str]) -> None:
        """Name the stored images by the paths of `sha256`."""
        stored = {digest: path for path, digest in self.sha256.items()}
        for path, digest in sha256.items():
            if digest not in stored:
                raise DataError(f"{self.folder}: the view cache holds another picture than {path}. {self._remedy}")
        names = {path: stored[digest] for path, digest in sha256.items()}
        self.sha256 = dict(sha256)
        self._crc32 = {path: self._crc32[name] for path, name in names.items()}
        self._ends = {path: self._ends[name] for path, name in names.items()}
        self.coverage = {path: self.coverage[name] for path, name in names.items() if name in self.coverage}

    def __getitem__(self, image_path: str) -> NDArray[np.uint8]:
        if image_path not in self._ends:
            raise DataError(f"{self.folder}: the view cache holds no image {image_path!r}. Build it for this CSV")
        ends = self._ends[image_path]
        stored = self._stored[ends[0] : ends[-1]]
        if image_path not in self._checked:
            if zlib.crc32(stored.data) != self._crc32[image_path]:
                raise DataError(f"{self.folder}/views.npy: the views of {image_path} are damaged. {self._remedy}")
            if self.layout == RAW_LAYOUT:
                self._checked.add(image_path)
        if self.layout == RAW_LAYOUT:
            return stored.reshape(len(self.views), *self.image_size, 3)
        return decode_views([self._stored[start:end].data for start, end in pairwise(ends)], self.image_size)

    def __contains__(self, image_path: object) -> bool:
        return image_path in self._ends

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[str]:
        """The image paths, in the order of the file."""
        return iter(self._ends)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "sha256": self._asked}  # a pickled memory map would carry all pixels

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["sha256"])  # type: ignore[misc]

    def _map_file(self) -> NDArray[np.uint8]:
        """The bytes of views.npy behind its header, read-only."""
        path = self.folder / "views.npy"
        stored = max((ends[-1] for ends in self._ends.values()), default=0)
        shape = (len(self), len(self.views), *self.image_size, 3) if self.layout == RAW_LAYOUT else (stored,)
        header = npy_header(shape)
        expected = len(header) + stored
        try:
            with path.open("rb") as stream:
                found_header, found = stream.read(len(header)), os.fstat(stream.fileno()).st_size
        except FileNotFoundError as error:
            raise DataError(f"{path} is missing. {self._remedy}") from error
        if found_header != header or found != expected:
            raise DataError(
                f"{path} is not what index.json says: expected uint8 {list(shape)} in {expected} bytes, "
                f"found {found} bytes. {self._remedy}"
            )
        if not stored:
            return np.empty(0, dtype=np.uint8)
        return np.memmap(path, dtype=np.uint8, mode="r", offset=len(header))


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of bytes; numpy leaves room in it, so that its length does not depend on the shape."""
    stream = io.BytesIO()
    descriptor = {"descr": "|u1", "fortran_order": False, "shape": tuple(int(size) for size in shape)}
    np.lib.format.write_array_header_1_0(stream, descriptor)
    return stream.getvalue()
