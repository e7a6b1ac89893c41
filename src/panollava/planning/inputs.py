"""The files that each rule waits for, in the order of the DAG.

An experiment (or a key of the shared cache) and what is there already enter; paths leave, by name where the rule names
its inputs. A file of the shared cache is `ancient`: its content follows from its key, so its age says nothing. A job
whose results are current waits only for what exists (`Presence.inputs_if`).
"""

from __future__ import annotations

from typing import Any

from snakemake.io import ancient

from panollava.config import Project, WorkflowConfig
from panollava.config.build_slice import last_stage
from panollava.config.job_options import (
    CACHE,
    SPLITS,
    miniature_folders,
    prepared_slice,
    previous_stage,
    source_csvs,
    stage_state_slice,
)
from panollava.config.slices import measures_of
from panollava.evaluation.ablation import summary_slice
from panollava.evaluation.comparison import comparison_slice
from panollava.files import canonical_json
from panollava.planning.presence import Presence, all_there

PREDICTIONS = {"predict": "predictions.csv", "predict_blind": "predictions_blind.csv"}
"""Nodes that answer the test set, and their files below `results/{experiment}`."""

_OPENS_PANORAMAS = ("predict_rolled", "measure_overlap")  # from the pictures, not from the cache of views


def cached(kind: str, key: str, name: str) -> str:
    """A file of the shared cache."""
    return ancient(f"{CACHE}/{kind}/{key}/{name}")


def stage_file(experiment: WorkflowConfig, stage: str, name: str) -> str:
    return f"{experiment.names.stage_dir(stage)}/{name}"


def _backbones(slice_document: dict[str, Any]) -> dict[str, str]:
    """`vision` and `language`: the weights of the miniature backbones that a slice builds upon."""
    folders = miniature_folders(slice_document)
    return {part: ancient(f"{folder}/model.safetensors") for part, folder in folders.items()}


# ---- data ----------------------------------------------------------------------------------------
def of_csv(project: Project, key: str, present: Presence) -> list[str]:
    """`prepare_csv`: drawn CSVs, or the user's (whose content is in the slice)."""
    found = [ancient(path) for path in source_csvs(project.slice_by_key("csv", key))]
    folder = f"{CACHE}/csv/{key}"
    return present.inputs_if(all_there(f"{folder}/prepared.csv", f"{folder}/rejected.csv"), found)


def of_views(project: Project, key: str, present: Presence) -> dict[str, str]:
    """`cache_views`: the prepared CSV, its pictures where they are drawn, and the encoder where it says their size."""
    document = project.slice_by_key("views", key)
    csv_key = document["upstream"]["prepare"]
    found = {"csv": cached("csv", csv_key, "prepared.csv"), **_backbones(document)}
    drawn = project.slice_by_key("csv", csv_key)["upstream"].get("synthetic")
    if drawn:
        found["scenes"] = cached("synthetic", drawn, "scenes.json")
    folder = f"{CACHE}/views/{key}"
    return present.inputs_if(all_there(f"{folder}/views.npy", f"{folder}/index.json"), found)


def of_prepared(experiment: WorkflowConfig, present: Presence) -> list[str]:
    """`prepare_experiment`: the prepared CSVs of the three splits, and what they rejected."""
    names = experiment.names
    found = [
        cached("csv", experiment.csv_key(split), name) for split in SPLITS for name in ("prepared.csv", "rejected.csv")
    ]
    current = present.is_current(names.rejected, canonical_json(prepared_slice(experiment)))
    return present.inputs_if(current and all_there(*(names.prepared(split) for split in SPLITS)), found)


# ---- stages --------------------------------------------------------------------------------------
def of_stage(experiment: WorkflowConfig, present: Presence, stage: str) -> dict[str, str]:
    """`train_{stage}`: backbones, CSVs, views, and the weights of the stage before it."""
    previous = previous_stage(experiment, stage)
    found = _backbones(experiment.slice_of(f"train_{stage}"))
    for split in ("train", "val"):
        found[f"{split}_csv"] = cached("csv", experiment.csv_key(split, stage), "prepared.csv")
        found[f"{split}_views"] = cached("views", experiment.views_key(split, stage), "index.json")
    if previous:
        found["init"] = stage_file(experiment, previous, "best.ckpt")
        found["init_metadata"] = stage_file(experiment, previous, "checkpoint_metadata.json")
    return present.inputs_if(present.is_current_stage(experiment, stage), found)


