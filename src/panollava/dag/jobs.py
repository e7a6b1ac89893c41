"""The function behind each rule, which is given its slice, inputs, outputs and options by name, and writes files.

Paths are those of the table (`nodes`), so a folder is given by a file in it. Each function imports what it needs by
itself: nothing heavy is imported before the job is known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panollava.dag.job_slice import JobSlice
from panollava.errors import CheckpointError, DataError
from panollava.files import read_json, write_json
from panollava.processes import quiet_torch
from panollava.provenance import read_digest, write_sidecar


# ---- data ----------------------------------------------------------------------------------------
def draw_synthetic(slice: JobSlice, sheet: Path) -> None:
    from panollava.config.embedded import SyntheticSettings
    from panollava.data.synthetic.draw import draw_synthetic

    draw_synthetic(SyntheticSettings(**slice.config["data"]["synthetic"]), sheet.parent)


def pretrain_vision(slice: JobSlice, weights: Path) -> None:
    from panollava.config.embedded import MiniatureVisionSettings
    from panollava.miniature.vision import build_vision

    build_vision(MiniatureVisionSettings(**slice.config["models"]["miniature"]["vision"]), weights.parent)


def pretrain_language(slice: JobSlice, weights: Path) -> None:
    from panollava.config.embedded import MiniatureLanguageSettings
    from panollava.miniature.language import build_language

    language = MiniatureLanguageSettings(**slice.config["models"]["miniature"]["language"])
    build_language(
        language,
        weights.parent,
        slice.config["data"]["synthetic"]["question_types"],
        instruct=slice.config.get("evaluation", {}).get("answer_instruction", True),
    )


def pretrain_vlm(slice: JobSlice, weights: Path) -> None:
    from panollava.config.embedded import MiniatureVlmSettings
    from panollava.miniature.vlm import build_vlm

    build_vlm(MiniatureVlmSettings(**slice.config["models"]["miniature"]["vlm"]), weights.parent)


def prepare_csv(
    slice: JobSlice, csvs: list[Path], prepared: Path, rejected: Path, images: Path, survivor: Path
) -> None:
    """`images` is the folder of downloads; `survivor` a copy of the rejected rows, kept where the job fails."""
    from panollava.config.fingerprints import PlannedSource
    from panollava.data.download import ImageCache
    from panollava.data.prepare import prepare_csv

    data = slice.config["data"]
    columns = {name: to for name, to in data["columns"].items() if to is not None}
    own = [one for one in slice.document["inputs"]["csvs"] if "sha256" in one]  # others are drawn
    with write_sidecar(prepared, slice.digest):
        prepare_csv(
            csvs,
            prepared,
            rejected,
            columns=columns,
            format=data["format"],
            max_rejected_fraction=data["max_rejected_fraction"],
            root=Path.cwd(),
            fetch=ImageCache(images, allow_private=data["allow_private_addresses"]),
            surviving_csv=survivor,
            planned=[PlannedSource.of(one, columns=columns, format=data["format"]) for one in own],
            instruct=slice.config["evaluation"]["answer_instruction"],
        )


def prepare_experiment(slice: JobSlice, rejected: Path) -> None:
    """results/{experiment}/prepared: copies of the shared cache's CSVs, and all rejected rows in one file."""
    from panollava.data.gather import gather_prepared

    with write_sidecar(rejected, slice.digest):
        gather_prepared(slice.document["inputs"], rejected.parent)


def cache_views(slice: JobSlice, csv: Path, index: Path, vision: Path | None = None, vlm: Path | None = None) -> None:
    """`vision` or `vlm` is the weights' file of a model that the DAG builds, where it says the size of views."""
    from panollava.data.prepared_images import read_images
    from panollava.data.samples import read_rows
    from panollava.views.cache_build import build_view_cache
    from panollava.views.panorama import PanoramaError
    from panollava.views.rendering import Rendering
    from panollava.views.strategies import plan_views

    images = slice.config["image_processing"]
    views = plan_views(
        images["crop_strategy"],
        fov_deg=images["fov_deg"],
        overlap_ratio=images["overlap_ratio"],
        anyres_max_patches=images["anyres_max_patches"],
        cubemap_poles=images["cubemap_poles"],
    )
    size = images["image_size"]
    if size is None:
        from panollava.models.sizes import own_view_size

        folder = vlm or vision
        size = own_view_size(slice.config["models"], folder.parent if folder else None)
    height, width = (size, size) if isinstance(size, int) else size
    paths = list(dict.fromkeys(row.image_path for row in read_rows(csv)))
    try:
        build_view_cache(
            paths, views, (height, width), index.parent, Rendering.from_json(images), layout=images["view_cache"],
            sha256=read_images(csv),
        )  # fmt: skip
    except PanoramaError as error:
        drawn = next((folder for folder in Path("cache/synthetic").glob("*") if f"{folder}/" in str(error)), None)
        if drawn is None:
            raise
        raise DataError(f"{error}. Remove {drawn} and run the same command again, which draws it again") from error


