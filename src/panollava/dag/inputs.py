"""The files that each job waits for, in the order of the DAG.

Each function returns a task's files by name. A file of the shared cache is `ancient`: its content follows from its
key, so its age says nothing. (A job whose results are current waits only for what exists: `freshness`.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from panollava.config.names import SPLITS
from panollava.dag.node import CACHE, Files, Task
from panollava.dag.parents import last_stage, previous_stage, wants_text_only
from panollava.evaluation.measures import measures_of

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


SHARDED = ("predict", "predict_blind", "predict_text_only")
"""The nodes whose answers several jobs may share (`evaluation.shards`)."""


def ancient(path: str) -> str:
    """Snakemake's mark of an input whose age does not count. Its package is loaded by who plans, not by every job."""
    from snakemake.io import ancient as marked

    found: str = marked(path)
    return found


def cached(kind: str, key: str, name: str) -> str:
    """A file of the shared cache."""
    return ancient(f"{CACHE}/{kind}/{key}/{name}")


def stage_file(experiment: WorkflowConfig, stage: str, name: str) -> str:
    return f"{experiment.names.stage_dir(stage)}/{name}"


def _backbones(slice_document: dict[str, Any]) -> dict[str, str]:
    """`vision`, `language`, `vlm`: the weights of the miniature backbones that a slice builds upon."""
    keys = {part: slice_document["upstream"].get(f"miniature_{part}") for part in ("vision", "language", "vlm")}
    return {part: cached(f"miniature/{part}", key, "model.safetensors") for part, key in keys.items() if key}


# ---- data ----------------------------------------------------------------------------------------
def source_csvs(slice_document: dict[str, Any]) -> list[str]:
    """The source CSVs of a `prepare` slice: drawn ones of the cache, or the user's (whose content is in the slice)."""
    csvs, key = slice_document["inputs"]["csvs"], slice_document["upstream"].get("synthetic")
    return [f"{CACHE}/synthetic/{key}/{csvs[0]['split']}.csv"] if key else [csv["path"] for csv in csvs]


def source_csvs_of(experiment: WorkflowConfig, stage: str) -> dict[str, list[str]]:
    """The source CSVs of each split of a stage's data."""
    return {split: source_csvs(experiment.slices.document(f"prepare_{split}", stage)) for split in SPLITS}


def of_prepare(task: Task) -> Files:
    return {"csvs": [ancient(path) for path in source_csvs(task.document)]}


def of_views(task: Task) -> Files:
    """The prepared CSV, its pictures where they are drawn, and the encoder where it says their size."""
    csv_key = task.document["upstream"]["prepare"]
    found = {"csv": cached("csv", csv_key, "prepared.csv"), **_backbones(task.document)}
    drawn = task.slice_by_key("csv", csv_key)["upstream"].get("synthetic")
    if drawn:
        found["scenes"] = cached("synthetic", drawn, "scenes.json")
    return found


def of_prepared(task: Task) -> Files:
    """The prepared CSVs of the splits, and what they rejected."""
    keys = [task.experiment.csv_key(split) for split in task.experiment.splits]
    return {"csvs": [cached("csv", key, name) for key in keys for name in ("prepared.csv", "rejected.csv")]}


# ---- stages --------------------------------------------------------------------------------------
def of_stage(task: Task) -> Files:
    """Backbones, CSVs, views, and the weights of the stage before it."""
    (experiment,), stage = task.experiments, task.node.name.removeprefix("train_")
    found, before = _backbones(task.document), task.document["upstream"]
    for split in ("train", "val"):
        found[f"{split}_csv"] = cached("csv", before[f"prepare_{split}"], "prepared.csv")
        found[f"{split}_views"] = cached("views", before[f"views_{split}"], "index.json")
    if previous := previous_stage(experiment, stage):
        folder = experiment.names.stage_dir(previous)
        found |= {"init": f"{folder}/best.ckpt", "init_metadata": f"{folder}/checkpoint_metadata.json"}
    return found


def of_stage_state(task: Task) -> Files:
    """The metadata of all stages."""
    stages = task.experiment.settings.training.stages
    return {"stages": [stage_file(task.experiment, stage, "checkpoint_metadata.json") for stage in stages]}


def of_selection(task: Task) -> Files:
    """The last stage's best checkpoint and its metadata; where nothing is trained, the model that the DAG builds."""
    stage = last_stage(task.experiment)
    if stage is None:
        return _backbones(task.document)
    return {
        "best": stage_file(task.experiment, stage, "best.ckpt"),
        "metadata": stage_file(task.experiment, stage, "checkpoint_metadata.json"),
    }


# ---- evaluation ----------------------------------------------------------------------------------
def of_prediction(task: Task) -> Files:
    """Of all jobs that ask the model about the test set; where shards have asked it, their answers too."""
    found, shards = dict(of_shard(task)), task.experiment.settings.evaluation.shards
    if shards > 1 and task.node.name in SHARDED:
        names = task.experiment.names
        found["shards"] = [
            f"{names.results}/shards/{task.node.name}_{number}-of-{shards}.json" for number in range(1, shards + 1)
        ]
    return found


def of_shard(task: Task) -> Files:
    """Model, questions and views."""
    experiment, stage = task.experiment, last_stage(task.experiment)
    found = {
        "checkpoint": experiment.names.checkpoint_json,
        # The weights that checkpoint.json names. If they are gone, the stage is trained again.
        **({"best": ancient(stage_file(experiment, stage, "best.ckpt"))} if stage else {}),
        "csv": cached("csv", experiment.csv_key("test"), "prepared.csv"),
        "views": cached("views", experiment.views_key("test"), "index.json"),
        **_backbones(experiment.slice_of(f"train_{stage}" if stage else "select_checkpoint")),
    }
    drawn = experiment.slice_of("prepare_test")["upstream"].get("synthetic")
    if drawn and task.node.opens_pictures:
        found["scenes"] = cached("synthetic", drawn, "scenes.json")
    return found


def of_judge(task: Task) -> Files:
    """The answers and those of the controls, and the judge where the DAG builds it."""
    return {**_answers(task.experiment), **_backbones(task.document)}


def _answers(experiment: WorkflowConfig) -> dict[str, str]:
    """The predictions and their controls, as far as they are planned."""
    names = experiment.names
    found = {"predictions": names.predictions}
    if experiment.settings.evaluation.blind_control:
        found["blind"] = names.result("predict_blind")
    if wants_text_only(experiment):
        found["text_only"] = names.result("predict_text_only")
    return found


def of_metrics(task: Task) -> Files:
    """Answers, blind answers, further scores; and what shall be there beside metrics.json."""
    names, evaluation = task.experiment.names, task.experiment.settings.evaluation
    found = {
        **_answers(task.experiment),
        "checkpoint": names.checkpoint_json,
        "state": ancient(names.stage_state),
        "prepared": ancient(names.rejected),
    }
    if evaluation.judge.model is not None:
        found["judge"] = names.result("judge")
    return found | {node: names.result(node) for node in measures_of(evaluation.extra)}


# ---- several experiments -------------------------------------------------------------------------
def of_comparison(task: Task) -> Files:
    """Scores and answers of the experiments."""
    names = [experiment.names for experiment in task.experiments]
    return {"metrics": [one.metrics for one in names], "predictions": [one.predictions for one in names]}


def of_ablation(task: Task) -> Files:
    """Scores and stage states of each cell."""
    names = [cell.names for cell in task.experiments]
    return {"metrics": [one.metrics for one in names], "states": [one.stage_state for one in names]}
