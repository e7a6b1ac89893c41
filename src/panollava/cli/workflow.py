"""`run` and `status`: the DAG's front door, and what the stages of an experiment are doing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panollava.cli import completion
from panollava.cli.common import ablation_named, load_experiment
from panollava.cli.tables import print_table
from panollava.errors import ConfigError
from panollava.logs import CONSOLE_LEVEL
from panollava.processes import die_with_parent
from panollava.settings.choices import NAME_PATTERN

if TYPE_CHECKING:
    from panollava.config import Project

# Options of snakemake that take no value: what follows them is a target.
_FLAGS = ("--", "-n", "--dry-run", "--dryrun", "-k", "--keep-going", "-p", "--printshellcmds", "-F", "--forceall", "-f",
          "--force", "--nolock", "--verbose", "-t", "--touch")  # fmt: skip

JOBS_END_S, SNAKEMAKE_ENDS_S = 900.0, 60.0
"""How long jobs may take to save their state when they are asked to stop, and snakemake to end behind them."""

_OWN_WORDS = ("--verbose", "--logger", "--debug", "--quiet", "-q")
"""Options with which Snakemake is asked for its own messages, more or fewer of them."""

_OWN_EXECUTORS = ("local", "dryrun", "touch")  # snakemake's; every other one is a package


def add_to(app: typer.Typer) -> None:
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)
    app.command()(status)


def run(
    context: typer.Context,
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET…", help="Files, or names of experiments or ablations.", autocompletion=completion.targets
        ),
    ] = None,
) -> None:
    """Run the DAG: `snakemake --cores all` with the default profile, or with yours; all options passed on.

    A TARGET is a file (results/EXP1/metrics.json), an experiment's name, which means its metrics and its stage
    state, or an ablation's, which means its table (a failed cell does not stop the others). Without one, every
    experiment of workflow.experiments is built.

    `--report results/report.html` gathers scores, answers, curves and plots in one file: of the TARGETs, or without any
    of every experiment of this project that has scores.

    `--config training.seed=3 -- EXP1` (dotted keys) and `--configfile FILE` change settings for this command alone.

    Example: `panollava run EXP1 -n` says what would run.
    """
    words = [*(targets or []), *context.args]
    check_root()
    if (reported := _without_targets(words)) is not None:
        words += reported
    named = [_files_of(word, before) for before, word in zip([None, *words], words, strict=False)]
    arguments = [argument for files, _ in named for argument in files]
    if any(is_ablation for _, is_ablation in named):
        arguments = ["--keep-going", *arguments]
    raise typer.Exit(run_snakemake(arguments))


def _without_targets(words: list[str]) -> list[str] | None:
    """For `--report` alone: the experiments that have scores; None where it is not asked for, or targets are named.

    Raises ConfigError where there are none.
    """
    from panollava.config import Project

    asked = any(word.partition("=")[0] == "--report" for word in words)
    pairs = list(zip([None, *words], words, strict=False))
    named = [
        word for before, word in pairs
        if not word.startswith("-") and (before is None or not before.startswith("-") or before in _FLAGS)
    ]  # fmt: skip
    if not asked or named:
        return None
    project = Project(".")
    scored = [name for name in project.experiments() if Path(project.paths.results_dir, name, "metrics.json").is_file()]
    if not scored:
        raise ConfigError("--report: no experiment of this project has scores yet. `panollava run NAME` makes them")
    return ["--", *scored]


def check_root() -> None:
    if not Path("Snakefile").is_file():
        raise ConfigError(f"{Path.cwd()} holds no Snakefile: run this in the project's root")


def run_snakemake(arguments: list[str], environment: dict[str, str] | None = None) -> int:
    """Run snakemake in front, on all cores unless the arguments say otherwise; its exit code, 128 + N for a signal N.

    Stopped, it and its jobs stop with their state saved. `environment` is added to the present one. What it says is
    shown as `dag.run_console` has it, unless the arguments ask for Snakemake's own words (--verbose, --logger, …).
    """
    arguments = _nested_settings(arguments)
    if not any(word.startswith(_OWN_WORDS) for word in arguments):
        arguments = ["--logger=panollava", *arguments]
        environment = {CONSOLE_LEVEL: "WARNING", **(environment or {})}
    _refuse_missing_executor(arguments)
    elsewhere = any(word.startswith(("--workflow-profile", "--profile", "--executor")) for word in arguments)
    if not elsewhere and not any(word.startswith(("--cores", "--jobs", "-c", "-j")) for word in arguments):
        arguments = ["--cores", "all", *arguments]
    parent = os.getpid()
    stopped: list[float] = []  # when requests to stop came
    signalled: set[int] = set()  # jobs that were asked to stop
    # SIGKILL: a snakemake that outlives its front door would wait for its jobs while the next run finds it locked.
    child = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *arguments],
        env={**os.environ, **(environment or {})},
        preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
    )

    def stop(number: int, _: object) -> None:
        """Jobs save their state and end; snakemake, stopped too, starts no more (and cancels those of a cluster)."""
        child.send_signal(signal.SIGINT if elsewhere else signal.SIGTERM)
        for pid in _children_of(child.pid):
            signalled.add(pid)
            _signal(pid, signal.SIGTERM)
        stopped.append(time.monotonic())

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
    # A terminal sends Ctrl-C to snakemake and the jobs as well; a lone SIGINT from elsewhere stops them like SIGTERM.
    at_terminal = sys.stdin.isatty()
    signal.signal(signal.SIGINT, (lambda *_: stopped.append(time.monotonic())) if at_terminal else stop)
    code = _wait_for(child, stopped, None if elsewhere or at_terminal else signalled)
    return code if code >= 0 else 128 - code


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it ended meanwhile
        os.kill(pid, number)


def _wait_for(child: subprocess.Popen[bytes], stopped: list[float], signalled: set[int] | None) -> int:
    """The exit code of snakemake. Asked to stop, it gets a bounded time to end: it never hangs for ever.

    Its jobs have JOBS_END_S to save their state, and it has SNAKEMAKE_ENDS_S behind the last of them. `signalled` are
    those that were asked; one that began in the same moment is asked too (None: they are asked by others).
    """
    idle_since: float | None = None
    while True:
        try:
            return child.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            if not stopped:
                continue
        jobs, now = _children_of(child.pid), time.monotonic()
        idle_since = None if jobs else idle_since or now
        if signalled is not None:
            for pid in set(jobs) - signalled:
                signalled.add(pid)
                _signal(pid, signal.SIGTERM)
        if jobs and now - stopped[0] > JOBS_END_S:
            print(f"jobs did not end within {JOBS_END_S:.0f} s: they are killed", file=sys.stderr, flush=True)
            for pid in jobs:
                _signal(pid, signal.SIGKILL)
        elif idle_since is not None and now - max(idle_since, stopped[0]) > SNAKEMAKE_ENDS_S:
            print("snakemake does not end after its jobs: it is killed. The same command goes on", file=sys.stderr)
            child.kill()


def _nested_settings(arguments: list[str]) -> list[str]:
    """`--config a.b=1` as snakemake takes it, whose keys hold no dots: `--config 'a={"b": "1"}'`."""
    found, in_config = [], False
    for word in arguments:
        if word.startswith("-"):
            in_config = word in ("--config", "-C")
        elif in_config and "." in (key := word.partition("=")[0]) and "=" in word:
            first, *names = key.split(".")
            value: Any = word.partition("=")[2]
            for name in reversed(names):
                value = {name: value}
            word = f"{first}={json.dumps(value)}"
        found.append(word)
    return found


def _refuse_missing_executor(arguments: list[str]) -> None:
    """Raise ConfigError where a profile names an executor that is not installed: snakemake answers with its usage."""
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, _, attached = option.partition("=")
        file = Path(attached or value) / "config.yaml"
        if name not in ("--workflow-profile", "--profile") or not file.is_file():
            continue
        found = re.search(r"^executor: *[\"']?([\w-]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
        executor = found[1] if found else "local"
        plugin = f"snakemake-executor-plugin-{executor}"
        if executor not in _OWN_EXECUTORS and find_spec(plugin.replace("-", "_")) is None:
            what = "-c constraints.txt -e '.[slurm]'" if executor == "slurm" else plugin
            raise ConfigError(f"{file}: executor {executor} is not installed. Install it: pip install {what}")


def _files_of(word: str, before: str | None) -> tuple[list[str], bool]:
    """What an argument means to snakemake, and whether it names an ablation.

    An experiment's name, or its YAML's path, means its metrics and its stage state, an ablation its table,
    any other word itself. `before` is the word before it: a word that is no file, no rule and not the value of an
    option is taken for a name, so that a wrong one is answered with the names that there are.
    """
    from panollava.config import Project

    if word.startswith("-"):
        return [word], False
    project = Project(".")
    if ablation := ablation_named(project, word):
        return [f"{project.paths.results_dir}/ablations/{project.ablation(ablation).name}/summary.csv"], True
    value = before is not None and before.startswith("-") and before not in _FLAGS
    a_name = not value and NAME_PATTERN.fullmatch(word) and not Path(word).exists() and not _is_rule(word)
    if word in project.experiments() or a_name or (not value and word.endswith((".yaml", ".yml"))):
        names = load_experiment(word).names
        return [names.metrics, names.stage_state], False
    return [word], False


def _is_rule(word: str) -> bool:
    sources = [Path("Snakefile"), *Path("workflow/rules").glob("*.smk")]
    named = re.compile(rf"\b(rule|as) {re.escape(word)}\b")
    return word.startswith("train_") or any(named.search(source.read_text(encoding="utf-8")) for source in sources)


def _children_of(pid: int) -> list[int]:
    """PIDs of the direct children of `pid` (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def status(
    experiment: Annotated[
        str,
        typer.Argument(help="Name or YAML of an experiment or of an ablation.", autocompletion=completion.targets),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """What the stages of an experiment did or are doing, or the state of an ablation's cells.

    From the stages' own records, also while jobs run and after a failure. Below, what each rule's jobs took when they
    last ran.

    Example: `panollava status EXP1`
    """
    from panollava.config import Project
    from panollava.dag.benchmarks import COLUMNS, used_by
    from panollava.stage_state import stage_state

    project = Project(".")
    if ablation := ablation_named(project, experiment):
        _ablation_status(project, ablation, as_json)
        return
    found = load_experiment(experiment)
    records: dict[str, str] = {s: f"{found.names.state_dir(s)}/record.json" for s in found.settings.training.stages}
    document = stage_state(found.names.experiment, records, live=True)
    if as_json:
        print(json.dumps(document, indent=2))
        return
    rows = []
    for stage, row in document["stages"].items():
        progress = row.get("progress")
        place = f"epoch {progress['epoch']}, step {progress['step']} of {progress['total_steps']}" if progress else ""
        loss = "" if row["best_val_loss"] is None else f"{row['best_val_loss']:.4f}"
        minutes = "" if row["elapsed_minutes"] is None else f"{row['elapsed_minutes']:.1f}"
        rows.append([stage, row["status"], loss, minutes, row["error"] or place])
    columns = ["stage", "status", "best validation loss", "minutes", ""]
    if rows:
        print_table(columns, rows, right=columns[2:4])
    else:
        print("no stages: the model answers as it comes")
    if found.missing_csvs():
        return  # its jobs are not known
    if used := used_by([found]):
        print()
        print_table(COLUMNS, [one.row for one in used], right=COLUMNS[1:])


def _ablation_status(project: Project, name: str, as_json: bool) -> None:
    from panollava.dag.records import rows_so_far
    from panollava.reports.ablation_table import records, standing_text

    ablation = project.ablation(name)
    rows = rows_so_far(ablation, project.cells(ablation))
    if as_json:
        print(json.dumps(records(rows), indent=2))
    else:
        print(standing_text(name, rows))
