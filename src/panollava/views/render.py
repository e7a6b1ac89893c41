"""The pixels of a panorama's views, uint8 [V, h, w, 3].

Anti-aliased (the default) means: bring the panorama down by whole factors, as far as the view allows
(`required_size`), sample it bilinearly at twice the view's size (or more) and average; an equirectangular view whose
edges are edges of pixels is the mean of these pixels. Neighbouring tiles then agree on what they both see, which the
overlap loss needs; with point sampling (`antialias=False`) they do not: it is there to compare with other tools.

`renderer="py360convert"` cuts perspective views with py360convert's e2p instead, from the panorama as it is: to compare
with work that did, not to train better. Global views and windows stay the same.

Results depend on nothing but the arguments: on-the-fly views equal cached ones to the byte.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from panollava.views.panorama import Pixels, decode_panorama, read_planned
from panollava.views.rendering import DEFAULT_RENDERING, Rendering
from panollava.views.sampling import Tile, average, sample, sample_points, shrink, whole_pixels
from panollava.views.strategies import View


def open_views(
    path: str | Path,
    views: Sequence[View],
    image_size: tuple[int, int],
    rendering: Rendering = DEFAULT_RENDERING,
    sha256: str | None = None,
) -> Pixels:
    """The views uint8 [V, h, w, 3] of a panorama file, decoded no larger than they need.

    Raises PanoramaError, and FileChanged where the file is not the one whose digest `sha256` is.
    """
    content, _ = read_planned(path, sha256)
    panorama = decode_panorama(content, path, required_width(views, image_size, rendering), **rendering.pose)
    return render_views(panorama, views, image_size, rendering)


def render_views(
    panorama: Pixels, views: Sequence[View], image_size: tuple[int, int], rendering: Rendering = DEFAULT_RENDERING
) -> Pixels:
    """Render views of a panorama (uint8 [H, W, 3]) at `image_size` = (h, w): uint8 [V, h, w, 3].

    Deterministic to the byte and safe to call from several threads.
    """
    rendered = np.empty((len(views), *image_size, 3), dtype=np.uint8)
    reduced: dict[tuple[int, int], Pixels] = {}
    tiles = []
    for view, target in zip(views, rendered, strict=True):
        if _cut_by_py360convert(view, rendering):
            target[...] = _by_py360convert(panorama, view, image_size)
            continue
        if not rendering.antialias:
            sample_points(panorama, view, target)
            continue
        box = None if view.kind == "perspective" else whole_pixels(view, panorama.shape[:2])
        if box and box[2] - box[0] >= 2 * image_size[0] and box[3] - box[1] >= 2 * image_size[1]:
            average(panorama, box, target)
            continue
        size = _reduced_size(panorama, view, image_size)
        if size not in reduced:
            reduced[size] = shrink(panorama, size)
        tiles.append(Tile(reduced[size], view, _footprint(view, image_size, size), target))
    sample(tiles)
    return rendered


def _cut_by_py360convert(view: View, rendering: Rendering) -> bool:
    """Whether py360convert cuts this view; global views and windows are ours in any case."""
    return rendering.renderer == "py360convert" and view.kind == "perspective"


def _by_py360convert(panorama: Pixels, view: View, image_size: tuple[int, int]) -> Pixels:
    """The view [h, w, 3] as py360convert cuts it: its field of view spans the centres of the outer pixels."""
    from py360convert import e2p  # with scipy it takes a third of a second

    return np.asarray(
        e2p(panorama, (view.hfov_deg, view.vfov_deg), view.yaw_deg, view.pitch_deg, image_size, mode="bilinear"),
        dtype=np.uint8,
    )


def required_size(view: View, image_size: tuple[int, int]) -> tuple[int, int]:
    """The panorama's (height, width) below which an anti-aliased view would lose detail.

    Equirectangular views need three of its pixels for each of theirs. A pinhole's pixels see smaller angles towards its
    edges, by cos^2(FoV / 2), so that a perspective view of 90 degrees needs 2.45 for each pixel at its centre, wide
    ones more. Small views of large panoramas lose most and cost least, hence the floor. Measured on real
    panoramas: at least 36 dB against 8 x 8 supersampling.
    """
    height, width = _matching_size(view, image_size)
    if view.kind != "perspective":
        return math.ceil(3 * height), math.ceil(3 * width)
    edge = 1 / math.cos(math.radians(max(view.hfov_deg, view.vfov_deg)) / 2) ** 2
    finer = min(4.0, max(0.8, edge / 2)) * (1.6 if view.pitch_deg else 1.0)
    pixels = finer * max(2.45, min(4.0, 1600 / width))
    return math.ceil(pixels * height), math.ceil(pixels * width)


def required_width(
    views: Sequence[View], image_size: tuple[int, int], rendering: Rendering = DEFAULT_RENDERING
) -> int | None:
    """`load_panorama`'s min_width for these views; None where the panorama is needed as it is."""
    if not rendering.antialias or any(_cut_by_py360convert(view, rendering) for view in views):
        return None
    sizes = [required_size(view, image_size) for view in views]
    return max((max(2 * height, width) for height, width in sizes), default=None)


def _matching_size(view: View, image_size: tuple[int, int]) -> tuple[float, float]:
    """The panorama's (height, width) whose pixels are as large as the view's at its centre."""
    height, width = image_size
    if view.kind != "perspective":
        return height * 180 / view.vfov_deg, width * 360 / view.hfov_deg
    rows = math.pi * height / math.tan(math.radians(view.vfov_deg) / 2) / 2
    columns = math.pi * width / math.tan(math.radians(view.hfov_deg) / 2)
    if view.pitch_deg == 0:
        return rows, columns
    return max(rows, columns / 2), max(2 * rows, columns)  # looking up or down, rows and columns mix


def _reduced_size(panorama: Pixels, view: View, image_size: tuple[int, int]) -> tuple[int, int]:
    """The panorama's (height, width) divided by whole factors that keep what the view requires."""
    (height, width), required = panorama.shape[:2], required_size(view, image_size)
    spare = 1 if view.kind == "perspective" else 2  # a window's pixels and a view's are both squares: they would beat
    return _reduced_length(height, spare * required[0]), _reduced_length(width, spare * required[1])


def _reduced_length(length: int, required: int) -> int:
    """Divided by the largest factor, or by a smaller one (to the half) that leaves no rest: that is 13 times faster."""
    largest = max(1, length // required)
    factors = (factor for factor in range(largest, largest // 2, -1) if length % factor == 0)
    return round(length / next(factors, largest))


def _footprint(view: View, image_size: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """How many pixels of a panorama of `size` one of the view covers at its centre, down and across."""
    down, across = _matching_size(view, image_size)
    return size[0] / down, size[1] / across
