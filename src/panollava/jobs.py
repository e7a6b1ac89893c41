"""The DAG's jobs: `python -m panollava.jobs NAME --option value …` runs one of `job_functions`.

Each job gets its configuration as its slice (canonical JSON) and its paths as options; it reads no configuration file.
It dies with Snakemake, writes one log, and prints its peak memory at the end. Not for users: they have `panollava`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from typing import Any

from panollava.errors import JobError, PanollavaError
from panollava.files import digest_of, storage_error
from panollava.job_functions import JOBS, Options
from panollava.job_logs import INTERRUPTED, first_line, last_line
from panollava.logs import LOGGER, start_log
from panollava.processes import die_with_parent, peak_memory_gib, set_cpu_defaults

JSON_OPTIONS = ("slice", "naming", "untracked")
LIST_OPTIONS = ("csv", "metrics", "states", "measures")
TEXT_OPTIONS = (
    "out", "rejected", "stage", "train-csv", "val-csv", "train-views", "val-views", "views", "state", "cache", "init",
    "init-checkpoint", "vision", "language", "folder", "checkpoint", "predictions", "blind-predictions",
    "rolled-predictions", "html", "plot", "samples", "spice-heap", "log",
)  # fmt: skip

TO_LOWER = {
    "draw_synthetic": "data.synthetic.image_height",
    "pretrain_vision": "models.miniature.vision.views or batch_size",
    "pretrain_language": "models.miniature.language.batch_size",
    "cache_views": "image_processing.image_size",
    "train_stage": "batch_size, image_processing.image_size or the size of the models",
    "predict": "training.eval_batch_size",
    "predict_rolled": "training.eval_batch_size",
    "measure_perplexity": "training.eval_batch_size",
}
"""The setting that makes a job need less memory."""

# PyTorch on a GPU and on a CPU; workers that the system killed, of a process pool and of a data loader.
_SIGNS_OF_EXHAUSTION = ("out of memory", "can't allocate memory", "terminated abruptly", "is killed by signal: Killed")


def _out_of_memory(error: Exception, job: str) -> str | None:
    """What a user is told if memory ran out, else None."""
    text = str(error)
    if not isinstance(error, MemoryError) and not any(sign in text for sign in _SIGNS_OF_EXHAUSTION):
        return None
    lower = f"Lower {TO_LOWER[job]}, or run" if job in TO_LOWER else "Run"
    first = text.partition("\n")[0]
    return f"{job}: out of memory{f' ({first})' if first else ''}. {lower} it where more memory is free."


def _terminated(*_: object) -> None:
    """SIGTERM unwinds like Ctrl-C: partial files go, records say what happened. Training saves its state first."""
    raise KeyboardInterrupt


def _defaults() -> Options:
    names = [*JSON_OPTIONS, *LIST_OPTIONS, *TEXT_OPTIONS]
    empty: Options = {name.replace("-", "_"): None for name in names}
    return {**empty, **{name: {} for name in JSON_OPTIONS}, **{name: [] for name in LIST_OPTIONS}, "blind": False}


def run_here(job: str, **options: Any) -> None:
    """A job in this process, with its log: what `python -m panollava.jobs` does, but errors are raised."""
    run_logged({**_defaults(), **options, "job": job})


def run_logged(options: Options) -> None:
    """Run a job; its log tells for which configuration, how it ended, with which error, how long it took."""
    started = time.monotonic()
    try:
        start_log(options["log"])
        LOGGER.info(first_line(options["job"], digest_of(options["slice"])))
        JOBS[options["job"]](options)
    except PanollavaError as error:
        LOGGER.error("%s", error)
        raise
    except KeyboardInterrupt:
        LOGGER.error(INTERRUPTED)
        raise
    except Exception as error:
        if told := storage_error(error, options["out"]):
            LOGGER.error("%s", told)
            raise told from error
        if text := _out_of_memory(error, options["job"]):
            LOGGER.error("%s", text)
            raise JobError(text) from error
        if isinstance(error, OSError):
            LOGGER.error("%s", error)
        else:
            LOGGER.exception("%s failed", options["job"])
        raise
    finally:
        LOGGER.info(last_line(options["job"], time.monotonic() - started, peak_memory_gib()))


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
    set_cpu_defaults()
    signal.signal(signal.SIGTERM, _terminated)
    die_with_parent()
    start_log(None)
    try:
        run_logged(options)
    except PanollavaError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # it stands in the log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