# ---- stages --------------------------------------------------------------------------------------
def train_stage(
    slice: JobSlice,
    train_csv: Path,
    val_csv: Path,
    train_views: Path,
    val_views: Path,
    metadata: Path,
    state: Path,
    cache: Path,
    naming: dict[str, Any],
    untracked: dict[str, Any],
    init: Path | None = None,
    init_checkpoint: Path | None = None,
    vision: Path | None = None,
    language: Path | None = None,
    vlm: Path | None = None,
    forced: str | None = None,
) -> None:
    """`init` is the best checkpoint of the stage before; `vision`, `language`, `vlm` are weights that the DAG built:
    without them the backbone is what the settings name, a folder where the slice holds its digest.
    `forced` names the command that asks for the stage anew (`--forcerun`), so that no older state of it is used."""
    quiet_torch()  # DDP is configured on purpose to expect parameters without gradient
    from panollava.training.job import StageJob
    from panollava.training.run_stage import run_stage

    run_stage(
        StageJob(
            stage=slice.document["node"].removeprefix("train_"),
            slice=slice.document,
            digest=slice.digest,
            train_csv=train_csv,
            val_csv=val_csv,
            train_views=train_views.parent,
            val_views=val_views.parent,
            stage_folder=metadata.parent,
            state_folder=state,
            cache=cache,
            root=Path.cwd(),
            init_folder=init.parent if init else None,
            init_checkpoint=init_checkpoint,
            vision_folder=vision.parent if vision else _named_folder(slice, "vision", "vision_name"),
            language_folder=language.parent if language else _named_folder(slice, "language", "language_model_name"),
            vlm_folder=vlm.parent if vlm else None,
            naming=naming,
            untracked=untracked,
            forced=forced,
        )
    )


def _named_folder(slice: JobSlice, part: str, name: str) -> Path | None:
    """The folder that the settings name as a backbone; None for a hub id."""
    return Path(slice.config["models"][name]) if f"{part}_folder" in slice.document.get("inputs", {}) else None


def write_stage_state(slice: JobSlice, naming: dict[str, Any], state: Path) -> None:
    """`naming` holds the experiment's name, and each stage's record and metadata."""
    from panollava.stage_state import stage_state

    document = stage_state(naming["experiment"], naming["records"], metadata=naming["metadata"])
    write_json(state, {**document, "provenance": {"config": slice.digest}})


def select_checkpoint(
    slice: JobSlice, naming: dict[str, Any], checkpoint: Path, metadata: Path | None = None, vlm: Path | None = None
) -> None:
    """From the run's own record: the best checkpoint of the last stage. Without a stage, the native model as it comes,
    from `vlm` where the DAG built it."""
    if metadata is None:
        from panollava.checkpoints.zero_shot import checkpoint_of_model

        document = checkpoint_of_model(naming["experiment"], slice.config, vlm.parent if vlm else None, slice.digest)
    else:
        from panollava.checkpoints.folder import checkpoint_of_run

        (trained,) = slice.upstream.values()
        document = checkpoint_of_run(metadata.parent, trained)
    write_json(checkpoint, {**document, "provenance": {"config": slice.digest}})


# ---- evaluation ----------------------------------------------------------------------------------
def predict_shard(slice: JobSlice, checkpoint: Path, csv: Path, views: Path, answers: Path, part: Path) -> None:
    """A part of the answers of the node that the slice names."""
    from panollava.evaluation.of_job import answer_part

    _refuse_other(checkpoint, slice.upstream["select_checkpoint"])
    document, chosen = slice.document, read_json(checkpoint)
    answer_part(document, slice.config, slice.digest, chosen, csv, part, answers, views.parent)


def predict(
    slice: JobSlice, checkpoint: Path, csv: Path, views: Path, answers: Path, predictions: Path,
    shards: list[Path] | None = None,
) -> None:  # fmt: skip
    """`answers` keeps what a killed job has finished; `shards` are the parts, where other jobs have answered them."""
    _answer(slice, checkpoint, csv, answers, predictions, views, shards)


def predict_blind(
    slice: JobSlice, checkpoint: Path, csv: Path, views: Path, answers: Path, predictions: Path,
    shards: list[Path] | None = None,
) -> None:  # fmt: skip
    """The blind control: each sample is shown another picture."""
    _answer(slice, checkpoint, csv, answers, predictions, views, shards)


def predict_text_only(
    slice: JobSlice, checkpoint: Path, csv: Path, views: Path, answers: Path, predictions: Path,
    shards: list[Path] | None = None,
) -> None:  # fmt: skip
    """The text-only control: no sample is shown a picture."""
    _answer(slice, checkpoint, csv, answers, predictions, views, shards)


def predict_rolled(slice: JobSlice, checkpoint: Path, csv: Path, answers: Path, predictions: Path) -> None:
    """Every sample once more, about its panorama rolled sideways."""
    _answer(slice, checkpoint, csv, answers, predictions)


