"""How a job runs: what each file of workflow/scripts calls, and what `local` does in its own process.

A job gets its configuration as its slice (canonical JSON) and paths as options; it reads no configuration file. It dies
with Snakemake, writes one log, and prints its peak memory at the end.
"""

from __future__ import annotations

import argparse
import inspect
import json
import signal
import sys
import time
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from panollava.dag.job_logs import INTERRUPTED, first_line, last_line
from panollava.dag.job_slice import JobSlice
from panollava.dag.nodes import RULES
from panollava.dag.outputs import write_note
from panollava.errors import JobError, PanollavaError
from panollava.files import storage_error
from panollava.logs import LOGGER, start_log
from panollava.memory import is_out_of_memory
from panollava.processes import die_with_parent, keep_freed_memory, peak_memory_gib, set_cpu_defaults
from panollava.progress import no_bars


def run(script: str, arguments: list[str] | None = None) -> int:
    """Run the job of the rule that a script is named for, with the options of its command line; its exit code."""
    rule = Path(script).stem
    given = _parser(rule).parse_args(arguments)
    options = {name: value for name, value in vars(given).items() if name not in ("slice", "log")}
    set_cpu_defaults()
    keep_freed_memory()
    no_bars()
    signal.signal(signal.SIGTERM, _terminated)
    die_with_parent()
    start_log(None)
    try:
        run_logged(rule, JobSlice(given.slice, RULES[rule].reads), given.log, options)
    except PanollavaError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except Exception:  # it is in the log
        return 1
    return 0


def _parser(rule: str) -> argparse.ArgumentParser:
    """An option for each parameter of the rule's function."""
    job = RULES[rule].job
    parser = argparse.ArgumentParser(prog=f"{rule}.py", description=inspect.getdoc(job))
    parser.add_argument("--slice", required=True, help="canonical JSON")
    parser.add_argument("--log", type=Path, required=True)
    hints = typing.get_type_hints(job)
    for name, parameter in inspect.signature(job).parameters.items():
        if name != "slice":
            required = parameter.default is parameter.empty
            parser.add_argument(f"--{name.replace('_', '-')}", required=required, **_read_as(hints[name]))
    return parser


def _read_as(hint: Any) -> dict[str, Any]:
    if typing.get_origin(hint) is types.UnionType:  # X | None
        hint = next(one for one in typing.get_args(hint) if one is not types.NoneType)
    if typing.get_origin(hint) is list:
        return {"action": "append", "type": typing.get_args(hint)[0]}
    if typing.get_origin(hint) is dict:
        return {"type": json.loads}
    return {"type": hint}


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """Arguments of a job as the options that `run` reads."""
    words = []
    for name, value in arguments.items():
        for one in value if isinstance(value, list) else [value]:
            words.append(f"--{name.replace('_', '-')}={json.dumps(one) if isinstance(one, dict) else one}")
    return words


def run_here(rule: str, slice_json: str, log: str, arguments: Mapping[str, Any]) -> None:
    """A job in this process, with its log: what its script does, but errors are raised."""
    options = vars(_parser(rule).parse_args([f"--slice={slice_json}", f"--log={log}", *command_line(arguments)]))
    run_logged(rule, JobSlice(options.pop("slice"), RULES[rule].reads), options.pop("log"), options)


def run_logged(rule: str, slice: JobSlice, log: Path, options: Mapping[str, Any]) -> None:
    """Run a job; its log records the configuration, how it ended, with which error, how long it took."""
    started, started_ns = time.monotonic(), time.time_ns()
    job: Callable[..., None] = RULES[rule].job
    try:
        start_log(log)
        LOGGER.info(first_line(rule, slice.digest))
        job(slice, **options)
        write_note(RULES[rule], slice.digest, options, started_ns)
    except PanollavaError as error:
        LOGGER.error("%s", error)
        raise
    except KeyboardInterrupt:
        LOGGER.error(INTERRUPTED)
        raise
    except Exception as error:
        if problem := storage_error(error, _written(rule, options)):
            LOGGER.error("%s", problem)
            raise problem from error
        if text := out_of_memory(error, rule):
            LOGGER.error("%s", text)
            raise JobError(text) from error
        if isinstance(error, OSError):
            LOGGER.error("%s", error)
        else:
            LOGGER.exception("%s failed", rule)
        raise
    finally:
        LOGGER.info(last_line(rule, time.monotonic() - started, peak_memory_gib()))


def _written(rule: str, options: Mapping[str, Any]) -> Path:
    """The first of the job's outputs."""
    return next(options[name] for name in RULES[rule].outputs if name in options)


def out_of_memory(error: Exception, rule: str) -> str | None:
    """The message for a user if memory ran out, else None."""
    if not is_out_of_memory(error):
        return None
    lower = f"Lower {RULES[rule].lower}, or run" if RULES[rule].lower else "Run"
    first = str(error).partition("\n")[0]
    return f"{rule}: out of memory{f' ({first})' if first else ''}. {lower} it where more memory is free."


def _terminated(*_: object) -> None:
    """SIGTERM unwinds like Ctrl-C: partial files go, records say what happened. Training saves its state first."""
    raise KeyboardInterrupt


def main(script: str) -> None:
    """The last line of each script."""
    sys.exit(run(script))
