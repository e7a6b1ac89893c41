"""Which results are there and current, so that their jobs need not wait for what was removed.

Whether jobs' results are those of the present configuration. Each result is looked at once.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any

from panollava.config.dotted import differences
from panollava.dag.node import CACHE, Files, Node, Task, fill, flat, no_pictures
from panollava.dag.nodes import CACHED, KINDS, TABLE
from panollava.dag.outputs import anchor_of, changed_files
from panollava.dag.tasks import task_of
from panollava.files import digest_of_text
from panollava.provenance import read_digest


class ResultCache:
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
        self._standing: dict[str, bool] = {}
        self._damages: dict[tuple[str, str], tuple[list[str], list[str]] | None] = {}
        self._again: set[str] = set()

    def is_current(self, path: str, slice_json: str) -> bool:
        """Whether a result is there and says itself that this slice made it; where it does not, it is planned again.

        Snakemake compares parameters as far as `.snakemake` remembers them: in a fresh clone with copied results it
        remembers nothing, and would take an old number for a current one. Where it remembers, it gives the reason
        itself, as two whole slices; the settings in which they differ are printed here.
        """
        if path not in self._current:
            self._current[path] = os.path.exists(path) and self._recorded_as_current(path, slice_json)
        return self._current[path]

    def _recorded_as_current(self, path: str, slice_json: str) -> bool:
        if read_digest(path) == digest_of_text(slice_json):
            return True
        remembered = self._remembered(path)
        if remembered is None or repr(slice_json) in remembered:
            print(f"{path} is out of date and will be rebuilt", file=sys.stderr)
            self._plan_again(path)
            return False
        for line in _what_changed(remembered, slice_json):
            print(f"{path}: {line}", file=sys.stderr)
        return False

    def _plan_again(self, path: str) -> None:
        self._again.add(path)
        self._run_again(path)

    def inputs_of(self, task: Task) -> Files:
        """The files that a job waits for; what is missing, edited or not current is planned again.

        A result that was removed or edited comes back, whoever needs it; of the shared cache and of the stages'
        weights, which may be removed, what is needed.
        """
        if task.node.cache is not None:
            current = task.is_there and not changed_files(anchor_of(task.node, task.outputs), task.digest)
        else:
            current = self.is_current_task(task)
        current = current and not self._forced()
        for name in task.node.apart:
            self._stands(task_of(task.experiment, name))
        files = self._linked(task.node.inputs(task), current, task.node.opens_pictures)
        return self.inputs_if(current, files) if task.node.inputs_may_be_gone else files

    def is_current_task(self, task: Task) -> bool:
        """Whether a job's results are there, whole, and made by this configuration, and so those of the nodes before.

        The shared cache counts only for its own jobs: nobody needs it behind a result that is current. Nor do the
        weights behind scores.
        """
        if task.node.cache is not None:
            return task.is_there
        behind = [one for one in _behind(task) if not (task.node.stands_alone and one.node.resumes)]
        beside = [task_of(task.experiment, name) for name in task.node.beside]
        # All are asked: each that is not current is planned again.
        found = [self._stands(one) for one in (*behind, task)]
        found_beside = [self._stands(one) for one in beside]
        return all(found) and all(found_beside)

    def _stands(self, task: Task) -> bool:
        """Whether a job's own results are there, as it left them, and of this slice. Each is looked at once."""
        recorded_by = task.recorded_by
        assert recorded_by is not None
        if recorded_by not in self._standing:
            self._standing[recorded_by] = self._judged(task, recorded_by)
        return self._standing[recorded_by]

    def _judged(self, task: Task, recorded_by: str) -> bool:
        remove_dangling_links(task)
        if not os.path.exists(recorded_by):
            if not task.node.resumes and _can_be_made(task):
                self._plan_again(recorded_by)
            return False
        changed = changed_files(recorded_by, task.digest)
        if changed is None and not self.is_current(recorded_by, task.slice_json):
            return False
        missing = [path for path in flat(task.outputs) if not os.path.lexists(path)]
        if any(str(task.outputs[name]) in missing for name in task.node.links):
            return False  # weights that were thrown away: trained again where they are needed
        if changed or missing:
            listed = ", ".join(dict.fromkeys([*missing, *(changed or [])]))
            print(f"{listed}: removed, or edited after {task.node.rule} wrote it: made again", file=sys.stderr)
            self._plan_again(recorded_by)
            return False
        return True

    def _linked(self, files: Files, current: bool, opens_pictures: bool) -> Files:
        """The inputs of a job, such that what is planned again in this command is planned before it.

        Snakemake forgets the reasons of all jobs behind one that is planned again where an existing `ancient` file lies
        between them. So a job whose results are current has nothing to do with a folder of the cache that is damaged,
        and for any other that folder's files are ordinary ones.
        """
        linked: dict[str, str | list[str]] = {}
        for name, given in files.items():
            kept = []
            for path in [given] if isinstance(given, str) else given:
                damage = self._damage(path)
                if damage is None or not os.path.exists(path):
                    if not (current and path in self._again):
                        kept.append(str(path) if path in self._again else path)
                elif not current:
                    self._mend(path, damage, opens_pictures)
                    kept.append(str(path))
            if isinstance(given, list):
                linked[name] = kept
            elif kept:
                linked[name] = kept[0]
        return linked

    def _mend(self, path: str, damage: tuple[list[str], list[str]], opens_pictures: bool) -> None:
        """Plan a folder of the cache again, for a job that is to run: where it is there in part only, or was edited;
        and where a job opens pictures that moved, went or were edited. What is not there at all Snakemake plans itself.
        """
        files, pictures = damage
        found = files + (pictures if opens_pictures else [])
        if found and path not in self._again:
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            print(f"{', '.join(found[:3])}{more}: removed, moved or edited: made again", file=sys.stderr)
            self._plan_again(path)

    def _damage(self, path: str) -> tuple[list[str], list[str]] | None:
        """What is wrong with the folder of the shared cache that a file lies in: its files, its pictures."""
        found = _cached_node(path)
        if found is None:
            return None
        node, key = found
        if (node.name, key) not in self._damages:
            outputs = {name: fill(template, {"cache": CACHE, "key": key}) for name, template in node.outputs.items()}
            anchor = anchor_of(node, outputs)
            missing = [one for one in flat(outputs) if not os.path.exists(one)]
            files = [*missing, *(changed_files(anchor, key) or [])]
            # What an earlier version prepared does not say what its pictures were.
            noted = changed_files(anchor, key, pictures=True) if node.pictures is not no_pictures else []
            pictures = [anchor] if noted is None else noted
            self._damages[node.name, key] = (files, pictures) if files or pictures else None
        return self._damages[node.name, key]

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


