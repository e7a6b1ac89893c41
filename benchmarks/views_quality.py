"""How close views come to 8 x 8 supersampling of the whole panorama, over fields of view, sizes and strategies.

    python benchmarks/views_quality.py --images ../shared/data/quic360/images

Worst PSNR in dB over all panoramas and `--views` of each plan's views, from files, decoded no larger than needed. Ends
with 1 where one lies below `--least`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from supersampling import psnr, quick_reference

from panollava.views.panorama import Pixels, load_panorama
from panollava.views.render import open_views
from panollava.views.strategies import View, plan_views


def some(views: tuple[View, ...], most: int) -> list[View]:
    """The first view and others, evenly spread."""
    return [views[index * len(views) // most] for index in range(min(most, len(views)))]


def worst(panoramas: dict[Path, Pixels], views: list[View], size: int) -> list[float]:
    found = []
    for path, panorama in panoramas.items():
        rendered = open_views(path, views, (size, size))
        pairs = zip(rendered, views, strict=True)
        found.append(min(psnr(pixels, quick_reference(panorama, view, (size, size))) for pixels, view in pairs))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="A folder of JPEG panoramas.")
    parser.add_argument("--strategies", nargs="+", default=["anyres_e2p"])
    parser.add_argument("--fov-deg", nargs="+", type=float, default=[30, 60, 90, 120])
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 224, 256, 384])
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--least", type=float, default=36.0)
    given = parser.parse_args()
    panoramas = {path: load_panorama(path) for path in sorted(given.images.glob("*.jp*g"))}
    print(f"worst PSNR in dB of {len(panoramas)} panoramas, and in brackets of each")
    least = float("inf")
    for strategy in given.strategies:
        for fov_deg in given.fov_deg:
            for size in given.sizes:
                found = worst(panoramas, some(plan_views(strategy, fov_deg=fov_deg), given.views), size)
                least = min(least, *found)
                each = " ".join(f"{value:.1f}" for value in found)
                print(f"{strategy:<14} fov {fov_deg:>5g}  size {size:>4}: {min(found):.1f}  [{each}]", flush=True)
    print(f"worst of all: {least:.1f} dB")
    return 0 if least >= given.least else 1


if __name__ == "__main__":
    sys.exit(main())
