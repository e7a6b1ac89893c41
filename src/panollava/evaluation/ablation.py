"""The table of an ablation: one row per cell, whether it is finished or not. No torch.

Enters: the cells' metrics and stage states (the job `compare_ablation`, when all of them are done), or their
configurations (how a grid stands that runs or has failed). Leaves: summary.csv with its HTML and plot, or
summary_so_far.csv. Scores of another configuration than the present one never stand in either.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.errors import EvaluationError
from panollava.files import atomic_path, read_json, write_text
from panollava.job_logs import INTERRUPTED, read_job_log
from panollava.stage_state import stage_state

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig
    from panollava.config.ablations import Ablation

SUMMARY_VERSION = 1
"""Raise it when the table's meaning changes."""

FILES = ("summary.csv", "summary.html", "summary.png")
SO_FAR = "summary_so_far.csv"
_SHARED_RULES = {
    "synthetic": "draw_synthetic",
    "miniature_vision": "pretrain_vision",
    "miniature_language": "pretrain_language",
}


@dataclass(frozen=True)
class Row:
    """One cell. `settings` are those in which cells differ; `metrics` is its metrics.json, if that is current."""

    experiment: str
    settings: dict[str, Any]
    status: str
    metrics: dict[str, Any] | None = None
    best_val_loss: float | None = None
    trainable_parameters: int | None = None
    minutes: float | None = None
    error: str | None = None

    @property
    def scores(self) -> dict[str, float | None]:
        return {} if self.metrics is None else {key: m["value"] for key, m in self.metrics["metrics"].items()}

    @property
    def blind(self) -> dict[str, float | None]:
        return {} if self.metrics is None else self.metrics["controls"]["blind"] or {}


