"""Loss curves: the history of a stage as a picture."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from panollava.files import atomic_path


def plot_loss_curves(history: Path, target: Path, title: str) -> None:
    """Draw training and validation loss over optimiser steps (`history.csv`) as a PNG."""
    with open(history, encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    figure, axes = plt.subplots(figsize=(7, 4), dpi=120, layout="constrained")
    for split, style in (("train", "-"), ("val", "o-")):
        points = [(int(row["step"]), float(row["loss"])) for row in rows if row["split"] == split]
        if points:
            style = "o" if len(points) == 1 else style  # one point makes no line
            axes.plot(*zip(*points, strict=True), style, label={"train": "training", "val": "validation"}[split])
    axes.set(xlabel="optimiser step", ylabel="loss", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_path(target) as partial:
        figure.savefig(partial, format="png")
    plt.close(figure)
