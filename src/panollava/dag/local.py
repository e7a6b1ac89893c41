"""Run the DAG's jobs in this process, one by one: same functions, folders, records and logs, without Snakemake.

Writes an experiment's prepared data, trained stages, chosen checkpoint and stage state. A result recorded as made by
this configuration is kept, an interrupted stage resumes, everything else is made again - as in the DAG, which
afterwards finds the results current. Traded away: jobs side by side, and the cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.dag.node import Task, flat
from panollava.dag.outputs import anchor_of, changed_files
from panollava.dag.parents import previous_stage
from panollava.dag.script import run_here
from panollava.dag.tasks import task_of
from panollava.logs import LOGGER
from panollava.provenance import clear_snakemake_record, read_digest


class Pipeline:
    """The jobs of one experiment. The working folder must be the project's root, and stay so.

    Raises ConfigError where another file there gives its experiment the same name.
    """

    def __init__(self, experiment: WorkflowConfig) -> None:
        Project(".").refuse_doubled(experiment.names.experiment)
        self.experiment = experiment

    def train(self, stages: Sequence[str]) -> None:
        """Train `stages` of training.stages (none of none), and the stages before them where these are not current."""
        wanted: list[str] = list(self.experiment.settings.training.stages)
        for stage in stages:
            previous_stage(self.experiment, stage)  # raises ConfigError where it is not trained
        last = max((wanted.index(stage) for stage in stages), default=-1)
        missing = self.experiment.missing_csvs()
        if missing:
            raise ConfigError("; ".join(f"{one} does not exist" for one in missing))
        for stage in wanted[: last + 1]:
            self.make(f"train_{stage}")
        if last + 1 == len(wanted):
            self.make("stage_state")

    def prepare(self) -> None:
        """results/{experiment}/prepared: what was used of the three splits, and what was rejected."""
        self.make("prepare_experiment")

    def select_checkpoint(self) -> None:
        """results/{experiment}/checkpoint.json: the best checkpoint of the last stage."""
        self.make("select_checkpoint")

    def make(self, node: str, stage: str | None = None) -> None:
        """The results of a node, after those of the nodes before it; nothing where they are current."""
        task = task_of(self.experiment, node, stage)
        if _is_current(task):
            if task.node.cache is None:
                LOGGER.info("%s is current: %s", task.node.rule, task.recorded_by)
            return
        for parent, for_stage in self.experiment.slices.parents(node, stage):
            self.make(parent, for_stage)
        for output in flat(task.outputs):  # as Snakemake does: what fails leaves no older result
            if not Path(output).is_dir():
                Path(output).unlink(missing_ok=True)
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            clear_snakemake_record(output)
        run_here(task.node.rule, task.slice_json, task.log, task.arguments())


def _is_current(task: Task) -> bool:
    """Whether the outputs are there, as their job left them, and say that this slice made them."""
    if not task.is_there or changed_files(anchor_of(task.node, task.outputs), task.digest):
        return False
    return task.recorded_by is None or read_digest(task.recorded_by) == task.digest
