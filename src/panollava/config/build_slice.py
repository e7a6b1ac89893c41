"""What a node of the DAG depends on, as one document: the reason why exactly the stale parts run again.

An experiment's configuration and a node's name enter; a slice leaves:

    {"node", "code_version",
     "config":   the settings that this node reads, nested as in the configuration,
     "inputs":   fingerprints of the files from outside the DAG that it reads,
     "upstream": {node: digest of its slice}}

Slices are cumulative through `upstream`: a failed or killed stage cannot hide behind an older result. A job gets
nothing but its slice, so a slice holds every setting that the job needs, and none that it does not read. Settings
that another one switches off stand in it with their default (`effective`). Nodes of the shared caches (synthetic,
miniature_*, prepare, views) know no experiment and no split: equal content, equal key.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.dotted import set_at, value_at
from panollava.config.fingerprints import file_fingerprint, folder_fingerprint
from panollava.config.own_code import code_digest
from panollava.config.schema import MINIATURE_LANGUAGE, MINIATURE_VISION, SYNTHETIC
from panollava.config.slices import CODE_VERSION, NEUTRAL, NODES, READS, measures_of, node_kind
from panollava.errors import ConfigError

if TYPE_CHECKING:
    from panollava.config.workflow_config import WorkflowConfig


def build_slice(cfg: WorkflowConfig, node: str, stage: str | None = None) -> dict[str, Any]:
    """The slice of `node`; `stage` only for prepare and views nodes of a stage with data of its own.

    Raises ConfigError for a CSV that does not exist and for a stage that the experiment does not train.
    """
    if node not in NODES:
        raise ConfigError(f"{node} is not a node of the DAG; nodes are {', '.join(NODES)}")
    kind = node_kind(node)
    if kind.startswith("train_") and kind.removeprefix("train_") not in cfg.settings.training.stages:
        raise ConfigError(
            f"experiment {cfg.names.experiment} does not train the stage {kind.removeprefix('train_')}: "
            f"training.stages is [{', '.join(cfg.settings.training.stages)}]"
        )
    keys = READS[kind]
    if kind == "views" and cfg.settings.image_processing.image_size is None:
        keys += ("models.vision_name", "models.trust_remote_code")  # the job asks the model for its size
    config: dict[str, Any] = {}
    for key in keys:
        if key in NEUTRAL and value_at(cfg.effective, key) == NEUTRAL[key]:
            continue
        set_at(config, key, deepcopy(value_at(cfg.effective, key)))
    if kind == "prepare":
        config["data"]["columns"] = {name: to for name, to in config["data"]["columns"].items() if to is not None}
    inputs, upstream = _PARENTS[kind](cfg, node, stage)
    return {
        "node": kind,
        "code_version": CODE_VERSION[kind],
        "config": config,
        "inputs": inputs,
        "upstream": {_label(kind, parent): cfg.digest(parent, for_stage) for parent, for_stage in upstream},
    }


def _label(kind: str, parent: str) -> str:
    """A parent's name in a slice. Views of one CSV are the same whichever split it serves."""
    return node_kind(parent) if kind == "views" else parent


def last_stage(cfg: WorkflowConfig) -> str:
    """The stage that answers."""
    return cfg.settings.training.stages[-1]


Parents = tuple[dict[str, Any], list[tuple[str, str | None]]]


def _none(cfg: WorkflowConfig, node: str, stage: str | None) -> Parents:
    return {}, []


def _of_prepare(cfg: WorkflowConfig, node: str, stage: str | None) -> Parents:
    split = node.removeprefix("prepare_")
    csvs = cfg.csvs(split, stage)
    if csvs == [SYNTHETIC]:
        # Without a test CSV the validation split is tested.
        drawn = "val" if split == "test" and cfg.settings.data.csv_test is None else split
        return {"csvs": [{"path": SYNTHETIC, "split": drawn}]}, [("synthetic", None)]
    key = f"data.csv_{split}" if stage is None else f"training.stage_configs.{stage}.data.csv_{split}"
    return {"csvs": [cfg.fingerprint_of_csv(path, key) for path in csvs]}, []


