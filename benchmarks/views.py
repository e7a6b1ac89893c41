"""From a JPEG to nine views: beside py360convert called view by view, and from the cache.

    python benchmarks/views.py --images ../shared/data/quic360/images

Milliseconds of CPU time a panorama (one thread), medians over repetitions, both ways in the same run; the anti-aliased
views' PSNR against 8 x 8 supersampling; what reading the same views from the cache costs, in both layouts. `warm` is
py360convert with its maps at hand: it keeps those of eight views, which files of other sizes push out. `Huffman` is
libjpeg-turbo's decoding at an eighth of the size, nearly all of which is Huffman decoding: whoever reads the whole JPEG
needs at least that, so that `limit`, warm / Huffman, bounds the ratio.
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
import simplejpeg
from PIL import Image
from supersampling import psnr, quick_reference

from panollava.views.cache import LAYOUTS, ViewCache
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


def first_reading(folder: Path, paths: list[Path], repetitions: int) -> float:
    """Mean over the files of the median CPU time of a process's first reading, which checks the checksum."""
    times: dict[Path, list[float]] = {path: [] for path in paths}
    for _ in range(repetitions):
        cache = ViewCache.open(folder)
        for path in paths:
            started = time.process_time()
            np.array(cache[str(path.resolve())])
            times[path].append(1000 * (time.process_time() - started))
    return statistics.mean(statistics.median(found) for found in times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="A folder of JPEG panoramas.")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="two small drawn panoramas, once")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    if given.smoke:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng(0)
            for number, height in enumerate((128, 256)):
                smooth = cv2.resize(rng.integers(0, 256, (8, 16, 3), dtype=np.uint8), (2 * height, height))
                Image.fromarray(smooth).save(Path(folder) / f"{number}.jpg", quality=90)
            compare(Path(folder), 32, 1)
    elif given.images is None:
        parser.error("--images FOLDER, or --smoke")
    else:
        compare(given.images, given.size, given.repetitions)


def warm_maps(path: Path, views: tuple[View, ...], size: int) -> float:
    """Milliseconds of py360convert right after it cut the same views of the same file."""
    with_py360convert(path, views, size)
    started = time.process_time()
    with_py360convert(path, views, size)
    return 1000 * (time.process_time() - started)


def entropy_coding(path: Path) -> None:
    content = path.read_bytes()
    height, width, *_ = simplejpeg.decode_jpeg_header(content)
    simplejpeg.decode_jpeg(content, min_height=height // 8, min_width=width // 8)


def compare(images: Path, size: int, repetitions: int) -> None:
    views = plan_views("anyres_e2p")
    paths = sorted([*images.glob("*.jpg"), *images.glob("*.jpeg")])
    with tempfile.TemporaryDirectory() as folder:
        caches = {}
        for layout in LAYOUTS:
            target = Path(folder) / layout
            names = [str(path.resolve()) for path in paths]
            build_view_cache(names, views, (size, size), target, progress=False, layout=layout)
            caches[layout] = ViewCache.open(target)
        ways: dict[str, Callable[[Path], object]] = {
            "py360convert": lambda path: with_py360convert(path, views, size),
            "panollava": lambda path: open_views(path, views, (size, size)),
            "raw": lambda path: np.array(caches["raw"][str(path.resolve())]),
            "jpeg": lambda path: caches["jpeg"][str(path.resolve())],
        }
        times = {name: milliseconds(work, paths, repetitions) for name, work in ways.items()}
        warm = {path: statistics.median(warm_maps(path, views, size) for _ in range(repetitions)) for path in paths}
        coding = milliseconds(entropy_coding, paths, repetitions)
        checked = first_reading(Path(folder) / "raw", paths, repetitions)
        megabytes = {
            layout: (Path(folder) / layout / "views.npy").stat().st_size / len(paths) / 1e6 for layout in LAYOUTS
        }
        stored = [caches["jpeg"][str(path.resolve())] for path in paths]
    print(f"{len(views)} views of {size} x {size}; ms of CPU time a panorama")
    print(f"{'panorama':<34} {'size':>11} {'py360convert':>13} {'warm':>6} {'panollava':>10} {'times':>6} "
          f"{'(warm)':>7} {'Huffman':>8} {'limit':>6} {'worst dB':>9}")  # fmt: skip
    losses = []
    for path, compact in zip(paths, stored, strict=True):
        panorama, pixels = load_panorama(path), open_views(path, views, (size, size))
        quality = min(psnr(a, quick_reference(panorama, v, (size, size))) for a, v in zip(pixels, views, strict=True))
        losses.append(min(psnr(a, b) for a, b in zip(compact, pixels, strict=True)))
        plain, ours = times["py360convert"][path], times["panollava"][path]
        height, width = panorama.shape[:2]
        print(
            f"{path.name[:34]:<34} {f'{width} x {height}':>11} {plain:>13.1f} {warm[path]:>6.1f} {ours:>10.1f}"
            f" {plain / ours:>6.1f} {warm[path] / ours:>7.1f} {coding[path]:>8.1f} {warm[path] / coding[path]:>6.1f}"
            f" {quality:>9.1f}"
        )
    plain, ours, raw, compressed = (statistics.mean(times[name].values()) for name in ways)
    warmed, least = statistics.mean(warm.values()), statistics.mean(coding.values())
    print(
        f"mean: {plain:.1f} (warm {warmed:.1f}) and {ours:.1f} ms, {plain / ours:.1f} times faster "
        f"({warmed / ours:.1f}); "
        f"Huffman decoding alone {least:.1f} ms, which bounds it to {plain / least:.1f} ({warmed / least:.1f})"
    )
    print(
        f"from the cache: raw {raw:.2f} ms ({checked:.2f} at first, with the checksum), {megabytes['raw']:.2f} MB; "
        f"jpeg {compressed:.2f} ms, {megabytes['jpeg']:.2f} MB, at worst {min(losses):.1f} dB from raw"
    )


if __name__ == "__main__":
    main()
