"""From a JPEG to nine views: beside py360convert called view by view, and from the cache.

    python benchmarks/views.py --images ../shared/data/quic360/images

Milliseconds of CPU time a panorama (one thread), medians over repetitions, both ways in the same run; the anti-aliased
views' PSNR against 8 x 8 supersampling; the time to read the same views from the cache.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import py360convert
from PIL import Image
from supersampling import psnr, reference

from panollava.views.cache import ViewCache
from panollava.views.cache_build import build_view_cache
from panollava.views.panorama import load_panorama
from panollava.views.render import open_views
from panollava.views.strategies import View, plan_views


def with_py360convert(path: Path, views: tuple[View, ...], size: int) -> list[Any]:
    """The plain way: Pillow decodes, py360convert cuts each perspective view, cv2 squashes the global one."""
    panorama = np.array(Image.open(io.BytesIO(path.read_bytes())).convert("RGB"))
    return [
        py360convert.e2p(panorama, (view.hfov_deg, view.vfov_deg), view.yaw_deg, view.pitch_deg, (size, size))
        if view.kind == "perspective"
        else cv2.resize(panorama, (size, size), interpolation=cv2.INTER_AREA)
        for view in views
    ]


def milliseconds(work: Callable[[Path], object], paths: list[Path], repetitions: int) -> dict[Path, float]:
    """Median CPU time of one call for each file; the files are passed in turn, as a data set passes them.

    The first round, which fills caches of maps, is left out.
    """
    times: dict[Path, list[float]] = {path: [] for path in paths}
    for number in range(repetitions + 1):
        for path in paths:
            started = time.process_time()
            work(path)
            if number:
                times[path].append(1000 * (time.process_time() - started))
    return {path: statistics.median(found) for path, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="A folder of JPEG panoramas.")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    views, size = plan_views("anyres_e2p"), given.size
    paths = sorted([*given.images.glob("*.jpg"), *given.images.glob("*.jpeg")])
    with tempfile.TemporaryDirectory() as folder:
        build_view_cache([str(p.resolve()) for p in paths], views, (size, size), True, Path(folder), progress=False)
        cache = ViewCache.open(folder)
        ways: dict[str, Callable[[Path], object]] = {
            "py360convert": lambda path: with_py360convert(path, views, size),
            "panollava": lambda path: open_views(path, views, (size, size)),
            "cache": lambda path: np.array(cache[str(path.resolve())]),
        }
        times = {name: milliseconds(work, paths, given.repetitions) for name, work in ways.items()}
    print(f"{len(views)} views of {size} x {size}; ms of CPU time a panorama")
    heads = f"{'py360convert':>13} {'panollava':>10} {'times':>6} {'worst dB':>9} {'cache':>6}"
    print(f"{'panorama':<34} {'size':>11} {heads}")
    for path in paths:
        panorama, pixels = load_panorama(path), open_views(path, views, (size, size))
        quality = min(psnr(a, reference(panorama, v, (size, size))) for a, v in zip(pixels, views, strict=True))
        plain, ours, stored = (times[name][path] for name in ways)
        height, width = panorama.shape[:2]
        print(
            f"{path.name[:34]:<34} {f'{width} x {height}':>11} {plain:>13.1f} {ours:>10.1f} {plain / ours:>6.1f}"
            f" {quality:>9.1f} {stored:>6.2f}"
        )
    plain, ours, stored = (statistics.mean(times[name].values()) for name in ways)
    print(f"mean: {plain:.1f} and {ours:.1f} ms, {plain / ours:.1f} times faster; from the cache {stored:.2f} ms")


if __name__ == "__main__":
    main()
