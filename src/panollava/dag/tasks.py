"""The jobs of a project: of an experiment, of a folder of the shared cache, of several experiments.

Each `Task` holds its slice. Keys of the shared cache are looked up backwards:
a job process knows only the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from panollava.config.schema import STAGES
from panollava.dag.inputs import SHARDED
from panollava.dag.node import CACHE, Node, Task
from panollava.dag.nodes import CACHED, KINDS, RULES, TABLE
from panollava.dag.several import comparison_slice, shard_slice, summary_slice
from panollava.errors import ConfigError
from panollava.files import canonical_json

if TYPE_CHECKING:
    from panollava.config import Project, WorkflowConfig
    from panollava.config.schema import PathSettings


def places_of(paths: PathSettings, **more: str) -> dict[str, str]:
    """Values for the fields of templates."""
    names = ("runs_dir", "results_dir", "logs_dir", "image_cache")
    return {"cache": CACHE, **{name: getattr(paths, name) for name in names}, **more}


def wildcards_of(paths: PathSettings) -> dict[str, str]:
    """The same for rules: what differs between jobs stays Snakemake's wildcard."""
    return places_of(
        paths, **{name: f"{{{name}}}" for name in ("experiment", "variant", "key", "ablation", "control", "shard")}
    )


def task_of(experiment: WorkflowConfig, name: str, stage: str | None = None) -> Task:
    """The job of a node for an experiment; `stage` as in `Slices.document`."""
    node, slices = TABLE[KINDS[name]], experiment.slices
    document, text, digest = slices.of(name, stage)
    if node.cache is not None:
        more = {"key": digest}
    else:
        more = {"experiment": experiment.names.experiment, "variant": experiment.names.variant}

    def slice_by_key(kind: str, key: str) -> dict[str, Any]:
        return dict(slices_of(experiment, CACHED[kind]))[key]

    places = places_of(experiment.settings.paths, **more)
    return Task(node, document, text, places, (experiment,), slice_by_key)


def shard_task(experiment: WorkflowConfig, control: str, shard: str) -> Task:
    """One of the jobs that share the answers of the node `control`; `shard` is `2-of-4`. Raises ConfigError where there
    is none such."""
    name, shards = experiment.names.experiment, experiment.settings.evaluation.shards
    if control not in SHARDED or shard not in {f"{number}-of-{shards}" for number in range(1, shards + 1)}:
        raise ConfigError(
            f"{control}_{shard} is no shard of {name}: evaluation.shards is {shards}, of {', '.join(SHARDED)}"
        )
    document, own = shard_slice(experiment, control, shard), task_of(experiment, control)
    places = {**own.places, "control": control, "shard": shard}
    return Task(TABLE["predict_shard"], document, canonical_json(document), places, (experiment,), own.slice_by_key)


def own_nodes(experiment: WorkflowConfig) -> list[str]:
    """The nodes that write files of this experiment alone, in the order of the table, whether anybody asks for them or
    not; of stages those that it trains."""
    trained = experiment.settings.training.stages
    others = {f"train_{stage}" for stage in STAGES if stage not in trained}
    own = [name for name, node in TABLE.items() if {"experiment"} <= node.wildcards <= {"experiment", "variant"}]
    return [name for name in own if name not in others]


def tasks_behind(experiment: WorkflowConfig, name: str) -> list[Task]:
    """The job of a node and of all nodes before it, each once, in the order of the table."""
    found: dict[tuple[str, str], Task] = {}

    def visit(name: str, stage: str | None) -> None:
        task = task_of(experiment, name, stage)
        if (task.node.name, task.digest) not in found:
            found[task.node.name, task.digest] = task
            for parent in experiment.slices.parents(name, stage):
                visit(*parent)

    visit(name, None)
    order = list(TABLE)
    return sorted(found.values(), key=lambda task: order.index(task.node.name))


def with_shards(tasks: Iterable[Task]) -> Iterator[Task]:
    """Each job, and before one that gathers the answers of several (`evaluation.shards`) these."""
    for task in tasks:
        shards = task.experiment.settings.evaluation.shards if task.node.name in SHARDED else 1
        if shards > 1:
            for number in range(1, shards + 1):
                yield shard_task(task.experiment, task.node.name, f"{number}-of-{shards}")
        yield task