def _of_views(cfg: WorkflowConfig, node: str, stage: str | None) -> Parents:
    split = node.removeprefix("views_")
    inputs: dict[str, Any] = {}
    upstream: list[tuple[str, str | None]] = [(f"prepare_{split}", stage)]
    if cfg.settings.image_processing.image_size is None:
        _add_backbone(cfg, "vision", inputs, upstream)
    return inputs, upstream


def _of_train(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    stage = node.removeprefix("train_")
    inputs: dict[str, Any] = {}
    upstream: list[tuple[str, str | None]] = [
        (name, stage) for name in ("prepare_train", "prepare_val", "views_train", "views_val")
    ]
    for part in ("vision",) if stage == "vision" else ("vision", "language"):
        _add_backbone(cfg, part, inputs, upstream)
    stages = cfg.settings.training.stages
    before = stages[: stages.index(stage)]  # type: ignore[arg-type]
    upstream += [(f"train_{before[-1]}", None)] if before else []
    if not before and (init := cfg.effective["training"]["init_checkpoint"]) is not None:
        inputs["init_checkpoint"] = file_fingerprint(init, cfg.root, key="training.init_checkpoint")
    return inputs, upstream


def _of_selection(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    return {}, [(f"train_{last_stage(cfg)}", None)]


def _of_prediction(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    return {}, [("select_checkpoint", None), ("prepare_test", None), ("views_test", None)]


def _of_metrics(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    inputs = dict(cfg.slice_of("prepare_test")["inputs"])
    code = {
        metric: found
        for metric in cfg.settings.evaluation.custom_metrics
        if (found := code_digest(metric, cfg.root)) is not None
    }
    if code:
        inputs["custom_metrics"] = code
    blind = [("predict_blind", None)] if cfg.settings.evaluation.blind_control else []
    measured: list[tuple[str, str | None]] = [(measure, None) for measure in measures_of(cfg.settings.evaluation.extra)]
    return inputs, [("predict", None), *blind, *measured]


_PARENTS: dict[str, Callable[[WorkflowConfig, str, str | None], Parents]] = {
    "synthetic": _none,
    "miniature_vision": _none,
    "miniature_language": _none,
    "prepare": _of_prepare,
    "views": _of_views,
    **dict.fromkeys(("train_vision", "train_resampler", "train_finetune"), _of_train),
    "select_checkpoint": _of_selection,
    "predict": _of_prediction,
    "predict_blind": _of_prediction,
    "predict_rolled": _of_prediction,
    "measure_perplexity": _of_prediction,
    "measure_overlap": _of_prediction,
    "metrics": _of_metrics,
}


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def backbone_folder(cfg: WorkflowConfig, part: str) -> str | None:
    """The local folder of a backbone: one that the DAG builds, one that the user gave; None for a hub id."""
    name = getattr(cfg.settings.models, "vision_name" if part == "vision" else "language_model_name")
    if name in (MINIATURE_VISION, MINIATURE_LANGUAGE):
        return f"cache/miniature/{part}/{cfg.digest(f'miniature_{part}')}"
    return Path(name).as_posix() if (cfg.root / name).is_dir() else None


def _add_backbone(
    cfg: WorkflowConfig, part: str, inputs: dict[str, Any], upstream: list[tuple[str, str | None]]
) -> None:
    name = getattr(cfg.settings.models, "vision_name" if part == "vision" else "language_model_name")
    if name in (MINIATURE_VISION, MINIATURE_LANGUAGE):
        upstream.append((f"miniature_{part}", None))
    elif (cfg.root / name).is_dir():
        inputs[f"{part}_folder"] = folder_fingerprint(name, cfg.root)
    elif not _HUB_ID.fullmatch(name):
        key = "vision_name" if part == "vision" else "language_model_name"
        source = f"{cfg.source}: " if cfg.source else ""
        raise ConfigError(f"{source}models.{key} must be a hub id (owner/name) or a folder that exists, got {name!r}")
