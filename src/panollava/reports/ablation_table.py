"""The rows of an ablation for programs and for the eye: CSV, HTML, a plot, lines on the console. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from panollava.evaluation.ablation import CellRow
from panollava.files import atomic_path, write_text

FILES = ("summary.csv", "summary.html", "summary.png")
SO_FAR = "summary_so_far.csv"


def write_so_far(rows: Sequence[CellRow], folder: Path) -> Path | None:
    """summary_so_far.csv in `folder`, and an older, complete summary is removed; None where all cells are done."""
    so_far = folder / SO_FAR
    if all(row.status == "completed" for row in rows):
        so_far.unlink(missing_ok=True)
        return None
    for name in FILES:  # first: a kill in between must not leave both
        (folder / name).unlink(missing_ok=True)
    write_csv(rows, so_far)
    return so_far


def standing_text(name: str, rows: Sequence[CellRow], path: Path | None = None) -> str:
    """The rows as lines for the console: each cell's status, and why one failed."""
    done = sum(row.status == "completed" for row in rows)
    lines = [f"ablation {name}: {done} of {len(rows)} cells completed" + (f", table: {path}" if path else "")]
    width = max(len(row.experiment) for row in rows)
    for row in rows:
        scores = [
            f"{key} {value:.4f}" + (f" (blind {row.blind[key]:.4f})" if row.blind.get(key) is not None else "")
            for key, value in row.scores.items()
            if value is not None
        ]
        facts = "  ".join([*scores, *([row.error] if row.error else [])])
        lines.append(f"  {row.experiment:<{width}}  {row.status:<9}  {facts}".rstrip())
    return "\n".join(lines)


def records(rows: Sequence[CellRow]) -> list[dict[str, Any]]:
    """The table: each cell's values by column, None where there is nothing to say. All have the same columns."""
    settings = _union(row.settings for row in rows)
    metrics = _union(row.scores for row in rows)
    found = []
    for row in rows:
        record = {"experiment": row.experiment, **{key: row.settings.get(key) for key in settings}}
        record["status"] = row.status
        for key in ("protocol", "num_samples"):
            record[key] = None if row.metrics is None else row.metrics[key]
        for name in metrics:
            record |= {name: row.scores.get(name), f"blind_{name}": row.blind.get(name)}
        for key in ("best_val_loss", "trainable_parameters", "minutes", "error"):
            record[key] = getattr(row, key)
        found.append(record)
    return found


def write_csv(rows: Sequence[CellRow], path: Path) -> None:
    import pandas as pd  # not on top: the Snakefile reads this module

    table = pd.DataFrame(records(rows), dtype=object).map(_text)
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def write_html(rows: Sequence[CellRow], path: Path, title: str) -> None:
    """The same table for the eye: a metric, its interval and its blind control in one column; bold the best score of
    each and those that cannot be distinguished from it."""
    from panollava.evaluation.metrics import LABELS
    from panollava.reports.rendering import write_page

    settings = _union(row.settings for row in rows)
    metrics = _union(row.scores for row in rows)
    best = _best_cells(rows, metrics)
    header = ["experiment", *settings, *(LABELS.get(name, name) for name in metrics)]
    shown = [
        {
            "experiment": row.experiment,
            "settings": [_text(row.settings.get(key)) for key in settings],
            "scores": [
                {
                    "value": row.scores.get(name),
                    "interval": _interval(row, name),
                    "blind": row.blind.get(name),
                    "best": row.experiment in best.get(name, {}),
                    "tie": row.experiment in best.get(name, {}) and len(best[name]) > 1,
                }
                for name in metrics
            ],
            "loss": row.best_val_loss,
            "parameters": row.trainable_parameters,
            "minutes": row.minutes,
        }
        for row in rows
    ]
    write_page(
        "ablation", path, title=title, header=[*header, "validation loss", "trainable", "minutes"], rows=shown,
        ties=any(len(cells) > 1 for cells in best.values()), notes=_notes(rows),
    )  # fmt: skip


def _interval(row: CellRow, name: str) -> list[float] | None:
    found: list[float] | None = None if row.metrics is None else row.metrics["metrics"].get(name, {}).get("interval")
    return found


