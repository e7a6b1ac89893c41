"""One function per rule of the DAG: what its job does with the options that the rule gives it.

Options enter by name (`jobs` lists them): the job's slice, and paths as text. Files leave. Nothing heavy is imported
before the job is known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from panollava.errors import CheckpointError, DataError
from panollava.files import digest_of, read_json, write_json
from panollava.processes import quiet_torch
from panollava.provenance import made_by, noted

Options = dict[str, Any]


def draw_synthetic(o: Options) -> None:
    from panollava.config.embedded import SyntheticSettings
    from panollava.data.synthetic.draw import draw_synthetic

    draw_synthetic(SyntheticSettings(**o["slice"]["config"]["data"]["synthetic"]), Path(o["out"]))


def pretrain_vision(o: Options) -> None:
    from panollava.config.embedded import MiniatureVisionSettings
    from panollava.miniature.vision import build_vision

    build_vision(MiniatureVisionSettings(**o["slice"]["config"]["models"]["miniature"]["vision"]), Path(o["out"]))


def pretrain_language(o: Options) -> None:
    from panollava.config.embedded import MiniatureLanguageSettings
    from panollava.miniature.language import build_language

    build_language(MiniatureLanguageSettings(**o["slice"]["config"]["models"]["miniature"]["language"]), Path(o["out"]))


def prepare_csv(o: Options) -> None:
    from panollava.config.fingerprints import PlannedSource
    from panollava.data.download import ImageCache
    from panollava.data.prepare import prepare_csv

    data = o["slice"]["config"]["data"]
    format = data.get("format", "auto")
    own = [one for one in o["slice"]["inputs"]["csvs"] if "sha256" in one]  # others are drawn
    with noted(o["out"], digest_of(o["slice"])):
        prepare_csv(
            [Path(p) for p in o["csv"]],
            Path(o["out"]),
            Path(o["rejected"]),
            columns=data["columns"],
            format=format,
            max_rejected_fraction=data["max_rejected_fraction"],
            root=Path.cwd(),
            fetch=ImageCache(Path(o["cache"]), allow_private=data.get("allow_private_addresses", False)),
            surviving_csv=Path(o["state"]),
            planned=[PlannedSource.of(one, columns=data["columns"], format=format) for one in own],
            instruct=o["slice"]["config"].get("evaluation", {}).get("answer_instruction", True),
        )


def cache_views(o: Options) -> None:
    from panollava.data.prepared_images import read_images
    from panollava.data.samples import read_rows
    from panollava.views.cache_build import build_view_cache
    from panollava.views.panorama import PanoramaError
    from panollava.views.strategies import plan_views

    images = o["slice"]["config"]["image_processing"]
    views = plan_views(
        images["crop_strategy"],
        fov_deg=images["fov_deg"],
        overlap_ratio=images["overlap_ratio"],
        anyres_max_patches=images["anyres_max_patches"],
        cubemap_poles=images["cubemap_poles"],
    )
    size = images["image_size"]
    if size is None:
        from panollava.models.vision import describe_vision

        models = o["slice"]["config"]["models"]
        source = o["vision"] or models["vision_name"]
        size = describe_vision(source, None, models["trust_remote_code"]).image_size
    height, width = (size, size) if isinstance(size, int) else size
    paths = list(dict.fromkeys(row.image_path for row in read_rows(o["csv"][0])))
    try:
        build_view_cache(
            paths, views, (height, width), images["antialias"], Path(o["out"]), layout=images["view_cache"],
            sha256=read_images(o["csv"][0]),
        )  # fmt: skip
    except PanoramaError as error:
        drawn = next((folder for folder in Path("cache/synthetic").glob("*") if f"{folder}/" in str(error)), None)
        if drawn is None:
            raise
        raise DataError(f"{error}. Remove {drawn} and run the same command again, which draws it again") from error


def train_stage(o: Options) -> None:
    quiet_torch()  # DDP is told on purpose to expect parameters without gradient
    from panollava.training.job import StageJob
    from panollava.training.run_stage import run_stage

    run_stage(
        StageJob(
            stage=o["stage"],
            slice=o["slice"],
            digest=digest_of(o["slice"]),
            train_csv=Path(o["train_csv"]),
            val_csv=Path(o["val_csv"]),
            train_views=Path(o["train_views"]),
            val_views=Path(o["val_views"]),
            stage_folder=Path(o["out"]),
            state_folder=Path(o["state"]),
            cache=Path(o["cache"]),
            root=Path.cwd(),
            init_folder=_path(o["init"]),
            init_checkpoint=_path(o["init_checkpoint"]),
            vision_folder=_path(o["vision"]),
            language_folder=_path(o["language"]),
            naming=o["naming"],
            untracked=o["untracked"],
        )
    )


def select_checkpoint(o: Options) -> None:
    """From the run's own record: the best checkpoint of the last stage."""
    from panollava.training.stage_folder import checkpoint_of_run

    document = checkpoint_of_run(Path(o["folder"]), _expected_digest(o))
    write_json(o["out"], {**document, "provenance": {"config": digest_of(o["slice"])}})


