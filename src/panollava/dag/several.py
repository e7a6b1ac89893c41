"""Slices of nodes that read no settings: they gather what others made, of one experiment or of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from panollava.config.dotted import value_at
from panollava.dag.node import CACHE

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig
    from panollava.config.ablations import Ablation


def prepared_slice(experiment: WorkflowConfig) -> dict[str, Any]:
    """Of `prepare_experiment`, which gathers the prepared CSVs of the splits."""
    folders = {split: f"{CACHE}/csv/{experiment.csv_key(split)}" for split in experiment.splits}
    return {"node": "prepare_experiment", "inputs": folders}


def stage_state_slice(experiment: WorkflowConfig) -> dict[str, Any]:
    """Of `write_stage_state`."""
    nodes = [f"train_{stage}" for stage in experiment.settings.training.stages]
    return {"node": "stage_state", "upstream": {node: experiment.digest(node) for node in nodes}}


def shard_slice(experiment: WorkflowConfig, node: str, shard: str) -> dict[str, Any]:
    """Of one of the jobs that share the answers of `node` (`predict`, `predict_blind`, …); `shard` is `2-of-4`.

    `answers` is the digest of the whole, which the shard is a part of.
    """
    whole = experiment.slice_of(node)
    return {
        "node": "predict_shard", "of": node, "shard": shard, "answers": experiment.digest(node),
        "config": whole["config"], "upstream": whole["upstream"],
    }  # fmt: skip


def comparison_slice(code_version: int | None, experiments: Sequence[WorkflowConfig]) -> dict[str, Any]:
    """What the comparison depends on: the digest of each experiment's metrics."""
    upstream = {one.names.experiment: one.digest("metrics") for one in experiments}
    return {"node": "compare", "code_version": code_version, "upstream": upstream}


def summary_slice(code_version: int | None, ablation: Ablation, configs: Sequence[WorkflowConfig]) -> dict[str, Any]:
    """What an ablation's table depends on: the cells, in what they differ, and the digest of each one's metrics."""
    settings = differing_settings(ablation, configs)
    return {
        "node": "compare_ablation",
        "code_version": code_version,
        "name": ablation.name,
        "settings": list(settings[0]),  # canonical JSON sorts keys, and the columns keep the file's order
        "cells": [
            {"experiment": config.names.experiment, "values": list(own.values()), "metrics": config.digest("metrics")}
            for config, own in zip(configs, settings, strict=True)
        ],
    }


def differing_settings(ablation: Ablation, configs: Sequence[WorkflowConfig]) -> list[dict[str, Any]]:
    """Each cell's values of the settings in which cells differ (of all varied ones, where there is one cell)."""
    documents = [config.to_dict() for config in configs]
    found: list[dict[str, Any]] = [{} for _ in configs]
    columns = {"model": [cell.model for cell in ablation.cells]}
    columns |= {key: [value_at(document, key) for document in documents] for key in ablation.varied}
    for name, values in columns.items():
        if any(value != values[0] for value in values) or (len(configs) == 1 and name != "model"):
            for own, value in zip(found, values, strict=True):
                own[name] = value
    return found
