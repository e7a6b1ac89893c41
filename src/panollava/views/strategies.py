"""What views there are: the list of `View`s of a crop strategy and its settings.

A view is plain data: kind, direction of its centre, fields of view. Loss, positional encoding, stitching and
plots read that description; nobody recomputes angles. No numpy is imported, so that the configuration
can count views and pairs without it.

Conventions: yaw 0 is the panorama's centre column and positive yaw looks right; pitch 0 is the horizon and
positive pitch looks up. Every ring starts with a view centred at yaw 0 and goes on to the right in even steps
of 360/N; yaws are written in (-180, 180].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Literal, get_args

from panollava.errors import ConfigError

CropStrategy = Literal["resize", "sliding_window", "e2p", "cubemap", "anyres", "anyres_max", "anyres_e2p"]
ViewKind = Literal["global", "perspective", "crop"]
Level = Literal["auto", "off"]
"""Whether the pitch and roll that a panorama's metadata state are taken out of it."""


@dataclass(frozen=True)
class View:
    """One picture taken from the panorama.

    `global` is the whole equirectangular image squashed to the view's shape; `perspective` a pinhole camera;
    `crop` a window of the equirectangular image (its FoVs are extents in longitude and latitude).
    """

    kind: ViewKind
    yaw_deg: float
    pitch_deg: float
    hfov_deg: float
    vfov_deg: float

    def to_json(self) -> dict[str, Any]:
        """`{"kind", "yaw_deg", "pitch_deg", "fov_deg", "vfov_deg"}`; `fov_deg` is the horizontal one."""
        return {
            "kind": self.kind,
            "yaw_deg": self.yaw_deg,
            "pitch_deg": self.pitch_deg,
            "fov_deg": self.hfov_deg,
            "vfov_deg": self.vfov_deg,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> View:
        """The inverse of `to_json`; without `vfov_deg` the field is square. Raises ValueError, KeyError."""
        kind = document["kind"]
        if kind not in get_args(ViewKind):
            raise ValueError(f"a view's kind must be one of {', '.join(get_args(ViewKind))}, got {kind!r}")
        hfov_deg = float(document["fov_deg"])
        vfov_deg = float(document.get("vfov_deg", hfov_deg))
        return cls(kind, float(document["yaw_deg"]), float(document["pitch_deg"]), hfov_deg, vfov_deg)


MAX_VIEWS = 1024
"""The most views of one panorama: more are a mistake in `fov_deg` or `overlap_ratio`."""


@dataclass(frozen=True)
class Range:
    """What a setting may be: from `low` to `high`, themselves included where `closed`."""

    low: float
    high: float
    typical: str
    closed: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high if self.closed else self.low < value < self.high

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]" if self.closed else f"({self.low}, {self.high})"

    @property
    def bounds(self) -> dict[str, Any]:
        """The same for `settings.section.key`."""
        low, high = ("ge", "le") if self.closed else ("gt", "lt")
        return {low: self.low, high: self.high, "typical": self.typical}


RANGES = {
    "fov_deg": Range(0, 180, "[60, 120]"),
    "overlap_ratio": Range(0, 1, "[0.3, 0.7]"),
    "anyres_max_patches": Range(1, MAX_VIEWS, "[5, 13]", closed=True),
}
GLOBAL_VIEW = View("global", 0.0, 0.0, 360.0, 180.0)


