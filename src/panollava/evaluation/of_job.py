"""The steps of an evaluation as the DAG's jobs take them: from checkpoint.json and a prepared CSV to a step's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from panollava.checkpoints.chosen import load_chosen_stage
from panollava.data.prepared_images import digests_of_pictures, read_images, views_of_csv
from panollava.data.samples import read_samples
from panollava.evaluation.pipeline import Evaluation, as_shown, prediction_settings
from panollava.evaluation.predict import kept_answers, predictions_of
from panollava.evaluation.predictions import write_predictions
from panollava.evaluation.shards import device_of, joined
from panollava.files import digest_of, sha256_file, write_json
from panollava.logs import LOGGER


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
    shards: Sequence[Path] = (),
) -> dict[str, Any]:
    """Answer every (image, query) of `csv_path`: `node` is `predict`, one of its controls, or `predict_rolled`.

    With `shards`, the parts that `answer_part` has written, these are joined, and no model is loaded. `digest` is the
    slice's. Returns what metrics.json records of how the answers were made. Answers of finished batches
    are kept in `state` until the output is written, so that a killed job goes on.
    """
    if shards and views is not None:
        return _joined(config, _key(digest, checkpoint, csv_path), csv_path, output, views, shards)
    work, settings, csv_sha256 = (
        open_job(config, checkpoint, csv_path, views),
        prediction_settings(config),
        sha256_file(csv_path),
    )
    if node == "predict_blind":
        work.can_shuffle(csv_path)
    with kept_answers(state, _key(digest, checkpoint, csv_path)) as kept:
        if node == "predict_rolled":
            work.predict_rolled(settings, output, kept("answers"))
        else:
            work.predict(node, settings, output, kept("answers"))
    return work.provenance({"path": str(csv_path), "sha256": csv_sha256}, settings)


def answer_part(
    document: Mapping[str, Any],
    config: Mapping[str, Any],
    digest: str,
    checkpoint: dict[str, Any],
    csv_path: Path,
    output: Path,
    state: Path,
    views: Path,
) -> None:
    """Answer a part of `csv_path` and write it (`shards`). `document` is the slice of `dag.several.shard_slice`,
    `digest` its own. Killed, the job goes on with what is kept in `state`."""
    number, count = (int(text) for text in document["shard"].split("-of-"))
    work, settings = open_job(config, checkpoint, csv_path, views), prediction_settings(config)
    key = _key(document["answers"], checkpoint, csv_path)
    with kept_answers(state, digest_of([key, document["shard"]])) as kept:
        found = work.answers(document["of"], settings, kept("answers"), part=(number, count), device=device_of(number))
        write_json(output, {
            "key": key, "shard": document["shard"], "made": work.made_with(settings),
            "answers": [[one.sample_id, one.text, one.error] for one in found], "provenance": {"config": digest},
        })  # fmt: skip
    LOGGER.info("%d answers: %s", len(found), output)


def _joined(
    config: Mapping[str, Any], key: str, csv_path: Path, output: Path, views: Path, shards: Sequence[Path]
) -> dict[str, Any]:
    """predictions.csv of all parts, and what metrics.json records of how they were made."""
    samples = as_shown(read_samples(csv_path), config.get("evaluation", {}), config["training"]["seed"])
    made, answers = joined(shards, key)
    write_predictions(output, predictions_of(samples, answers) if answers else [])
    LOGGER.info("%d answers of %d parts: %s", len(answers), len(shards), output)
    contents = views_of_csv(views, csv_path).sha256
    return {
        "csv": {"path": str(csv_path), "sha256": sha256_file(csv_path)},
        "pictures": digests_of_pictures(contents, (sample.image_path for sample in samples)),
        **made,
    }


def _key(digest: str, checkpoint: Mapping[str, Any], csv_path: Path) -> str:
    """Of all that the answers depend on."""
    return digest_of({"slice": digest, "checkpoint": checkpoint["sha256"], "csv": sha256_file(csv_path)})
