"""Which results are there and current, so that their jobs need not wait for what was removed.

Paths and slices enter; whether a result is the present configuration's leaves. Each result is looked at once.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from panollava.config import WorkflowConfig
from panollava.config.dotted import differences
from panollava.config.job_options import STAGE_OUTPUTS
from panollava.files import digest_of_text
from panollava.provenance import made_by

Files = TypeVar("Files", dict[str, str], list[str])


class Presence:
    """The results on the disk, beside what Snakemake remembers of them.

    `remembered` gives the parameters (their `repr`) that Snakemake has recorded of a file, None where it has none.
    `run_again` lets Snakemake plan a file that it would take for current. `forced` says whether this command asks for
    jobs that are not stale (`--forceall` and its kind).
    """

    def __init__(
        self,
        remembered: Callable[[str], Collection[str] | None],
        run_again: Callable[[str], None],
        forced: Callable[[], bool],
    ) -> None:
        self._remembered, self._run_again, self._forced = remembered, run_again, forced
        self._current: dict[str, bool] = {}

    def is_current(self, path: str, slice_json: str) -> bool:
        """Whether a result is there and says itself that this slice made it; where it does not, it is planned again.

        Snakemake compares parameters as far as `.snakemake` remembers them: in a fresh clone with copied results it
        remembers nothing, and would take an old number for a current one. Where it remembers, it gives the reason
        itself, as two whole slices; which settings differ in them is said here.
        """
        if path not in self._current:
            self._current[path] = os.path.exists(path) and self._told_current(path, slice_json)
        return self._current[path]

    def _told_current(self, path: str, slice_json: str) -> bool:
        if made_by(path) == digest_of_text(slice_json):
            return True
        remembered = self._remembered(path)
        if remembered is None or repr(slice_json) in remembered:
            print(f"{path} was not made by this configuration: again", file=sys.stderr)
            self._run_again(path)
            return False
        for line in _what_changed(remembered, slice_json):
            print(f"{path}: {line}", file=sys.stderr)
        return False

    def is_current_stage(self, experiment: WorkflowConfig, stage: str) -> bool:
        """Whether a stage and all before it are there, whole, and made by this configuration."""
        stages: list[str] = list(experiment.settings.training.stages)
        folders = {one: experiment.names.stage_dir(one) for one in stages}
        for folder in folders.values():
            remove_dangling_links(folder)
        current = [  # all are asked: each that is not current is planned again
            self.is_current(f"{folders[one]}/checkpoint_metadata.json", experiment.slice_json(f"train_{one}"))
            and all_there(*(f"{folders[one]}/{name}" for name in STAGE_OUTPUTS))
            for one in stages[: stages.index(stage) + 1]
        ]
        return all(current)

    def inputs_if(self, current: bool, files: Files) -> Files:
        """A job's inputs; of a job whose results are current only those that exist.

        What was removed is made again for the jobs that need it. Snakemake would run all others as well that name it
        as an input: a missing file is not ancient.
        """
        if not current or self._forced():
            return files
        if isinstance(files, dict):
            return {name: file for name, file in files.items() if os.path.exists(file)}
        return [file for file in files if os.path.exists(file)]


def _what_changed(remembered: Collection[str], slice_json: str) -> Iterator[str]:
    """A line for each setting and input that differs; nothing for what merely follows from a node before."""
    now = json.loads(slice_json)
    for parameter in remembered:
        try:
            before = json.loads(ast.literal_eval(parameter))
        except (ValueError, SyntaxError, TypeError):  # another kind of parameter
            continue
        if isinstance(before, dict) and before.get("node") == now["node"]:
            yield from (
                _told(key, old, new) for key, old, new in differences(before, now) if not key.startswith("upstream.")
            )


def _told(key: str, old: Any, new: Any) -> str:
    section, _, name = key.partition(".")
    if section == "inputs":
        return f"{name} has other content"
    return f"{name if section == 'config' else key}: was {json.dumps(old)}, is {json.dumps(new)}"


def all_there(*paths: str) -> bool:
    """Whether files exist. Those of the shared cache are then current: their content follows from their key."""
    return all(os.path.exists(path) for path in paths)


def remove_dangling_links(stage_dir: str) -> None:
    """Weights that somebody removed leave links that Snakemake stumbles over. Training writes them again."""
    for name in ("best.ckpt", "last.ckpt"):
        link = f"{stage_dir}/{name}"
        if os.path.islink(link) and not os.path.exists(link):
            print(f"{link} points to {os.readlink(link)}, which is not there: the link is removed", file=sys.stderr)
            os.remove(link)
