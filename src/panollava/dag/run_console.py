"""Console output for a run of the DAG: one line per job, the progress and an estimate of the remaining time. No torch.

Formats Snakemake's log records (`--logger panollava`, which `panollava run` sets) as lines, on a terminal with a
progress bar below them. For a dry run it prints each job and why it would run. Snakemake's complete output is in its
log file (`.snakemake/log`). A job's own output is in its own log; only its warnings and errors are shown here.
"""

from __future__ import annotations

import csv
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

_SECONDS_BETWEEN_LINES = 60.0
_CHATTER = re.compile(
    r"Building DAG|Using shell|Provided (cores|resources|remote nodes)|Rules claiming|Select jobs|Execute \d+ jobs"
    r"|host: |Assuming unrestricted|Group jobs|Conda environments|Singularity containers|Job stats|Elapsed time"
    r"|Some jobs were triggered by provenance|Rules with |\d+ jobs have (missing|outdated)|\d+ jobs have "
    r"|Would remove|Removing temporary|Reasons:|\(check individual jobs|Finished job|Trying to restart job"
    r"|Exiting because a job execution failed|Complete log|The run involves checkpoint|The order of jobs"
    r"|This was a dry-run|Full Traceback|Shutting down, this might|Removing output files of failed job|\s*$"
)
_REPORTED_ALREADY = re.compile(
    r"Exiting because a job execution failed|(RuleException:\s*)?CalledProcessError in file"
    r"|(WorkflowError:\s*)?At least one job did not complete successfully"
)
"""Errors that repeat, with the job's whole command, what the job's own lines and its line here have reported."""
_ADVICE = re.compile(r"--cleanup-metadata|--rerun-triggers|--ignore-incomplete|--touch")
"""Advice that would let a result pass for one of other settings: it is not passed on."""
_REASONS = (
    ("Forced execution", "it is made anew"),
    ("Incomplete output files", "it was interrupted"),
    ("Params have changed", "its settings or what it is made from changed"),
    ("Set of input files", "it is made from other files"),
    ("Updated input files", "a file it is made from changed"),
    ("Missing output files", "not there yet"),
    ("Input files updated by another job", "follows from a job before"),
)


@dataclass
class _Job:
    """A job that runs: what to call it, since when, its log, and where a stage's training records its progress."""

    title: str
    rule: str
    started: float
    log: str | None
    record: Path | None


def title_of(rule: str, wildcards: Mapping[str, Any]) -> str:
    """`train_vision EXP1`; of a job of the shared cache the beginning of its key."""
    names = [str(wildcards[key]) for key in ("experiment", "ablation", "control", "shard") if key in wildcards]
    return " ".join([rule, *(names or [str(value)[:8] for value in wildcards.values()])])


def why(reason: str, outputs: Sequence[str] = ()) -> str:
    """Snakemake's reason for a job in a few words, the first that counts; its documents of parameters are left out.
    Missing `outputs` are reported as such, whatever the reason says.

    >>> why("Missing output files: a.json; Input files updated by another job: b.json")
    'not there yet'
    """
    if any(not Path(one).exists() for one in outputs):
        return "not there yet"
    return next((words for begin, words in _REASONS if begin in reason), "it is asked for")


def without_advice(text: str) -> str:
    """A message without the paragraphs that advise to pass results off as current."""
    kept = [part for part in text.split("\n\n") if not _ADVICE.search(part)]
    return "\n\n".join(kept) or "Some results are incomplete: run the same command again"