def slices_of(experiment: WorkflowConfig, node: Node) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and slices of an experiment's folders of the shared cache, those of stages with data of their own too.

    Raises ConfigError for a CSV that does not exist.
    """
    for name in node.names:
        for stage in [None, *experiment.settings.training.stages] if node.splits else [None]:
            yield experiment.digest(name, stage), experiment.slice_of(name, stage)


class Tasks:
    """The jobs of a project."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._slices: dict[tuple[str, str], dict[str, Any]] = {}
        self._seen: dict[str, set[str]] = {}
        self._problems: dict[str, list[str]] = {}

    def of_experiment(self, name: str, rule: str) -> Task:
        return task_of(self._project.experiment(name), RULES[rule].name)

    def of_shard(self, name: str, control: str, shard: str) -> Task:
        """`shard_task` of an experiment of that name."""
        return shard_task(self._project.experiment(name), control, shard)

    def by_key(self, rule: str, key: str) -> Task:
        """The job that makes the folder of that key. Raises ConfigError where no experiment has it."""
        node = RULES[rule]
        assert node.cache is not None
        document = self.slice_by_key(node.cache, key)
        places = places_of(self._project.paths, key=key)
        return Task(node, document, canonical_json(document), places, (), self.slice_by_key)

    def of_comparison(self) -> Task:
        """The comparison of the experiments that default.yaml lists."""
        experiments = default_experiments(self._project)
        return self._several("compare", comparison_slice(TABLE["compare"].code_version, experiments), experiments)

    def of_ablation(self, name: str) -> Task:
        """The table of an ablation. Raises ConfigError: unknown, or with errors in its file."""
        ablation = self._project.ablation(name)
        cells = self._project.cells(ablation)
        document = summary_slice(TABLE["compare_ablation"].code_version, ablation, cells)
        return self._several("compare_ablation", document, cells, ablation=name)

    def _several(
        self, name: str, document: dict[str, Any], experiments: Sequence[WorkflowConfig], **places: str
    ) -> Task:
        found = places_of(self._project.paths, **places)
        return Task(TABLE[name], document, canonical_json(document), found, tuple(experiments), self.slice_by_key)

    # ---- the shared cache ------------------------------------------------------------------------
    def slice_by_key(self, kind: str, key: str) -> dict[str, Any]:
        """The slice whose digest is `key`, for a folder of the shared cache (`csv`, `views`, …). Raises ConfigError.

        What is loaded is looked at first, then everything else, each experiment once.
        """
        if (kind, key) not in self._slices:
            project = self._project
            loaded = list(project.loaded)
            self._look_at(kind, loaded)
            if (kind, key) not in self._slices:
                self._look_at(kind, (name for name in project.experiments() if name not in loaded), until=key)
        if (kind, key) not in self._slices:
            more = "".join(f"\n{problem}" for problem in dict.fromkeys(self._problems.get(kind, ())))
            raise ConfigError(f"no experiment has a {kind} cache with the key {key}{more}")
        return self._slices[kind, key]

    def _look_at(self, kind: str, names: Iterator[str] | Sequence[str], until: str | None = None) -> None:
        seen, problems = self._seen.setdefault(kind, set()), self._problems.setdefault(kind, [])
        for name in names:
            if name in seen:
                continue
            seen.add(name)
            try:
                experiment = self._project.experiment(name)
            except ConfigError as error:
                problems.append(str(error))
                continue
            problems += self._remember(kind, experiment)
            if until is not None and (kind, until) in self._slices:
                return

    def _remember(self, kind: str, experiment: WorkflowConfig) -> Iterator[str]:
        node = CACHED[kind]
        for name in node.names:
            for stage in [None, *experiment.settings.training.stages] if node.splits else [None]:
                try:
                    key = experiment.digest(name, stage)
                    self._slices.setdefault((kind, key), experiment.slice_of(name, stage))
                except ConfigError as error:
                    yield str(error)

    def view_keys(self) -> set[str]:
        """Keys of the view caches of all experiments that were asked for so far."""
        keys = set()
        for experiment in self._project.loaded.values():
            for name in TABLE["views"].names:
                for stage in (None, *experiment.settings.training.stages):
                    with suppress(ConfigError):  # a stage's own CSV, which its plan has not asked for
                        keys.add(experiment.digest(name, stage))
        return keys


def targets_of_all(project: Project) -> list[str]:
    """`all`: metrics and stage state of the experiments that default.yaml lists."""
    names = [experiment.names for experiment in default_experiments(project)]
    return [path for one in names for path in (one.metrics, one.stage_state)]


def default_experiments(project: Project) -> list[WorkflowConfig]:
    return [project.experiment(name) for name in project.default_experiments]
