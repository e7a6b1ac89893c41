"""The DAG's jobs: `python -m panollava.jobs NAME --option value …`, one function per rule.

Each job gets its configuration as its slice (canonical JSON) and its paths as options; it reads no configuration file.
It dies with Snakemake, writes one log, and prints its peak memory at the end. Not for users: they have `panollava`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from panollava.errors import PanollavaError
from panollava.files import digest_of, read_json, write_json
from panollava.logs import LOGGER, start_log
from panollava.processes import die_with_parent, peak_memory_gib, quiet_torch, share_cores

Options = dict[str, Any]


def draw_synthetic(o: Options) -> None:
    from panollava.data.synthetic.draw import SyntheticSettings, draw_synthetic

    draw_synthetic(SyntheticSettings(**o["slice"]["config"]["data"]["synthetic"]), Path(o["out"]))


def pretrain_vision(o: Options) -> None:
    from panollava.models.miniature.vision import MiniatureVisionSettings, build_vision

    build_vision(MiniatureVisionSettings(**o["slice"]["config"]["models"]["miniature"]["vision"]), Path(o["out"]))


def pretrain_language(o: Options) -> None:
    from panollava.models.miniature.language import MiniatureLanguageSettings, build_language

    build_language(MiniatureLanguageSettings(**o["slice"]["config"]["models"]["miniature"]["language"]), Path(o["out"]))


def prepare_csv(o: Options) -> None:
    from panollava.data.download import ImageCache
    from panollava.data.prepare import prepare_csv

    data = o["slice"]["config"]["data"]
    prepare_csv(
        [Path(p) for p in o["csv"]],
        Path(o["out"]),
        Path(o["rejected"]),
        columns=data["columns"],
        max_rejected_fraction=data["max_rejected_fraction"],
        root=Path.cwd(),
        fetch=ImageCache(Path(o["cache"])),
        surviving_csv=Path(o["state"]),
    )


def cache_views(o: Options) -> None:
    from panollava.data.samples import read_rows
    from panollava.views.cache import build_view_cache
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
    build_view_cache(paths, views, (height, width), images["antialias"], Path(o["out"]))


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
            vision_folder=_path(o["vision"]),
            language_folder=_path(o["language"]),
            naming=o["naming"],
            untracked=o["untracked"],
        )
    )


def select_checkpoint(o: Options) -> None:
    """From the run's own record: the best checkpoint of the last stage."""
    from panollava.training.stage_folder import checkpoint_of_run

    write_json(o["out"], checkpoint_of_run(Path(o["folder"]), _expected_digest(o)))


def write_stage_state(o: Options) -> None:
    from panollava.stage_state import stage_state

    write_json(o["out"], stage_state(o["naming"]["experiment"], o["naming"]["records"]))


def predict(o: Options) -> None:
    from panollava.evaluation.run_predict import predict_csv

    predict_csv(
        slice_document=o["slice"],
        checkpoint=read_json(o["checkpoint"]),
        csv_path=Path(o["csv"][0]),
        views=Path(o["views"]),
        output=Path(o["out"]),
        state=Path(o["state"]),
        blind=o["blind"],
    )


def compute_metrics(o: Options) -> None:
    from panollava.evaluation.run_metrics import metrics_of_run

    metrics_of_run(
        slice_document=o["slice"],
        predictions=Path(o["predictions"]),
        blind=_path(o["blind_predictions"]),
        checkpoint=read_json(o["checkpoint"]),
        output=Path(o["out"]),
    )


def gather_prepared(o: Options) -> None:
    """results/{experiment}/prepared: copies of the shared cache's CSVs, and all rejected rows in one file."""
    from panollava.data.gather import gather_prepared

    gather_prepared(o["naming"], Path(o["out"]))


def compare(o: Options) -> None:
    from panollava.evaluation.compare import write_comparison

    write_comparison([Path(p) for p in o["metrics"]], Path(o["out"]))


def _expected_digest(o: Options) -> str:
    upstream = o["slice"]["upstream"]
    return next(digest for node, digest in upstream.items() if node.startswith("train_"))


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


JOBS: dict[str, Callable[[Options], None]] = {
    job.__name__: job
    for job in (
        draw_synthetic, pretrain_vision, pretrain_language, prepare_csv, gather_prepared, cache_views, train_stage,
        select_checkpoint, write_stage_state, predict, compute_metrics, compare,
    )
}  # fmt: skip

JSON_OPTIONS = ("slice", "naming", "untracked")
LIST_OPTIONS = ("csv", "metrics")
TEXT_OPTIONS = (
    "out", "rejected", "stage", "train-csv", "val-csv", "train-views", "val-views", "views", "state", "cache", "init",
    "vision", "language", "folder", "checkpoint", "predictions", "blind-predictions", "log",
)  # fmt: skip


def _terminated(*_: object) -> None:
    """SIGTERM unwinds like Ctrl-C: partial files go, records say what happened. Training saves its state first."""
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m panollava.jobs", description=__doc__)
    parser.add_argument("job", choices=JOBS)
    for name in JSON_OPTIONS:
        parser.add_argument(f"--{name}", type=json.loads, default={})
    for name in LIST_OPTIONS:
        parser.add_argument(f"--{name}", nargs="+", default=[])
    for name in TEXT_OPTIONS:
        parser.add_argument(f"--{name}", default=None)
    parser.add_argument("--blind", action="store_true")
    options = vars(parser.parse_args(arguments))
    share_cores()
    signal.signal(signal.SIGTERM, _terminated)
    die_with_parent()
    start_log(options["log"])
    started = time.monotonic()
    try:
        JOBS[options["job"]](options)
        code = 0
    except PanollavaError as error:
        LOGGER.error("%s", error)
        code = error.exit_code
    except KeyboardInterrupt:
        LOGGER.error("interrupted")
        code = 130
    except OSError as error:
        LOGGER.error("%s", error)
        code = 1
    except Exception:
        LOGGER.exception("%s failed", options["job"])
        code = 1
    LOGGER.info("%s: %.1f s, peak memory %.2f GiB", options["job"], time.monotonic() - started, peak_memory_gib())
    return code


if __name__ == "__main__":
    sys.exit(main())