def _answer(
    slice: JobSlice, checkpoint: Path, csv: Path, answers: Path, predictions: Path, views: Path | None = None,
    shards: list[Path] | None = None,
) -> None:  # fmt: skip
    from panollava.evaluation.of_job import answer_csv

    _refuse_other(checkpoint, slice.upstream["select_checkpoint"])
    with write_sidecar(predictions, slice.digest) as noted:
        noted |= answer_csv(
            slice.document["node"],
            slice.config,
            slice.digest,
            read_json(checkpoint),
            csv,
            predictions,
            answers,
            views.parent if views else None,
            shards or (),
        )


def measure_perplexity(slice: JobSlice, checkpoint: Path, csv: Path, views: Path, scores: Path) -> None:
    from panollava.evaluation.of_job import open_job

    _refuse_other(checkpoint, slice.upstream["select_checkpoint"])
    chosen = read_json(checkpoint)
    work = open_job(slice.config, chosen, csv, views.parent)
    provenance = {"config": slice.digest, "checkpoint": chosen["sha256"]}
    work.measure_perplexity(slice.config["training"]["eval_batch_size"], scores, provenance)


def measure_overlap(slice: JobSlice, checkpoint: Path, csv: Path, views: Path, scores: Path, plot: Path) -> None:
    from panollava.evaluation.of_job import open_job

    _refuse_other(checkpoint, slice.upstream["select_checkpoint"])
    chosen = read_json(checkpoint)
    work = open_job(slice.config, chosen, csv, views.parent)
    work.measure_overlap(scores, plot, {"config": slice.digest, "checkpoint": chosen["sha256"]})


def judge(
    slice: JobSlice,
    predictions: Path,
    scores: Path,
    replies: Path,
    blind: Path | None = None,
    text_only: Path | None = None,
    language: Path | None = None,
) -> None:
    """`replies` is the folder of kept replies; `language` the weights of a judge that the DAG built."""
    import torch

    from panollava.evaluation.run_judge import judge_files, judges_of

    for node, path in {"predict": predictions, "predict_blind": blind, "predict_text_only": text_only}.items():
        if path is not None:
            _refuse_other(path, slice.upstream[node])
    config = slice.config
    torch.set_num_threads(config["training"]["cpu_threads"])
    built = str(language.parent) if language else None
    judge_files(
        judges_of(config["evaluation"], config["training"], config["models"]["trust_remote_code"], built),
        predictions,
        {"blind": blind, "text_only": text_only},
        scores,
        replies,
        {"config": slice.digest},
    )


def compute_metrics(
    slice: JobSlice,
    predictions: Path,
    checkpoint: Path,
    metrics: Path,
    table: Path,
    samples: Path,
    spice_heap: str,
    blind: Path | None = None,
    text_only: Path | None = None,
    predict_rolled: Path | None = None,
    measure_perplexity: Path | None = None,
    measure_overlap: Path | None = None,
    judge: Path | None = None,
) -> None:
    """The three before the last are what `evaluation.extra` asks for."""
    from panollava.reports.run_metrics import metrics_of_run

    given = {
        "predict": predictions, "predict_blind": blind, "predict_text_only": text_only,
        "predict_rolled": predict_rolled, "measure_perplexity": measure_perplexity,
        "measure_overlap": measure_overlap, "judge": judge,
    }  # fmt: skip
    files = {node: path for node, path in given.items() if path is not None}
    for node, path in files.items():
        _refuse_other(path, slice.upstream[node])
    metrics_of_run(
        files,
        slice.document["inputs"],
        slice.config["evaluation"],
        slice.digest,
        checkpoint=read_json(checkpoint),
        output=metrics,
        metrics_page=table,
        samples_page=samples,
        spice_heap=spice_heap,
    )


# ---- several experiments -------------------------------------------------------------------------
def compare(slice: JobSlice, metrics: list[Path], csv: Path, html: Path) -> None:
    from panollava.evaluation.comparison.results import read_results
    from panollava.reports.comparison import write_comparison

    results = read_results(metrics)
    with write_sidecar(csv, slice.digest):
        write_comparison(results, csv, html)


def compare_ablation(
    slice: JobSlice, metrics: list[Path], states: list[Path], csv: Path, html: Path, plot: Path
) -> None:
    """Of an ablation whose cells are all done: the table, for programs and for the eye, and the plot."""
    from panollava.evaluation.ablation import compare_cells
    from panollava.reports import ablation_table

    rows = compare_cells(slice.document, metrics, states, Path())
    title = f"Ablation {slice.document['name']}"
    ablation_table.write_html(rows, html, title)
    ablation_table.plot(rows, plot, title)
    with write_sidecar(csv, slice.digest):
        ablation_table.write_csv(rows, csv)
    ablation_table.write_so_far(rows, csv.parent)


def _refuse_other(path: Path, expected: str) -> None:
    """Refuse an input that another configuration made: no numbers from a mixture."""
    if (found := read_digest(path)) != expected:
        raise CheckpointError(
            f"{path} was made by another configuration (digest {found}) than the experiment asks for ({expected}). "
            "Remove it and run the same command again."
        )
