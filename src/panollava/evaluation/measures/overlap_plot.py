"""Plot where and how well views agree, from their similarities, as one PNG for the report.

Above, similarity by the angle between the directions that two tokens look in (matched tokens at 0), and the score of
each pair of neighbouring views. Below, the score by direction, laid over the panorama: the mean of all pictures for
both kinds of token, then one panorama and its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from panollava.evaluation.measures.overlap import Agreement
from panollava.files import atomic_path
from panollava.views.geometry import project, view_rays
from panollava.views.panorama import Pixels
from panollava.views.strategies import GLOBAL_VIEW

_NAMES = {"dino_similarity": "encoder (dino_similarity)", "overlap_consistency": "resampler (overlap_consistency)"}
_COLOURS = {"dino_similarity": "tab:blue", "overlap_consistency": "tab:orange"}
_HEIGHT = 96  # rows of the heat maps; no pixel lies on the border of two tokens of a ring of 8 or 12
_EXTENT = (-180.0, 180.0, -90.0, 90.0)


def plot_overlap(agreements: Mapping[str, Agreement], target: Path, title: str, panorama: Pixels | None = None) -> None:
    """Draw the agreements of both kinds of token (none: a sheet that says so); `panorama` is the example's."""
    if not agreements:
        figure, axes = plt.subplots(figsize=(7, 2), dpi=120)
        axes.axis("off")
        axes.text(0.5, 0.5, f"{title}: no two views share directions", ha="center", va="center")
    else:
        figure, grid = plt.subplots(3, 2, figsize=(13, 10.5), dpi=110, layout="constrained")
        figure.suptitle(title)
        _by_angle(grid[0, 0], agreements)
        _by_pair(grid[0, 1], agreements)
        for axes, (key, name) in zip(grid[1], _NAMES.items(), strict=True):
            if one := agreements.get(key):
                _heat_map(axes, one, one.sums / one.count, f"score by direction, {one.count} pictures: {name}")
            else:
                axes.axis("off")
        key = list(agreements)[-1]
        _picture(grid[2, 0], panorama)
        _heat_map(grid[2, 1], agreements[key], agreements[key].example, f"the same picture: {_NAMES[key]}")
    with atomic_path(target) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)


def on_the_sphere(agreement: Agreement, values: np.ndarray, height: int = _HEIGHT) -> np.ndarray:
    """Values of the pairs' tokens [pairs, L] over the panorama [height, 2 * height]; NaN where no two views look.

    Each direction takes the token whose cell it lies in, the mean where several pairs see it.
    """
    rays = view_rays(GLOBAL_VIEW, height, 2 * height)
    rows, columns = agreement.geometry.grid
    numbers, mask = agreement.geometry.rows.cpu().numpy(), agreement.mask
    total, count = np.zeros((height, 2 * height)), np.zeros((height, 2 * height))
    for pair, (first, second) in enumerate(agreement.pairs):
        seen_first = project(agreement.views[first], rays)[1]
        place, seen = project(agreement.views[second], rays)
        cell = np.clip(((place + 1) / 2 * [columns, rows]).astype(int), 0, [columns - 1, rows - 1])
        by_token = np.full(rows * columns, np.nan)
        by_token[numbers[pair][mask[pair]]] = values[pair][mask[pair]]
        found = by_token[cell[..., 1] * columns + cell[..., 0]]
        inside = seen & seen_first & np.isfinite(found)
        total[inside] += found[inside]
        count[inside] += 1
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _by_angle(axes: Axes, agreements: Mapping[str, Agreement]) -> None:
    for key, agreement in agreements.items():
        points = agreement.by_angle()
        angles = [point["angle_deg"] for point in points]
        axes.plot(angles, [point["similarity"] for point in points], "o-", color=_COLOURS[key], label=_NAMES[key])
        if agreement.blind is not None:
            blind = [point["blind"] for point in points]
            axes.plot(angles, blind, "o--", color=_COLOURS[key], alpha=0.6, label="the same, other panorama (blind)")
    axes.set(xlabel="angle between the tokens' directions in degrees (0: matched)", ylabel="cosine similarity")
    axes.set_title("similarity of tokens of neighbouring views")
    axes.grid(alpha=0.3)
    axes.legend()


def _by_pair(axes: Axes, agreements: Mapping[str, Agreement]) -> None:
    for offset, (key, agreement) in zip((-0.2, 0.2), agreements.items(), strict=False):
        scores = np.nanmean(agreement.contrast(agreement.sums / agreement.count), axis=1)
        axes.bar(np.arange(len(scores)) + offset, scores, 0.4, color=_COLOURS[key], label=_NAMES[key].split()[0])
        if agreement.blind is not None:
            blind = np.nanmean(agreement.contrast(agreement.blind / agreement.count), axis=1)
            label = "other panorama (blind)" if key == list(agreements)[-1] else None
            axes.plot(np.arange(len(scores)) + offset, blind, "k_", markersize=12, label=label)
    agreement = next(iter(agreements.values()))
    yaws = [f"{agreement.views[i].yaw_deg:g}°→{agreement.views[j].yaw_deg:g}°" for i, j in agreement.pairs]
    axes.set_xticks(range(len(yaws)), yaws, rotation=45 if len(yaws) > 6 else 0, fontsize=8)
    axes.set(xlabel="yaws of both views", ylabel="matched minus unmatched", title="score of each pair of views")
    axes.grid(alpha=0.3, axis="y")
    axes.margins(y=0.3)  # room for the legend
    axes.legend(loc="upper center", ncols=3, fontsize=9)


def _heat_map(axes: Axes, agreement: Agreement, similarity: np.ndarray, title: str) -> None:
    heat = on_the_sphere(agreement, agreement.contrast(similarity))
    axes.set_facecolor("0.85")
    image = axes.imshow(heat, extent=_EXTENT, vmin=-1, vmax=1, cmap="RdBu")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    _sphere_axes(axes, f"{title}\n(grey: not seen by two neighbours)")


def _picture(axes: Axes, panorama: Pixels | None) -> None:
    if panorama is not None:
        axes.imshow(panorama, extent=_EXTENT)
    _sphere_axes(axes, "one picture" if panorama is not None else "one picture (not found)")


def _sphere_axes(axes: Axes, title: str) -> None:
    axes.set(xlabel="yaw in degrees", ylabel="pitch in degrees", title=title)
    axes.set_xticks(range(-180, 181, 45))
    axes.set_yticks(range(-90, 91, 45))
