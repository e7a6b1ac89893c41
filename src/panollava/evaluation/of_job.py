"""The steps of an evaluation as the DAG's jobs take them: from checkpoint.json and a prepared CSV to a step's file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from panollava.checkpoints.chosen import load_chosen_stage
from panollava.data.prepared_images import read_images, views_of_csv
from panollava.data.samples import read_samples
from panollava.evaluation.pipeline import Evaluation, as_shown, generation_settings
from panollava.evaluation.predict import kept_answers
from panollava.files import digest_of, sha256_file


def open_job(
    config: Mapping[str, Any], checkpoint: dict[str, Any], csv_path: Path, views: Path | None = None
) -> Evaluation:
    """The stage that checkpoint.json names and the samples of a prepared CSV; torch gets the configured threads.

    `config` are the node's settings, `views` is the folder of cached views; without it only rolled panoramas can be
    asked about.
    """
    torch.set_num_threads(config["training"]["cpu_threads"])
    loaded = load_chosen_stage(checkpoint)
    seed = config["training"]["seed"]
    samples = as_shown(read_samples(csv_path), config.get("evaluation", {}), seed)
    if views is None:
        return Evaluation(loaded, samples, {}, read_images(csv_path) or {}, seed)
    pictures = views_of_csv(views, csv_path)
    return Evaluation(loaded, samples, pictures, pictures.sha256, seed)


def answer_csv(
    node: str,
    config: Mapping[str, Any],
    digest: str,
    checkpoint: dict[str, Any],
    csv_path: Path,
    output: Path,
    state: Path,
    views: Path | None = None,
) -> dict[str, Any]:
    """Answer every (image, query) of `csv_path`: `node` is `predict`, one of its controls, or `predict_rolled`.

    `digest` is the slice's. Returns what metrics.json tells of how the answers were made. Answers of finished batches
    are kept in `state` until the output is written, so that a killed job goes on.
    """
    work, settings, csv_sha256 = (
        open_job(config, checkpoint, csv_path, views),
        generation_settings(config),
        sha256_file(csv_path),
    )
    if node == "predict_blind":
        work.can_shuffle(csv_path)
    key = digest_of({"slice": digest, "checkpoint": checkpoint["sha256"], "csv": csv_sha256})
    with kept_answers(state, key) as kept:
        if node == "predict_rolled":
            work.predict_rolled(settings, output, kept("answers"))
        else:
            work.predict(node, settings, output, kept("answers"))
    return work.provenance({"path": str(csv_path), "sha256": csv_sha256}, settings)