def write_stage_state(o: Options) -> None:
    from panollava.stage_state import stage_state

    document = stage_state(o["naming"]["experiment"], o["naming"]["records"], metadata=o["naming"]["metadata"])
    write_json(o["out"], {**document, "provenance": {"config": digest_of(o["slice"])}})


def predict(o: Options) -> None:
    from panollava.evaluation.run_predict import predict_csv

    _refuse_other(o["checkpoint"], o["slice"]["upstream"]["select_checkpoint"])
    with noted(o["out"], digest_of(o["slice"])) as told:
        told |= predict_csv(
            slice_document=o["slice"],
            checkpoint=read_json(o["checkpoint"]),
            csv_path=Path(o["csv"][0]),
            views=Path(o["views"]),
            output=Path(o["out"]),
            state=Path(o["state"]),
            blind=o["blind"],
        )


def predict_rolled(o: Options) -> None:
    from panollava.evaluation.run_measures import predict_rolled_csv

    _refuse_other(o["checkpoint"], o["slice"]["upstream"]["select_checkpoint"])
    with noted(o["out"], digest_of(o["slice"])):
        predict_rolled_csv(o["slice"], read_json(o["checkpoint"]), Path(o["csv"][0]), Path(o["out"]), Path(o["state"]))


def measure_perplexity(o: Options) -> None:
    from panollava.evaluation.run_measures import measure_perplexity_csv

    _refuse_other(o["checkpoint"], o["slice"]["upstream"]["select_checkpoint"])
    measure_perplexity_csv(o["slice"], read_json(o["checkpoint"]), Path(o["csv"][0]), Path(o["views"]), Path(o["out"]))


def measure_overlap(o: Options) -> None:
    from panollava.evaluation.run_measures import measure_overlap_csv

    _refuse_other(o["checkpoint"], o["slice"]["upstream"]["select_checkpoint"])
    measure_overlap_csv(
        o["slice"], read_json(o["checkpoint"]), Path(o["csv"][0]), Path(o["views"]), Path(o["out"]), Path(o["plot"])
    )


def compute_metrics(o: Options) -> None:
    from panollava.reports.run_metrics import metrics_of_run

    upstream = o["slice"]["upstream"]
    _refuse_other(o["predictions"], upstream["predict"])
    if o["blind_predictions"]:
        _refuse_other(o["blind_predictions"], upstream["predict_blind"])
    if o["rolled_predictions"]:
        _refuse_other(o["rolled_predictions"], upstream["predict_rolled"])
    for path in o["measures"]:
        _refuse_other(path, upstream[f"measure_{Path(path).stem}"])
    metrics_of_run(
        slice_document=o["slice"],
        predictions=Path(o["predictions"]),
        blind=_path(o["blind_predictions"]),
        checkpoint=read_json(o["checkpoint"]),
        output=Path(o["out"]),
        metrics_page=Path(o["html"]),
        samples_page=Path(o["samples"]),
        spice_heap=o["spice_heap"],
        measures=[Path(path) for path in o["measures"]],
        rolled=_path(o["rolled_predictions"]),
    )


def gather_prepared(o: Options) -> None:
    """results/{experiment}/prepared: copies of the shared cache's CSVs, and all rejected rows in one file."""
    from panollava.data.gather import gather_prepared

    output = Path(o["out"])
    with noted(output / "rejected.csv", digest_of(o["slice"])):
        gather_prepared(o["slice"]["inputs"], output)


def compare(o: Options) -> None:
    from panollava.evaluation.comparison.results import read_results
    from panollava.reports.comparison import write_comparison

    results = read_results([Path(p) for p in o["metrics"]])
    with noted(o["out"], digest_of(o["slice"])):
        write_comparison(results, Path(o["out"]), Path(o["html"]))


def compare_ablation(o: Options) -> None:
    """Of an ablation whose cells are all done: the table, for programs and for the eye, and the plot."""
    from panollava.evaluation.ablation import compare_cells
    from panollava.reports import ablation_table

    rows = compare_cells(o["slice"], [Path(p) for p in o["metrics"]], [Path(p) for p in o["states"]], Path())
    title = f"Ablation {o['slice']['name']}"
    ablation_table.write_html(rows, Path(o["html"]), title)
    ablation_table.plot(rows, Path(o["plot"]), title)
    with noted(o["out"], digest_of(o["slice"])):
        ablation_table.write_csv(rows, Path(o["out"]))
    ablation_table.write_so_far(rows, Path(o["out"]).parent)


def _expected_digest(o: Options) -> str:
    upstream = o["slice"]["upstream"]
    return next(digest for node, digest in upstream.items() if node.startswith("train_"))


def _refuse_other(path: str, expected: str) -> None:
    """Refuse an input that another configuration made: no numbers from a mixture."""
    if (found := made_by(path)) != expected:
        raise CheckpointError(
            f"{path} was made by another configuration (digest {found}) than the experiment asks for ({expected}). "
            "Remove it and run the same command again."
        )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


JOBS: dict[str, Callable[[Options], None]] = {
    job.__name__: job
    for job in (
        draw_synthetic, pretrain_vision, pretrain_language, prepare_csv, gather_prepared, cache_views, train_stage,
        select_checkpoint, write_stage_state, predict, predict_rolled, measure_perplexity, measure_overlap,
        compute_metrics, compare, compare_ablation,
    )
}  # fmt: skip