def _best_cells(rows: Sequence[CellRow], metrics: Sequence[str]) -> dict[str, set[str]]:
    """Of each metric the cell with the best score, and those whose 95 % intervals overlap its and so cannot be
    distinguished. None where the best cell has no interval, or where the cells were scored by several protocols, on
    other questions, or by other rules (the metric's signature)."""
    from panollava.evaluation.metrics.result import lower_is_better

    if len({row.metrics["protocol"] for row in rows if row.metrics}) != 1 or not _same_questions(rows):
        return {}
    best: dict[str, set[str]] = {}
    for name in metrics:
        scored = [(value, row) for row in rows if (value := row.scores.get(name)) is not None]
        rules = {row.metrics["metrics"][name].get("signature") for _, row in scored if row.metrics}
        if len(rules) != 1:
            continue
        lower = any(lower_is_better(row.metrics["metrics"][name]) for _, row in scored if row.metrics)
        _, first = (min if lower else max)(scored, key=lambda one: one[0])
        ends = _interval(first, name)
        if ends is None:
            continue
        best[name] = {
            row.experiment
            for _, row in scored
            if row is first or (other := _interval(row, name)) is None or (other[0] <= ends[1] and ends[0] <= other[1])
        }
    return best


def _same_questions(rows: Sequence[CellRow]) -> bool:
    """Whether all cells answered the same test set, as far as their scores record its content."""
    asked = [(row.metrics.get("provenance", {}).get("inputs") or {}).get("csvs") or [] for row in rows if row.metrics]
    content = [[(csv.get("sha256", csv["path"]), csv.get("images")) for csv in csvs] for csvs in asked]
    return all(one == content[0] for one in content)


def _notes(rows: Sequence[CellRow]) -> list[str]:
    """Notes that cells answered other questions or that there are too few panoramas, once each."""
    other = [] if _same_questions(rows) else ["the cells answered different test sets: no score is marked as the best"]
    own = [(row.metrics.get("intervals") or {}).get("note") for row in rows if row.metrics is not None]
    return list(dict.fromkeys(note for note in [*other, *own] if note))


def plot(rows: Sequence[CellRow], path: Path, title: str) -> None:
    """A panel per metric: each cell's score as a bar with its 95 % interval, its blind control as a mark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    from panollava.evaluation.metrics import LABELS

    metrics = [
        name for name in _union(row.scores for row in rows) if any(row.scores.get(name) is not None for row in rows)
    ]
    panels = [*metrics, "best_val_loss"]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    labels = [fill(_short_name(row, rows).replace("_", "_ "), 28).replace("_ ", "_") for row in rows]
    printed = sum(max(1.6, 1 + label.count("\n")) for label in labels)  # lines of text
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, lines * max(1.6, 1.0 + 0.17 * printed)), dpi=110,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    places = list(range(len(rows)))
    for panel, ax in zip(panels, axes.flat, strict=False):
        of_loss = panel == "best_val_loss"
        values = [row.best_val_loss if of_loss else row.scores.get(panel) for row in rows]
        ax.barh(places, [value or 0.0 for value in values], color="#b9c4d0" if of_loss else "#4878a8", height=0.62)
        if not of_loss:
            _error_bars(ax, rows, panel)
        blind = [] if of_loss else [(b, y) for y, row in enumerate(rows) if (b := row.blind.get(panel)) is not None]
        if blind:
            ax.plot(*zip(*blind, strict=True), "D", color="#d1495b", markersize=5, label="blind control")
        ax.set_title("best validation loss" if of_loss else LABELS.get(panel, panel), fontsize=10)
        if not any(values):
            ax.set_xlim(0, 1)
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_yticks(places, labels if ax in axes[:, 0] else [""] * len(rows), fontsize=8)
        ax.tick_params(axis="x", labelsize=8)
        ax.invert_yaxis()
        ax.grid(axis="x", alpha=0.3)
        ax.set_axisbelow(True)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    handles, names = axes.flat[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower right", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)


def _error_bars(ax: Any, rows: Sequence[CellRow], metric: str) -> None:
    """The 95 % intervals of the cells that have one."""
    found = [
        (y, value, ends)
        for y, row in enumerate(rows)
        if (value := row.scores.get(metric)) is not None and (ends := _interval(row, metric)) is not None
    ]
    if found:
        widths = [[max(0.0, v - e[0]) for _, v, e in found], [max(0.0, e[1] - v) for _, v, e in found]]
        ax.errorbar(
            [v for _, v, _ in found], [y for y, _, _ in found], xerr=widths, fmt="none", ecolor="#1c2733",
            elinewidth=1.2, capsize=3, label="95 % interval",
        )  # fmt: skip


def _short_name(row: CellRow, rows: Sequence[CellRow]) -> str:
    """The cell's name without the words that begin all of them."""
    words = [other.experiment.split("_") for other in rows]
    common = 0
    while len(rows) > 1 and all(len(w) > common + 1 and w[: common + 1] == words[0][: common + 1] for w in words):
        common += 1
    return "_".join(row.experiment.split("_")[common:])


def _union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