def duration(seconds: float) -> str:
    """
    >>> duration(4.2), duration(75), duration(4000)
    ('4 s', '1 min 15 s', '1 h 6 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class LogHandler(LogHandlerBase):
    """Snakemake's records as lines. A dry run's go to standard output, as Snakemake's own do."""

    def __post_init__(self) -> None:
        self.dry_run = bool(self.common_settings.dryrun)
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self.on_terminal = not self.dry_run and self.stream.isatty()
        self.running: dict[int, _Job] = {}
        self.done, self.total, self.failed = 0, 0, 0
        self.seconds_done = 0.0
        self.started = self.last_line = time.monotonic()
        self.seconds: dict[str, list[float]] = {}  # by rule: in this run, or in earlier ones
        self.left: dict[str, int] = {}  # jobs of each rule that have not ended
        self.bar: Any = None
        self.turn = threading.RLock()
        self.over = threading.Event()

    # ---- what Snakemake asks about a handler
    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    # ---- records
    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self.turn:
                self._show(record, getattr(record, "event", None), vars(record))
        except Exception:
            self.handleError(record)

    def _show(self, record: logging.LogRecord, event: Any, fields: Mapping[str, Any]) -> None:
        match event:
            case LogEvent.RUN_INFO:
                self._planned(fields.get("stats") or {})
            case LogEvent.JOB_INFO:
                self._begins(fields)
            case LogEvent.JOB_FINISHED:
                self._ends(fields["job_id"])
            case LogEvent.JOB_ERROR:
                self._fails(fields["jobid"])
            case LogEvent.SHELLCMD:
                if self.common_settings.printshellcmds and (command := fields.get("shellcmd") or fields.get("cmd")):
                    self._line(str(command))
            case None | LogEvent.ERROR | LogEvent.GROUP_ERROR:
                self._message(record)

    def _message(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text in ("None", ""):
            return
        if _REPORTED_ALREADY.match(text):
            return
        if record.levelno >= logging.WARNING:
            self._line(without_advice(text))
        elif not _CHATTER.match(text):
            self._line(text.rstrip())

    def _planned(self, stats: Mapping[str, int]) -> None:
        if self.total:
            return  # a dry run reports it twice
        self.left = {rule: count for rule, count in stats.items() if rule != "total"}
        self.total = sum(self.left.values())
        jobs = f"{self.total} job{'s' if self.total != 1 else ''}"
        if self.dry_run:
            self._line(f"{jobs} would run:")
            return
        listed = ", ".join(rule if count == 1 else f"{rule} ({count})" for rule, count in self.left.items())
        self._line(f"{jobs}: {listed}")
        self.started = time.monotonic()
        threading.Thread(target=self._tick, name="run-console", daemon=True).start()

    def _begins(self, fields: Mapping[str, Any]) -> None:
        rule, title = fields["rule_name"], title_of(fields["rule_name"], fields["wildcards"] or {})
        if self.dry_run:
            self._line(f"  {title}: {why(fields['reason'], fields['output'] or [])}")
            return
        outputs, log = fields["output"] or [], fields["log"] or []
        job = _Job(title, rule, time.monotonic(), log[0] if log else None, _record_of(rule, outputs))
        self.running[fields["jobid"]] = job
        if rule not in self.seconds and (earlier := _seconds_of_earlier(rule, fields.get("benchmark"))):
            self.seconds[rule] = [earlier]

    def _ends(self, jobid: int) -> None:
        job = self.running.pop(jobid, None)
        if job is None:
            return
        took = time.monotonic() - job.started
        self.seconds.setdefault(job.rule, []).append(took)
        self.seconds_done += took
        self.left[job.rule] = max(0, self.left.get(job.rule, 1) - 1)
        self.done += 1
        self._line(f"[{self.done:>{len(str(self.total))}}/{self.total}] {job.title}  {duration(took)}{self._rest()}")

    def _fails(self, jobid: int) -> None:
        job = self.running.pop(jobid, None)
        if job is None:
            return
        self.failed += 1
        where = f": {job.log}" if job.log else ""
        self._line(f"[failed] {job.title}  after {duration(time.monotonic() - job.started)}{where}")

    # ---- lines and the bar
    def _line(self, text: str) -> None:
        self.last_line = time.monotonic()
        if self.bar is not None:
            self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        try:
            self.stream.write(text + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            pass  # whoever read it has gone

    def _rest(self) -> str:
        rest = self.remaining()
        return f", about {duration(rest)} left" if rest is not None and rest >= 1 and self.done < self.total else ""

    def remaining(self) -> float | None:
        """Seconds that the rest will take: of each rule as long as its jobs took in this run or in earlier ones, of
        others as long as jobs took on average; a stage's training reports its own. None where of more than half of the
        jobs nothing is known yet: the first that end are short ones."""
        known = [second for several in self.seconds.values() for second in several]
        unknown = sum(count for rule, count in self.left.items() if rule not in self.seconds)
        if not known or 2 * unknown > self.total:
            return None
        mean, now = sum(known) / len(known), time.monotonic()
        rest = sum(
            count * (median(self.seconds[rule]) if rule in self.seconds else mean) for rule, count in self.left.items()
        )
        for job in self.running.values():
            expected = median(self.seconds[job.rule]) if job.rule in self.seconds else mean
            own = _left_of_training(job, now)
            rest += (own if own is not None else max(0.0, expected - (now - job.started))) - expected
        elapsed = now - self.started
        at_once = max(1.0, self.seconds_done / elapsed) if self.done and elapsed else 1.0
        return max(0.0, rest / at_once)

    def _tick(self) -> None:
        """Once a second the bar; without a terminal a line where nothing was printed for a minute."""
        if self.on_terminal:
            with self.turn:
                self._show_bar()
        while not self.over.wait(1.0):
            with self.turn:
                if self.bar is not None:
                    self._update_bar()
                elif self.running and time.monotonic() - self.last_line >= _SECONDS_BETWEEN_LINES:
                    self._line(f"running: {self._standing()}{self._rest()}")

    def _standing(self) -> str:
        now = time.monotonic()
        return ", ".join(
            f"{job.title} {_progress_of(job)}{duration(now - job.started)}" for job in self.running.values()
        )

    def _show_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self.bar = Progress(
            SpinnerColumn(), MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}"),
            console=Console(file=self.stream), transient=True,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=self.total)
        self.bar.start()

    def _update_bar(self) -> None:
        self.bar.update(self.task, completed=self.done, description=f"{self._standing()}{self._rest()}")

    def close(self) -> None:
        """The last line: how many jobs ended, in which time."""
        if not self.over.is_set():
            self.over.set()
            with self.turn:
                if self.bar is not None:
                    self.bar.stop()
                    self.bar = None
                if self.dry_run and self.total:
                    self._line("Nothing was run: -n only says what would run.")
                elif self.total and not self.dry_run:
                    failed = f", {self.failed} failed" if self.failed else ""
                    took = duration(time.monotonic() - self.started)
                    self._line(f"{self.done} of {self.total} jobs done{failed}, {took}")
        super().close()


def _record_of(rule: str, outputs: list[str]) -> Path | None:
    """Where the training of a stage records its progress: beside its folder, runs/EXPERIMENT/.state/STAGE/VARIANT."""
    if not rule.startswith("train_") or not outputs:
        return None
    folder = Path(outputs[0]).parent
    return folder.parents[1] / ".state" / folder.parent.name / folder.name / "record.json"


def _training_of(job: _Job) -> tuple[int, float] | None:
    """(step, total steps) of a stage that trains."""
    if job.record is None:
        return None
    try:
        if job.record.stat().st_mtime < time.time() - (time.monotonic() - job.started):
            return None  # an earlier run's
        found = json.loads(job.record.read_text(encoding="utf-8"))["progress"]
        return int(found["step"]), float(found["total_steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _progress_of(job: _Job) -> str:
    found = _training_of(job)
    return "" if found is None else f"step {found[0]} of {found[1]:.0f}, "


def _left_of_training(job: _Job, now: float) -> float | None:
    found = _training_of(job)
    if found is None or found[0] < 1:
        return None
    return (now - job.started) / found[0] * max(0.0, found[1] - found[0])


def _seconds_of_earlier(rule: str, benchmark: str | None) -> float | None:
    """What the jobs of this rule took in earlier runs, by the benchmark files beside the logs of all experiments."""
    if not benchmark:
        return None
    from panollava.dag.nodes import RULES

    place = Path(benchmark)
    longer = tuple(name for name in RULES if name.startswith(f"{rule}_"))
    found = []
    for path in {place, *place.parent.parent.glob(f"*/{rule}*.tsv")}:
        if path.stem.startswith(longer):  # predict_blind's, where predict's are looked for
            continue
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                found.append(float(next(csv.DictReader(stream, delimiter="\t"))["s"]))
        except (OSError, StopIteration, KeyError, ValueError):
            continue
    return median(found) if found else None
