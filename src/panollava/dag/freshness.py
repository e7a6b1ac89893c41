"""Which results are there and current, so that their jobs need not wait for what was removed.

Jobs enter; whether their results are the present configuration's leaves. Each result is looked at once.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

from panollava.config.dotted import differences
from panollava.dag.node import Files, Task
from panollava.dag.nodes import TABLE, node_kind
from panollava.dag.tasks import task_of
from panollava.files import digest_of_text
from panollava.provenance import made_by


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

    def inputs_of(self, task: Task) -> Files:
        """The files that a job waits for; each result that is not current is planned again."""
        current = self.is_current_task(task)
        return (
            self.inputs_if(current, task.node.inputs(task)) if task.node.inputs_may_be_gone else task.node.inputs(task)
        )

    def is_current_task(self, task: Task) -> bool:
        """Whether a job's results are there, whole, and made by this configuration, and so those of the nodes before.

        The shared cache counts only for its own jobs: nobody needs it behind a result that is current.
        """
        if task.node.cache is not None:
            return task.is_there
        found = [] if task.node.stands_alone else [self.is_current_task(one) for one in _before(task)]
        remove_dangling_links(task)
        told_by = task.told_by
        assert told_by is not None
        # All are asked: each that is not current is planned again.
        found.append(self.is_current(told_by, task.slice_json) and (task.node.stands_alone or task.is_there))
        return all(found)

    def inputs_if(self, current: bool, files: Files) -> Files:
        """A job's inputs; of a job whose results are current only those that exist.

        What was removed is made again for the jobs that need it. Snakemake would run all others as well that name it
        as an input: a missing file is not ancient.
        """
        if not current or self._forced():
            return files
        there: dict[str, str | list[str]] = {}
        for name, given in files.items():
            if isinstance(given, list):
                there[name] = [file for file in given if os.path.exists(file)]
            elif os.path.exists(given):
                there[name] = given
        return there


def _before(task: Task) -> Iterator[Task]:
    """The jobs of the experiment's own nodes before this one."""
    if task.node.document is None:
        for name, _ in task.node.parents(task.experiment, task.node.name, None)[1]:
            if TABLE[node_kind(name)].cache is None:
                yield task_of(task.experiment, name)


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


def remove_dangling_links(task: Task) -> None:
    """Weights that somebody removed leave links that Snakemake stumbles over. Training writes them again."""
    for name in task.node.links:
        link = str(task.outputs[name])
        if os.path.islink(link) and not os.path.exists(link):
            print(f"{link} points to {os.readlink(link)}, which is not there: the link is removed", file=sys.stderr)
            os.remove(link)