# ---- all cells are done --------------------------------------------------------------------------
def summary_slice(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> dict[str, Any]:
    """What the table depends on: the cells, in what they differ, and the digest of each one's metrics."""
    settings = differing_settings(ablation, configs)
    return {
        "node": "compare_ablation",
        "code_version": SUMMARY_VERSION,
        "name": ablation.name,
        "settings": list(settings[0]),  # canonical JSON sorts keys, and the columns keep the file's order
        "cells": [
            {"experiment": config.names.experiment, "values": list(own.values()), "metrics": config.digest("metrics")}
            for config, own in zip(configs, settings, strict=True)
        ],
    }


def differing_settings(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> list[dict[str, Any]]:
    """Each cell's values of the settings in which cells differ (of all varied ones, where there is one cell)."""
    documents = [config.to_dict() for config in configs]
    found: list[dict[str, Any]] = [{} for _ in configs]
    columns = {"model": [cell.model for cell in ablation.cells]}
    columns |= {key: [_value(document, key) for document in documents] for key in ablation.varied}
    for name, values in columns.items():
        if any(value != values[0] for value in values) or (len(configs) == 1 and name != "model"):
            for own, value in zip(found, values, strict=True):
                own[name] = value
    return found


def compare_cells(
    slice_document: Mapping[str, Any], metrics: Sequence[Path], states: Sequence[Path], root: Path
) -> list[Row]:
    """Rows of finished cells, whose files come in the slice's order.

    Raises EvaluationError for metrics of another configuration than the cell's.
    """
    rows = []
    for cell, metrics_path, state_path in zip(slice_document["cells"], metrics, states, strict=True):
        document = read_json(metrics_path)
        found = document["provenance"].get("config")
        if found != cell["metrics"]:
            raise EvaluationError(
                f"{metrics_path} was computed for another configuration (digest {found}) than {cell['experiment']} "
                f"has now ({cell['metrics']}). Remove it and run the same command again."
            )
        stages = list(read_json(state_path)["stages"].values())
        if stages[-1]["config_digest"] != document["provenance"]["checkpoint"]["config_digest"]:
            raise EvaluationError(
                f"{state_path} and {metrics_path} belong to different trainings of {cell['experiment']}. Remove the "
                "former and run the same command again."
            )
        settings = dict(zip(slice_document["settings"], cell["values"], strict=True))
        rows.append(Row(cell["experiment"], settings, "completed", document, **_of_stages(stages, root)))
    return rows


# ---- how the cells stand now ---------------------------------------------------------------------
def rows_so_far(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> list[Row]:
    """A row per cell from what lies on the disk now: completed, failed, running or pending."""
    settings = differing_settings(ablation, configs)
    return [_row_so_far(config, own) for config, own in zip(configs, settings, strict=True)]


def write_so_far(rows: Sequence[Row], folder: Path) -> Path | None:
    """summary_so_far.csv in `folder`, and an older, complete summary is removed; None where all cells are done."""
    so_far = folder / SO_FAR
    if all(row.status == "completed" for row in rows):
        so_far.unlink(missing_ok=True)
        return None
    write_csv(rows, so_far)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    return so_far


def standing_text(name: str, rows: Sequence[Row], path: Path | None = None) -> str:
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


def _row_so_far(config: WorkflowConfig, settings: dict[str, Any]) -> Row:
    names, root = config.names, config.root
    records = {stage: str(root / names.state_dir(stage) / "record.json") for stage in names.stages}
    stages = [
        stage
        for stage in stage_state(names.experiment, records, live=True)["stages"].values()
        if stage["config_digest"] == config.digest(f"train_{stage['stage']}")
    ]
    about = _of_stages(stages, root) if stages else {}
    document = _current_metrics(root / names.metrics, config.digest("metrics"))
    if document is not None:
        return Row(names.experiment, settings, "completed", document, **about)
    status, error = _standing(config)
    return Row(names.experiment, settings, status, None, **about, error=error)


def _current_metrics(path: Path, digest: str) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = read_json(path)
        return document if document["provenance"]["config"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not what this version writes: not current
        return None


def _standing(config: WorkflowConfig) -> tuple[str, str | None]:
    """Status and error of an unfinished cell, from the logs of the jobs that it needs."""
    status = "pending"
    for rule, path, digests in job_logs_of(config):
        log = read_job_log(config.root / path)
        if log is None or log.digest not in digests:
            continue
        if log.running:
            status = "running"
        elif log.error not in (None, INTERRUPTED):
            return "failed", f"{rule}: {log.error}"
    return status, None


def job_logs_of(config: WorkflowConfig) -> Iterator[tuple[str, str, set[str]]]:
    """(rule, log, digests of its slice) of the jobs behind an experiment's metrics, in the DAG's order."""
    names, stages = config.names, config.names.stages
    shared: dict[str, str] = {}  # digest -> rule
    for split in ("train", "val", "test"):
        for stage in (None, *stages):
            for node, rule in ((f"prepare_{split}", "prepare_csv"), (f"views_{split}", "cache_views")):
                upstream = config.slice_of(node, stage)["upstream"]
                shared |= {key: _SHARED_RULES[kind] for kind, key in upstream.items() if kind in _SHARED_RULES}
                shared[config.digest(node, stage)] = rule
    for stage in stages:
        upstream = config.slice_of(f"train_{stage}")["upstream"]
        shared |= {key: _SHARED_RULES[kind] for kind, key in upstream.items() if kind in _SHARED_RULES}
    for digest, rule in shared.items():
        yield rule, f"{names.logs_dir}/shared/{rule}_{digest}.log", {digest}
    for stage in stages:
        yield (
            f"train_{stage}",
            names.log(f"train_{stage}_{names.variant}"),
            {config.digest(f"train_{stage}")},
        )
    predicted = {config.digest(node) for node in ("predict", "predict_blind")}
    yield "select_checkpoint", names.log("select_checkpoint"), {config.digest("select_checkpoint")}
    yield "predict", names.log("predict"), predicted
    yield "predict_blind", names.log("predict_blind"), predicted
    yield "compute_metrics", names.log("compute_metrics"), {config.digest("metrics")}


def _of_stages(stages: Sequence[Mapping[str, Any]], root: Path) -> dict[str, Any]:
    """Facts of the stages' records: minutes of all, loss and trainable parameters of the last."""
    last = stages[-1]
    minutes = [stage["elapsed_minutes"] for stage in stages if stage["elapsed_minutes"] is not None]
    metadata = root / (last["artifact_dir"] or "") / "checkpoint_metadata.json"
    return {
        "best_val_loss": last["best_val_loss"],
        "trainable_parameters": read_json(metadata).get("trainable_parameters") if metadata.is_file() else None,
        "minutes": round(sum(minutes), 2) if minutes else None,
    }


# ---- the table -----------------------------------------------------------------------------------
@dataclass
class Table:
    """Header and cells of the summary; a cell is None where there is nothing to say."""

    header: list[str] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Table:
        settings = _union(row.settings for row in rows)
        metrics = _union(row.scores for row in rows)
        pairs = [name for metric in metrics for name in (metric, f"blind_{metric}")]
        after = ["best_val_loss", "trainable_parameters", "minutes", "error"]
        return cls(
            ["experiment", *settings, "status", "protocol", "num_samples", *pairs, *after],
            [
                [row.experiment, *(row.settings.get(key) for key in settings), row.status]
                + [None if row.metrics is None else row.metrics[key] for key in ("protocol", "num_samples")]
                + [value for name in metrics for value in (row.scores.get(name), row.blind.get(name))]
                + [getattr(row, key) for key in after]
                for row in rows
            ],
        )


def write_csv(rows: Sequence[Row], path: Path) -> None:
    table = Table.of(rows)
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.header)
    writer.writerows([_text(value) for value in row] for row in table.rows)
    write_text(path, stream.getvalue())


def write_html(rows: Sequence[Row], path: Path, title: str) -> None:
    """The same table for the eye: a metric and its blind control in one column, the best score of each bold."""
    from panollava.evaluation import html
    from panollava.evaluation.metrics.result import LOWER_IS_BETTER

    settings = _union(row.settings for row in rows)
    metrics = _union(row.scores for row in rows)
    best: dict[str, float] = {}
    for name in metrics:
        values = [value for row in rows if (value := row.scores.get(name)) is not None]
        lower = any(LOWER_IS_BETTER in str(row.metrics["metrics"][name]["scale"]) for row in rows if row.metrics)
        if values:
            best[name] = min(values) if lower else max(values)
    body = []
    for row in rows:
        cells = [html.cell(row.experiment), *(html.cell(_text(row.settings.get(key)), "number") for key in settings)]
        for name in metrics:
            value, blind = row.scores.get(name), row.blind.get(name)
            kind = "number best" if value is not None and value == best.get(name) else "number"
            cells.append(html.cell("–" if value is None else f"{value:.4f}", kind))
            cells.append(html.cell("–" if blind is None else f"{blind:.4f}", "number quiet"))
        loss, count, minutes = row.best_val_loss, row.trainable_parameters, row.minutes
        cells.append(html.cell("–" if loss is None else f"{loss:.4f}", "number"))
        cells.append(html.cell("–" if count is None else f"{count:,}", "number"))
        cells.append(html.cell("–" if minutes is None else f"{minutes:.1f}", "number"))
        body.append(cells)
    header = ["experiment", *settings]
    header += [word for name in metrics for word in (name, "blind")]
    header += ["best validation loss", "trainable parameters", "minutes of training"]
    note = (
        "Scores of the test set, the best of each metric bold. `blind` is the same model with the pictures shuffled "
        "between samples: what a score is worth is its distance from it."
    )
    write_text(path, html.page(title, html.paragraph(note, "quiet"), html.table(header, body, range(1, len(header)))))


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """A panel per metric: each cell's score as a bar, its blind control as a mark."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics = [
        name for name in _union(row.scores for row in rows) if any(row.scores.get(name) is not None for row in rows)
    ]
    panels = [*metrics, "best_val_loss"]
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    height = lines * max(1.6, 0.9 + 0.28 * len(rows))
    figure, axes = plt.subplots(
        lines, columns, figsize=(4.2 * columns, height), dpi=110, layout="constrained", squeeze=False
    )
    labels = [_short_name(row, rows) for row in rows]
    places = list(range(len(rows)))
    for panel, ax in zip(panels, axes.flat, strict=False):
        of_loss = panel == "best_val_loss"
        values = [row.best_val_loss if of_loss else row.scores.get(panel) for row in rows]
        ax.barh(places, [value or 0.0 for value in values], color="#b9c4d0" if of_loss else "#4878a8", height=0.62)
        blind = [] if of_loss else [(b, y) for y, row in enumerate(rows) if (b := row.blind.get(panel)) is not None]
        if blind:
            ax.plot(*zip(*blind, strict=True), "D", color="#d1495b", markersize=5, label="blind control")
        ax.set_title("best validation loss" if of_loss else panel, fontsize=10)
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


def _short_name(row: Row, rows: Sequence[Row]) -> str:
    """The cell's name without the words that begin all of them."""
    words = [other.experiment.split("_") for other in rows]
    common = 0
    while len(rows) > 1 and all(len(w) > common + 1 and w[: common + 1] == words[0][: common + 1] for w in words):
        common += 1
    return "_".join(row.experiment.split("_")[common:])


def _union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _value(document: Mapping[str, Any], dotted: str) -> Any:
    value: Any = document
    for name in dotted.split("."):
        value = value[name]
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