def plan_views(
    crop_strategy: str,
    *,
    fov_deg: float = 90.0,
    overlap_ratio: float = 0.5,
    anyres_max_patches: int = 9,
    cubemap_poles: bool = True,
) -> tuple[View, ...]:
    """The views of one panorama, in the order in which every array of views holds them.

    `RANGES` says what the numbers may be; `anyres_max_patches` counts the global view.
    Raises ConfigError for an unknown strategy, for values out of range and for rings of more than MAX_VIEWS.

    >>> views = plan_views("anyres_e2p", fov_deg=90, overlap_ratio=0.5)
    >>> len(views), views[0].kind, [view.yaw_deg for view in views[1:4]]
    (9, 'global', [0.0, 45.0, 90.0])
    """
    if crop_strategy not in CROP_STRATEGIES:
        near = get_close_matches(str(crop_strategy), CROP_STRATEGIES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"crop_strategy must be one of {', '.join(CROP_STRATEGIES)}, got {crop_strategy!r}.{hint}")
    given = {"fov_deg": fov_deg, "overlap_ratio": overlap_ratio, "anyres_max_patches": anyres_max_patches}
    for name, allowed in RANGES.items():
        if given[name] not in allowed:
            raise ConfigError(f"{name} must be in {allowed}, got {given[name]}. Typical range: {allowed.typical}")
    strategy = CROP_STRATEGIES[crop_strategy]
    if "overlap_ratio" in strategy.reads and fov_deg * (1 - overlap_ratio) * MAX_VIEWS < 360:
        raise ConfigError(
            f"fov_deg {fov_deg:g} and overlap_ratio {overlap_ratio:g} make a ring of more than {MAX_VIEWS} views. "
            "Typical: 90 and 0.5, which make 8"
        )
    settings = _Settings(float(fov_deg), float(overlap_ratio), int(anyres_max_patches), bool(cubemap_poles))
    return tuple(strategy.plan(settings))


def ring_size(fov_deg: float, overlap_ratio: float) -> int:
    """How many views close a ring: ceil(360 / (fov * (1 - overlap)))."""
    return _ceil(360 / (fov_deg * (1 - overlap_ratio)))


def neighbour_pairs(views: Sequence[View]) -> list[tuple[int, int]]:
    """Indices of neighbouring views that share directions; the global view takes no part.

    Neighbours are: each view of a ring and the next one to its right (the ring is closed: the last and the
    first); two windows of a grid, one above the other; a pole's face and each view of the horizon. A pair is
    named once. Views that merely touch, such as a cubemap's faces, share no directions.
    """
    rows: dict[float, list[int]] = {}
    for index, view in enumerate(views):
        if view.kind != "global":
            rows.setdefault(view.pitch_deg, []).append(index)
    pairs: list[tuple[int, int]] = []
    for row in rows.values():
        ring = sorted(row, key=lambda index: views[index].yaw_deg % 360)
        following = ring[1:] + (ring[:1] if len(ring) > 2 else [])
        pairs += [
            (left, right)
            for left, right in zip(ring, following, strict=False)
            if _angle(views[left].yaw_deg, views[right].yaw_deg)
            < (views[left].hfov_deg + views[right].hfov_deg) / 2 - 1e-9
        ]
    pitches = sorted(rows, reverse=True)
    for upper, lower in pairwise(pitches):
        pairs += [
            (above, below)
            for above in rows[upper]
            for below in rows[lower]
            if _in_one_column(views[above], views[below])
            and upper - lower < (views[above].vfov_deg + views[below].vfov_deg) / 2 - 1e-9
        ]
    return pairs


@dataclass(frozen=True)
class _Settings:
    fov_deg: float
    overlap_ratio: float
    anyres_max_patches: int
    cubemap_poles: bool


def _resize(settings: _Settings) -> Iterator[View]:
    yield GLOBAL_VIEW


def _sliding_window(settings: _Settings) -> Iterator[View]:
    for yaw_deg in _ring(ring_size(settings.fov_deg, settings.overlap_ratio)):
        yield View("crop", yaw_deg, 0.0, settings.fov_deg, 180.0)


def _e2p(settings: _Settings) -> Iterator[View]:
    for yaw_deg in _ring(ring_size(settings.fov_deg, settings.overlap_ratio)):
        yield View("perspective", yaw_deg, 0.0, settings.fov_deg, settings.fov_deg)


def _cubemap(settings: _Settings) -> Iterator[View]:
    """Front, right, back, left, then up and down. A cube's faces span 90 degrees whatever `fov_deg` says."""
    for yaw_deg in _ring(4):
        yield View("perspective", yaw_deg, 0.0, 90.0, 90.0)
    if settings.cubemap_poles:
        yield View("perspective", 0.0, 90.0, 90.0, 90.0)
        yield View("perspective", 0.0, -90.0, 90.0, 90.0)


