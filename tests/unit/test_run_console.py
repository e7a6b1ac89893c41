"""What `panollava run` shows: a line a job, a remaining time, and none of Snakemake's bad advice."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

from panollava.dag import run_console
from panollava.dag.run_console import LogHandler, why, without_advice
from panollava.files import write_json

SLICES = "before: '{\"lora\": 4}' now: '{\"lora\": 8}'"
PROVENANCE = (
    "Some jobs were triggered by provenance information, see 'reason' section in the rule displays above.\n"
    "If you prefer that only modification time is used to determine whether a job shall be executed, use the command "
    "line option '--rerun-triggers mtime' (also see --help).\nYou can also wipe its metadata via "
    "'snakemake --cleanup-metadata <outfile>'. "
)
INCOMPLETE = (
    "The files below seem to be incomplete. Mark them as complete with\n\n    snakemake --cleanup-metadata a\n\n"
    "To re-generate the files rerun your command with the --rerun-incomplete flag.\nIncomplete files:\na"
)


class Console:
    """A handler, and what it wrote."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dry_run: bool = False, commands: bool = False) -> None:
        self.stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout" if dry_run else "stderr", self.stream)
        settings = SimpleNamespace(dryrun=dry_run, stdout=dry_run, printshellcmds=commands, quiet=None)
        self.handler = LogHandler(settings, None)  # type: ignore[arg-type]

    def say(self, text: str | None, level: int = logging.INFO, **told: Any) -> None:
        record = logging.LogRecord("snakemake", level, "", 0, text, None, None)
        vars(record).update(told)
        self.handler.emit(record)

    def begins(self, jobid: int, rule: str, reason: str = "Missing output files: a", **told: Any) -> None:
        about = {"wildcards": {"experiment": "E"}, "output": [], "log": [f"logs/E/{rule}.log"], "benchmark": None}
        self.say("", event=LogEvent.JOB_INFO, jobid=jobid, rule_name=rule, reason=reason, **{**about, **told})

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


def test_snakemake_finds_the_plugin() -> None:
    assert LoggerPluginRegistry().is_installed("panollava")


def test_a_plan_says_why_in_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(monkeypatch, dry_run=True)
    console.say("Building DAG of jobs...")
    for _ in range(2):
        console.say("Job stats:\n...", event=LogEvent.RUN_INFO, stats={"train_finetune": 1, "predict": 1, "total": 2})
    console.begins(1, "train_finetune", f"Params have changed since last execution: {SLICES}")
    console.begins(2, "predict", "Input files updated by another job: best.ckpt")
    console.say("", event=LogEvent.SHELLCMD, shellcmd="exec python -P train.py --slice '{}'")
    console.say(PROVENANCE)
    console.say("Rules with provenance triggered jobs: train_finetune\n")
    console.say("This was a dry-run (flag -n). The order of jobs does not reflect the order of execution.")
    console.handler.close()
    assert console.lines == [
        "2 jobs would run:",
        "  train_finetune E: its settings or what it is made from changed",
        "  predict E: follows from a job before",
        "Nothing was run: -n only says what would run.",
    ]


def test_a_run_is_a_line_a_job_with_a_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(run_console.time, "monotonic", lambda: now[0])
    console = Console(monkeypatch)
    console.say("", event=LogEvent.RUN_INFO, stats={"prepare_csv": 2, "predict": 1, "total": 3})
    console.begins(1, "prepare_csv")
    now[0] += 30
    console.say("Finished jobid: 1 (Rule: prepare_csv)", event=LogEvent.JOB_FINISHED, job_id=1)
    console.say(None, event=LogEvent.PROGRESS, done=1, total=3)
    console.begins(2, "predict")
    now[0] += 10
    console.say("Error in rule predict", logging.ERROR, event=LogEvent.JOB_ERROR, jobid=2, shellcmd="exec python")
    console.say("Exiting because a job execution failed. Look below for error messages", logging.ERROR)
    console.say(
        "RuleException:\nCalledProcessError in file \"a.smk\", line 3:\nCommand 'exec …' --slice", logging.ERROR
    )
    console.say("Removing output files of failed job predict since they might be corrupted:\na.csv")
    console.say("Shutting down, this might take some time.")
    console.say("WorkflowError:\nAt least one job did not complete successfully.", logging.ERROR)
    console.say("disk nearly full", logging.WARNING)
    console.handler.close()
    assert console.lines == [
        "3 jobs: prepare_csv (2), predict",
        "[1/3] prepare_csv E  30 s, about 1 min 0 s left",
        "[failed] predict E  after 10 s: logs/E/predict.log",
        "disk nearly full",
        "1 of 3 jobs done, 1 failed, 40 s",
    ]


