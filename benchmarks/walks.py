"""How a reader walks through the code: the calls that lead from one file of panollava to another, on five ways.

    python benchmarks/walks.py                  # the table
    python benchmarks/walks.py --steps slice    # each move of one way: from, to, function, how often

Each way runs once before it is counted, so that imports and what is built once a process do not count; comprehensions
are no functions of their own. Counted are calls whose caller stands in another file of panollava than the function.
"""

from __future__ import annotations

import argparse
import collections
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from random_models import EXP1, build_backbones
from transformers.utils import logging as transformers_logging

import panollava
from panollava.config import WorkflowConfig
from panollava.dag.tasks import task_of
from panollava.data.prepare import prepare_csv
from panollava.evaluation.score_files import DEFAULTS, score_files
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.training.module import StageModule
from panollava.views.render import open_views
from panollava.views.strategies import plan_views

ROOT = Path(__file__).parents[1]
PACKAGE = f"{Path(panollava.__file__).parent}{os.sep}"
Move = tuple[str, str, str]


@dataclass
class Walk:
    """What one way touched: files, functions as (file, name), moves as (from, to, name) and how often."""

    files: set[str] = field(default_factory=set)
    functions: set[tuple[str, str]] = field(default_factory=set)
    moves: collections.Counter[Move] = field(default_factory=collections.Counter)

    def see(self, frame: Any, event: str, _: Any) -> None:
        """For `sys.setprofile`."""
        here, name = frame.f_code.co_filename, frame.f_code.co_name
        if event != "call" or not here.startswith(PACKAGE) or name.startswith("<"):
            return
        file = here.removeprefix(PACKAGE)
        self.files.add(file)
        self.functions.add((file, name))
        caller = frame.f_back.f_code.co_filename if frame.f_back else ""
        if caller.startswith(PACKAGE) and caller != here:
            self.moves[caller.removeprefix(PACKAGE), file, name] += 1


def walked(way: Callable[[], object]) -> Walk:
    way()
    walk = Walk()
    sys.setprofile(walk.see)
    try:
        way()
    finally:
        sys.setprofile(None)
    return walk


def ways(folder: Path) -> dict[str, tuple[str, Callable[[], object]]]:
    """Each way's title and what runs it, by its short name; `folder` takes what they write."""
    picture, csv = folder / "a.png", folder / "a.csv"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 512, 3), np.uint8)).save(picture)
    csv.write_text(f"image_path,query,annotation\n{picture},what is it?,a red box\n", encoding="utf-8")
    predictions = folder / "predictions.csv"
    predictions.write_text(
        f"image_path,original_query,prediction,reference\n{picture},what is it?,a box,a red box\n", encoding="utf-8"
    )
    scoring = DEFAULTS | {"metrics": ["bleu4"], "bootstrap_samples": 0}

    def slice_and_options() -> object:
        config = WorkflowConfig.load(ROOT / "config/experiments/EXP1.yaml", ROOT)
        task = task_of(config, "train_finetune")
        return task.document, task.node.options(task)

    def prepared() -> object:
        return prepare_csv([csv], folder / "prepared.csv", folder / "rejected.csv", progress=False)

    def scored() -> object:
        return score_files({"predict": predictions}, scoring, folder / "metrics.json", {})

    return {
        "row": ("CSV row -> verified image", prepared),
        "views": (
            "image -> pixels of views",
            lambda: open_views(picture, plan_views("anyres_e2p"), (64, 64)),
        ),
        "step": ("training_step", training_step(folder)),
        "slice": ("YAML -> slice and options of train_finetune", slice_and_options),
        "bleu": ("predictions -> metrics.json, BLEU alone", scored),
    }


def training_step(folder: Path) -> Callable[[], object]:
    """A step of the finetune stage of a small model, with two rows."""
    model = PanoramaVLM(build_backbones(folder, EXP1, layers=1)).train()
    freeze_for_stage(model, "finetune", 0)
    module = StageModule(
        model, "finetune", kept=set(), total_steps=2, optimizer="adamw", lr=1e-4, muon_lr=0.02, weight_decay=0.0,
        warmup_ratio=0.0,
    )  # fmt: skip
    assert model.prompt is not None
    rows = [model.prompt.training("what is it?", answer, 32) for answer in ("a red box", "a blue sphere")]
    pixels = torch.randn(2, len(model.views), 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = {"pixel_values": pixels, **model.prompt.collate(rows, "right")}
    return lambda: module.training_step(batch, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", choices=("row", "views", "step", "slice", "bleu"), help="the moves of one way")
    parser.add_argument("--smoke", action="store_true", help="the same; it is small")
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        chosen = ways(Path(folder))
        if options.steps:
            for (caller, file, name), times in walked(chosen[options.steps][1]).moves.items():
                print(f"{times:3} {caller} -> {file} {name}")
            return
        print("| way | files | functions | moves between files |\n|---|---|---|---|")
        for title, way in chosen.values():
            walk = walked(way)
            print(f"| {title} | {len(walk.files)} | {len(walk.functions)} | {walk.moves.total()} |")


if __name__ == "__main__":
    main()
