"""What a job's log says about the job: for which configuration it ran, whether it ended, and with which error.

`dag.script` writes the first and the last line; the state of an experiment is read back
from them. A log of another configuration says nothing about the present one.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from panollava.stage_state import process_lives

INTERRUPTED = "interrupted"
_LINE = re.compile(r"^\d\d:\d\d:\d\d (?P<level>[A-Z]+) +(?P<text>.*)$")
_FIRST = re.compile(r"\S+: configuration (?P<digest>[0-9a-f]+), process (?P<pid>\d+) on (?P<host>.+)")
_LAST = re.compile(r"\S+: [\d.]+ s, peak memory ")


def first_line(job: str, digest: str) -> str:
    return f"{job}: configuration {digest}, process {os.getpid()} on {platform.node()}"


def last_line(job: str, seconds: float, peak_memory_gib: float) -> str:
    return f"{job}: {seconds:.1f} s, peak memory {peak_memory_gib:.2f} GiB"


@dataclass(frozen=True)
class JobLog:
    """`digest` names the configuration slice. `error` is one line; `running`: no end yet, and its process lives."""

    digest: str
    running: bool
    error: str | None


def read_job_log(path: str | Path) -> JobLog | None:
    """The job that wrote the log at `path`; None where there is no such log or it does not begin like one."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    parsed = [_LINE.match(line) for line in lines]
    begin = _FIRST.fullmatch(parsed[0]["text"]) if parsed and parsed[0] else None
    if begin is None:
        return None
    last = next((match for match in reversed(parsed) if match), None)
    ended = last is not None and _LAST.match(last["text"]) is not None
    running = not ended and process_lives([begin["host"], int(begin["pid"])])
    error = _error_of(lines, parsed)
    if error is None and not ended and not running:
        error = "its process is gone (killed, or out of memory); the same command goes on"
    return JobLog(begin["digest"], running, None if running else error)


def _error_of(lines: list[str], parsed: list[re.Match[str] | None]) -> str | None:
    """The last error: its first line, or with a traceback behind it the exception's line."""
    for index in range(len(lines) - 1, -1, -1):
        match = parsed[index]
        if match and match["level"] == "ERROR":
            behind = [line for line, other in zip(lines[index + 1 :], parsed[index + 1 :], strict=True) if not other]
            traced = any(line.startswith("Traceback ") for line in behind)
            exception = next((line for line in reversed(behind) if line and not line[0].isspace()), None)
            return exception if traced and exception else match["text"]
    return None