def test_the_first_of_many_jobs_says_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run_console.time, "monotonic", lambda: now[0])
    console = Console(monkeypatch)
    rules = ["synthesize_data", "pretrain_vision", "train_vision", "train_finetune", "predict"]
    console.say("", event=LogEvent.RUN_INFO, stats={**dict.fromkeys(rules, 1), "total": 5})
    left = []
    for jobid, rule in enumerate(rules):
        console.begins(jobid, rule)
        now[0] += 60
        console.say(None, event=LogEvent.JOB_FINISHED, job_id=jobid)
        left.append(console.handler.remaining())
    console.handler.close()
    assert left == [None, None, pytest.approx(120), pytest.approx(60), 0]


def test_a_stage_and_earlier_runs_tell_what_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("logs/OTHER").mkdir(parents=True)
    Path("logs/OTHER/train_vision.tsv").write_text("s\th:m:s\tmax_rss\n100.0\t0:01:40\t200\n")
    now = [1000.0]
    monkeypatch.setattr(run_console.time, "monotonic", lambda: now[0])
    console = Console(monkeypatch)
    console.say("", event=LogEvent.RUN_INFO, stats={"train_vision": 1, "total": 1})
    folder = Path("runs/E/vision/anyres_mlp")
    console.begins(
        1, "train_vision", output=[f"{folder}/checkpoint_metadata.json"], benchmark="logs/E/train_vision.tsv"
    )
    now[0] += 20
    assert console.handler.remaining() == pytest.approx(80)
    write_json(Path("runs/E/.state/vision/anyres_mlp/record.json"), {"progress": {"step": 5, "total_steps": 50}})
    assert console.handler.remaining() == pytest.approx(180)
    os.utime("runs/E/.state/vision/anyres_mlp/record.json", (1, 1))  # an earlier run's: says nothing of this one
    assert console.handler.remaining() == pytest.approx(80)
    console.handler.close()


def test_seconds_of_earlier_runs_are_those_of_the_rule_and_no_longer_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("logs/OTHER").mkdir(parents=True)
    for name, seconds in (("predict", 10), ("predict_blind", 1000), ("predict_rolled", 1000)):
        Path(f"logs/OTHER/{name}.tsv").write_text(f"s\th:m:s\tmax_rss\n{seconds}.0\t0:01:40\t200\n")
    now = [1000.0]
    monkeypatch.setattr(run_console.time, "monotonic", lambda: now[0])
    console = Console(monkeypatch)
    console.say("", event=LogEvent.RUN_INFO, stats={"predict": 1, "total": 1})
    console.begins(1, "predict", benchmark="logs/E/predict.tsv")
    assert console.handler.remaining() == pytest.approx(10)
    console.handler.close()


def test_a_long_job_is_told_of_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_console, "_SECONDS_BETWEEN_LINES", 0.2)
    console = Console(monkeypatch)
    console.say("", event=LogEvent.RUN_INFO, stats={"predict": 1, "total": 1})
    console.begins(1, "predict")
    until = time.monotonic() + 30
    while time.monotonic() < until and not any(line.startswith("running: predict E ") for line in console.lines):
        time.sleep(0.1)
    console.handler.close()
    assert any(line.startswith("running: predict E ") for line in console.lines)


def test_advice_that_passes_results_off_as_current_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(monkeypatch)
    console.say(INCOMPLETE, logging.ERROR, event=LogEvent.ERROR)
    console.say(PROVENANCE, logging.WARNING)
    said = console.stream.getvalue()
    assert "--cleanup-metadata" not in said and "mtime" not in said
    assert "Incomplete files:\na" in said and "run the same command again" in said
    assert without_advice("the disk is full") == "the disk is full"


def test_shell_commands_are_shown_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(monkeypatch, commands=True)
    console.say("", event=LogEvent.SHELLCMD, shellcmd="exec python train.py")
    assert console.lines == ["exec python train.py"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("Forced execution", "made anew"),
        ("Missing output files: a; Params have changed since last execution: x", "its settings"),
        ("Updated input files: data.csv", "a file it is made from changed"),
        ("something new", "it is asked for"),
    ],
)
def test_reasons(reason: str, said: str) -> None:
    assert said in why(reason)
    assert why(reason, ["nowhere/metrics.json"]) == "not there yet"
    assert said in why(reason, [__file__])


def test_it_imports_nothing_heavy() -> None:
    code = "import sys, panollava.dag.run_console; print([m for m in ('torch', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
