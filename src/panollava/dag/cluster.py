"""Jobs on a cluster: they work with the configuration that was submitted, and not for a snakemake that is dead.

On a cluster Snakemake runs itself once more inside each job, hours after it was planned, and would read the YAML files
as they are then. So the submitting snakemake leaves a snapshot of all that it loaded, and its jobs find the snapshot's
path in their environment. A snakemake that was killed leaves its jobs in the queue; the next one, which holds the
folder's lock and so knows that nobody else builds here, cancels them: their state is saved, and they are submitted
anew where they are still wanted.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from panollava.config import ConfigError, Project
from panollava.files import digest_of, read_json, write_json

VARIABLE = "PANOLLAVA_SNAPSHOT"
FOLDER = Path(".snakemake/panollava")
_NAME = re.compile(r"([\w-]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # what Snakemake calls its Slurm jobs
_CANCEL_TIMEOUT_S = 60


def leave_snapshot(project: Project) -> Path:
    """Write what `project` has loaded, and let the jobs that this process submits find it."""
    document = project.snapshot()
    path = FOLDER / f"snapshot_{digest_of(document)}.json"
    if not path.is_file():
        write_json(path, document)
    os.environ[VARIABLE] = path.as_posix()
    return path


def project_of_job() -> Project:
    """The project as it was when this cluster job was submitted. Raises ConfigError where the snapshot is missing."""
    path = os.environ.get(VARIABLE)
    if path is None:
        raise ConfigError(
            f"this job was submitted without a snapshot of its configuration ({VARIABLE} is not set): the executor "
            "must pass the environment on, and --no-hooks must not be given"
        )
    try:
        return Project(".", read_json(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}, this job's configuration: {error}. Run the same command again") from None


def cancel_orphans() -> None:
    """Cancel the Slurm jobs that an earlier snakemake of this folder left. Call it with the folder's lock held."""
    form = "%i|%j|%k|%Z"  # id, name, comment, working folder
    try:
        listed = subprocess.run(
            ["squeue", "--me", "--noheader", "--format", form], capture_output=True, text=True, check=True,
            timeout=_CANCEL_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        print(f"warning: squeue cannot be asked for jobs of an earlier command: {error}", file=sys.stderr)
        return
    orphans = []
    for line in listed.stdout.splitlines():
        number, name, comment, folder = line.split("|", 3)
        if _NAME.fullmatch(name) and comment.startswith("rule_") and Path(folder).resolve() == Path.cwd().resolve():
            orphans.append(number)
    if not orphans:
        return
    print(f"cancelling Slurm jobs that an earlier command left: {', '.join(orphans)}", file=sys.stderr, flush=True)
    subprocess.run(["scancel", *orphans], check=False, timeout=_CANCEL_TIMEOUT_S)
    # While they save their state, new jobs would only wait for it.
    deadline = time.monotonic() + _CANCEL_TIMEOUT_S
    still_there = ["squeue", "--noheader", "--format", "%i", "--jobs", ",".join(orphans)]
    while time.monotonic() < deadline and subprocess.run(still_there, capture_output=True, text=True).stdout.strip():
        time.sleep(1)