def of_stage_state(experiment: WorkflowConfig, present: Presence) -> list[str]:
    """`write_stage_state`: the metadata of all stages."""
    present.is_current(experiment.names.stage_state, canonical_json(stage_state_slice(experiment)))
    stages = experiment.settings.training.stages
    return [stage_file(experiment, stage, "checkpoint_metadata.json") for stage in stages]


def of_selection(experiment: WorkflowConfig, present: Presence) -> dict[str, str]:
    """`select_checkpoint`: the last stage's best checkpoint and its metadata."""
    stage = last_stage(experiment)
    present.is_current(experiment.names.checkpoint_json, experiment.slice_json("select_checkpoint"))
    return {
        "best": stage_file(experiment, stage, "best.ckpt"),
        "metadata": stage_file(experiment, stage, "checkpoint_metadata.json"),
    }


# ---- evaluation ----------------------------------------------------------------------------------
def of_prediction(experiment: WorkflowConfig, present: Presence, node: str) -> dict[str, str]:
    """`predict`, `predict_blind` and the nodes of `evaluation.extra`: all that ask the model about the test set."""
    names, stage = experiment.names, last_stage(experiment)
    found = {
        "checkpoint": names.checkpoint_json,
        # The weights that checkpoint.json names. If they are gone, the stage is trained again.
        "best": ancient(stage_file(experiment, stage, "best.ckpt")),
        "csv": cached("csv", experiment.csv_key("test"), "prepared.csv"),
        "views": cached("views", experiment.views_key("test"), "index.json"),
        **_backbones(experiment.slice_of(f"train_{stage}")),
    }
    drawn = experiment.slice_of("prepare_test")["upstream"].get("synthetic")
    if drawn and node in _OPENS_PANORAMAS:
        found["scenes"] = cached("synthetic", drawn, "scenes.json")
    results = _results_of(experiment, node)
    current = [
        present.is_current(results[0], experiment.slice_json(node)),
        all_there(*results),
        present.is_current(names.checkpoint_json, experiment.slice_json("select_checkpoint")),
        present.is_current_stage(experiment, stage),
    ]
    return present.inputs_if(all(current), found)


def _results_of(experiment: WorkflowConfig, node: str) -> list[str]:
    """The files of a node that asks the model; the first one says by which configuration."""
    names = experiment.names
    if node in PREDICTIONS:
        return [f"{names.results}/{PREDICTIONS[node]}"]
    plot = [f"{names.results}/measures/overlap.png"] if node == "measure_overlap" else []
    return [names.measured(node), *plot]


def of_metrics(experiment: WorkflowConfig, present: Presence) -> dict[str, str]:
    """`compute_metrics`: answers, blind answers, further scores; and what shall be there beside metrics.json."""
    names = experiment.names
    found = {
        "predictions": names.predictions,
        "checkpoint": names.checkpoint_json,
        "state": ancient(names.stage_state),
        "prepared": ancient(names.rejected),
    }
    if experiment.settings.evaluation.blind_control:
        found["blind"] = f"{names.results}/{PREDICTIONS['predict_blind']}"
    found |= {node: names.measured(node) for node in measures_of(experiment.settings.evaluation.extra)}
    return present.inputs_if(present.is_current(names.metrics, experiment.slice_json("metrics")), found)


# ---- several experiments -------------------------------------------------------------------------
def of_comparison(project: Project, present: Presence) -> dict[str, list[str]]:
    """`compare`: scores and answers of the experiments that default.yaml lists."""
    experiments = default_experiments(project)
    present.is_current(f"{project.paths.results_dir}/comparison.csv", canonical_json(comparison_slice(experiments)))
    names = [experiment.names for experiment in experiments]
    return {"metrics": [one.metrics for one in names], "predictions": [one.predictions for one in names]}


def of_ablation(project: Project, name: str, present: Presence) -> dict[str, list[str]]:
    """`compare_ablation`: scores and stage states of each cell."""
    ablation = project.ablation(name)
    cells = project.cells(ablation)
    summary = f"{project.paths.results_dir}/ablations/{name}/summary.csv"
    present.is_current(summary, canonical_json(summary_slice(ablation, cells)))
    names = [cell.names for cell in cells]
    return {"metrics": [one.metrics for one in names], "states": [one.stage_state for one in names]}


def of_all(project: Project) -> list[str]:
    """`all`: metrics and stage state of the experiments that default.yaml lists."""
    names = [experiment.names for experiment in default_experiments(project)]
    return [path for one in names for path in (one.metrics, one.stage_state)]


def default_experiments(project: Project) -> list[WorkflowConfig]:
    return [project.experiment(name) for name in project.default_experiments]