def _anyres(settings: _Settings) -> Iterator[View]:
    """Windows of fov x fov around the horizon; where the cap thins them out, they are enlarged: no gaps."""
    yield GLOBAL_VIEW
    count = min(ring_size(settings.fov_deg, settings.overlap_ratio), settings.anyres_max_patches - 1)
    for yaw_deg in _ring(count):
        side_deg = max(settings.fov_deg, 360 / count)
        yield View("crop", yaw_deg, 0.0, side_deg, min(side_deg, 180.0))


def _anyres_max(settings: _Settings) -> Iterator[View]:
    """The grid that `fov_deg` and `overlap_ratio` ask for, thinned until it fits under the cap, without gaps.

    At 90/0.5 and a cap of 9 this is LLaVA's plain tiling: 2 rows of 4 windows, each 90 x 90 degrees.
    """
    yield GLOBAL_VIEW
    cap = settings.anyres_max_patches - 1
    if cap == 0:
        return
    step_deg = settings.fov_deg * (1 - settings.overlap_ratio)
    most_columns = ring_size(settings.fov_deg, settings.overlap_ratio)
    most_rows = 1 + _ceil((180 - settings.fov_deg) / step_deg)
    grids = [
        (rows, columns)
        for rows in range(1, min(most_rows, cap) + 1)
        for columns in range(1, min(most_columns, cap // rows) + 1)
    ]
    # The smallest longest side first: windows near to square lose the least when squashed.
    rows, columns = min(grids, key=lambda grid: (max(180 / grid[0], 360 / grid[1]), -grid[0] * grid[1], grid))
    hfov_deg, vfov_deg = max(settings.fov_deg, 360 / columns), max(settings.fov_deg, 180 / rows)
    for row in range(rows):
        pitch_deg = (90 - vfov_deg / 2) * (1 - 2 * row / (rows - 1)) if rows > 1 else 0.0
        for yaw_deg in _ring(columns):
            yield View("crop", yaw_deg, pitch_deg, hfov_deg, vfov_deg)


def _anyres_e2p(settings: _Settings) -> Iterator[View]:
    yield GLOBAL_VIEW
    yield from _e2p(settings)


@dataclass(frozen=True)
class Strategy:
    """How a strategy lists its views, and which of `STRATEGY_SETTINGS` it reads: the others change nothing."""

    plan: Callable[[_Settings], Iterator[View]]
    reads: tuple[str, ...] = ()


STRATEGY_SETTINGS = tuple(field.name for field in fields(_Settings))
_RING = ("fov_deg", "overlap_ratio")

CROP_STRATEGIES: dict[str, Strategy] = {
    "resize": Strategy(_resize),
    "sliding_window": Strategy(_sliding_window, _RING),
    "e2p": Strategy(_e2p, _RING),
    "cubemap": Strategy(_cubemap, ("cubemap_poles",)),
    "anyres": Strategy(_anyres, (*_RING, "anyres_max_patches")),
    "anyres_max": Strategy(_anyres_max, (*_RING, "anyres_max_patches")),
    "anyres_e2p": Strategy(_anyres_e2p, _RING),
}


def _ring(count: int) -> Iterator[float]:
    for index in range(count):
        yaw_deg = 360 * index / count
        yield yaw_deg if yaw_deg <= 180 else yaw_deg - 360


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)  # 360 / (80 * 0.9) must be 5, not 6


def _angle(first_deg: float, second_deg: float) -> float:
    return abs((second_deg - first_deg + 180) % 360 - 180)


def _in_one_column(above: View, below: View) -> bool:
    if max(abs(above.pitch_deg), abs(below.pitch_deg)) == 90:  # a pole lies above every column
        return True
    return _angle(above.yaw_deg, below.yaw_deg) < 1e-9
