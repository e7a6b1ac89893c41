"""Keep the folder of all view caches within a size limit by deleting the least recently used caches.

A changed setting makes a new cache and keeps the old one, which is of use again when the setting returns. When a run
starts and all caches together exceed the limit, the least recently used go first; what the run may read stays. The
Snakefile imports this: nothing heavy.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CacheFolder:
    """One view cache: its folder, its size and when it was last used (seconds since 1970)."""

    path: Path
    size: int
    used: float


def view_caches(root: str | Path) -> list[CacheFolder]:
    """The caches below `root`, those used longest ago first. Files that vanish meanwhile do not matter."""
    found = []
    for folder in Path(root).glob("[0-9a-f]*"):
        try:
            size = sum(file.stat().st_size for file in folder.iterdir())
            found.append(CacheFolder(folder, size, folder.stat().st_mtime))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return sorted(found, key=lambda cache: (cache.used, cache.path.name))


def remove_unused(root: str | Path, limit: int, keep: Callable[[], Collection[str]]) -> list[CacheFolder]:
    """Remove caches below `root` until they have at most `limit` bytes, and return them.

    `keep` gives the names of those that stay; it is asked only where there is too much.
    """
    caches = view_caches(root)
    total = sum(cache.size for cache in caches)
    removed: list[CacheFolder] = []
    if total <= limit:
        return removed
    kept = keep()
    for cache in caches:
        if total <= limit:
            break
        if cache.path.name in kept:
            continue
        (cache.path / "index.json").unlink(missing_ok=True)  # first: a cache without it is none
        shutil.rmtree(cache.path, ignore_errors=True)
        total -= cache.size
        removed.append(cache)
    return removed