def _behind(task: Task) -> list[Task]:
    """The jobs of the experiment's own nodes before this one, each once."""
    if task.node.document is not None:
        return []
    found: dict[str, Task] = {}
    for name, _ in task.experiment.slices.parents(task.node.name):
        if name not in found and TABLE[KINDS[name]].cache is None:
            one = task_of(task.experiment, name)
            found |= {earlier.node.name: earlier for earlier in _behind(one)} | {name: one}
    return list(found.values())


def _can_be_made(task: Task) -> bool:
    """Whether a result that is not there follows from what is: the stage state from the stages' metadata."""
    if task.node.document is None:
        return True
    parents = task.experiment.slices.parents(task.node.name)
    recording = [task_of(task.experiment, name).recorded_by for name, _ in parents if TABLE[KINDS[name]].cache is None]
    return all(one is not None and os.path.exists(one) for one in recording)


def _cached_node(path: str) -> tuple[Node, str] | None:
    """The node and the key of a file of the shared cache."""
    if not path.startswith(f"{CACHE}/"):
        return None
    kind, key, _ = path.removeprefix(f"{CACHE}/").rsplit("/", 2)
    return (CACHED[kind], key) if kind in CACHED else None


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
                _described(key, old, new)
                for key, old, new in differences(before, now)
                if not key.startswith("upstream.")
            )


def _described(key: str, old: Any, new: Any) -> str:
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
