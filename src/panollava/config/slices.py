"""What each node of the DAG depends on, as one document: the reason why exactly the stale parts run again.

An experiment's configuration and a node's name enter; a slice leaves:

    {"node", "code_version",
     "config":   the settings that this node reads, nested as in the configuration,
     "inputs":   fingerprints of the files from outside the DAG that it reads,
     "upstream": {node: digest of its slice}}

Slices are cumulative through `upstream`: a failed or killed stage cannot hide behind an older result. A job gets
nothing but its slice, so a slice holds every setting that the job needs, and none that it does not read. Settings
that another one switches off stand in it with their default, so that changing them re-runs nothing. Nodes of the
shared caches (synthetic, miniature_*, prepare, views) know no experiment and no split: equal content, equal key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.fingerprints import file_fingerprint, folder_fingerprint
from panollava.config.schema import (
    MINIATURE_LANGUAGE,
    MINIATURE_VISION,
    RESAMPLER_OPTIONS,
    STAGES,
    SYNTHETIC,
    Settings,
    leaf_keys,
)
from panollava.errors import ConfigError
from panollava.files import canonical_json, digest_of, sha256_file
from panollava.views.strategies import CROP_STRATEGIES, STRATEGY_SETTINGS

if TYPE_CHECKING:
    from panollava.config.workflow_config import WorkflowConfig

__all__ = ["CODE_VERSION", "NODES", "UNTRACKED", "build_slice", "canonical", "digest_of", "earliest_node", "untracked"]

NODES = (
    "synthetic",
    "miniature_vision",
    "miniature_language",
    "prepare_train",
    "prepare_val",
    "prepare_test",
    "views_train",
    "views_val",
    "views_test",
    "train_vision",
    "train_resampler",
    "train_finetune",
    "select_checkpoint",
    "predict",
    "predict_blind",
    "predict_rolled",
    "measure_perplexity",
    "measure_overlap",
    "metrics",
)

EXTRA_NODES = {
    "perplexity": "measure_perplexity",
    "overlap_consistency": "measure_overlap",
    "dino_similarity": "measure_overlap",
    "yaw_equivariance": "predict_rolled",
    "yaw_agreement": "predict_rolled",
}
"""The node behind each score of `evaluation.extra`; without such a score it is not planned."""

CODE_VERSION = {
    "synthetic": 1,
    "miniature_vision": 1,
    "miniature_language": 1,
    "prepare": 2,
    "views": 3,
    "train_vision": 2,
    "train_resampler": 2,
    "train_finetune": 2,
    "select_checkpoint": 1,
    "predict": 1,
    "predict_blind": 1,
    "predict_rolled": 1,
    "measure_perplexity": 1,
    "measure_overlap": 1,
    "metrics": 2,
}
"""Raise a node's number when its code changes the meaning of what it writes: then it runs again everywhere."""

_VIEWS = tuple(
    f"image_processing.{name}"
    for name in ("crop_strategy", "fov_deg", "overlap_ratio", "image_size", "anyres_max_patches", "cubemap_poles",
                 "antialias")
)  # fmt: skip
_MACHINE = ("training.devices", "training.strategy", "training.precision", "training.cpu_threads")
_TRAINING = (*_MACHINE, "training.seed", "training.cache_vision_features")
_VISION = (
    *_VIEWS, "image_processing.use_vision_processor", "models.vision_name", "models.trust_remote_code",
    "models.resampler_type", "models.latent_dimension",
    *(key for key in leaf_keys() if key.startswith(RESAMPLER_OPTIONS)),
)  # fmt: skip
_LANGUAGE = (
    *_VISION, "image_processing.stitching_mode", "models.language_model_name",
    "models.use_projection_positional_encoding", "system_messages.default",
)  # fmt: skip
_LORA = ("lora.rank", "lora.alpha", "lora.dropout", "lora.target_modules", "lora.use_rslora", "lora.use_dora")
_OPTIMISATION = ("epochs", "batch_size", "accumulate_grad_batches", "optimizer", "lr", "muon_lr", "weight_decay",
                 "warmup_ratio", "max_grad_norm", "vision_trainable_blocks")  # fmt: skip
_VICREG_TERMS = ("vicreg_similarity_weight", "vicreg_variance_weight", "vicreg_covariance_weight")
_VICREG = ("vicreg_loss_weight", "vicreg_mode", *_VICREG_TERMS)


def _stage_keys(stage: str, *names: str) -> tuple[str, ...]:
    return tuple(f"training.stage_configs.{stage}.{name}" for name in (*_OPTIMISATION, *names))


READS: dict[str, tuple[str, ...]] = {
    "synthetic": tuple(key for key in leaf_keys() if key.startswith("data.synthetic.")),
    "miniature_vision": tuple(key for key in leaf_keys() if key.startswith("models.miniature.vision.")),
    "miniature_language": tuple(key for key in leaf_keys() if key.startswith("models.miniature.language.")),
    "prepare": (
        "data.columns.image_path", "data.columns.query", "data.columns.annotation", "data.max_rejected_fraction",
    ),
    "views": (*_VIEWS, "image_processing.view_cache"),
    "train_vision": (*_VISION, "models.vicreg_projector_dim", *_TRAINING,
                     *_stage_keys("vision", "max_text_length", "loss", "densecl_temperature", *_VICREG)),
    "train_resampler": (*_LANGUAGE, *_TRAINING, "training.length_bucketing",
                        *_stage_keys("resampler", "max_text_length")),
    "train_finetune": (*_LANGUAGE, *_TRAINING, "training.length_bucketing",
                       *_stage_keys("finetune", "max_text_length"), "lora.use_lora", *_LORA),
    "select_checkpoint": (),
    "predict": ("generation.max_new_tokens", "generation.do_sample", "generation.temperature", "generation.top_p",
                "training.eval_batch_size", "training.seed", *_MACHINE),
    "measure_perplexity": ("training.eval_batch_size", "training.seed", *_MACHINE),
    "measure_overlap": ("training.seed", *_MACHINE),
    "metrics": ("evaluation.metrics", "evaluation.protocol", "evaluation.extra", "evaluation.custom_metrics",
                "evaluation.blind_control", "evaluation.bootstrap_samples"),
}  # fmt: skip
READS["predict_blind"] = READS["predict_rolled"] = READS["predict"]
"""The settings that each node reads, by dotted key."""

THROUGH_INPUTS = {
    "data.csv_train": "prepare_train",
    "data.csv_val": "prepare_val",
    "data.csv_test": "prepare_test",
    **{f"training.stage_configs.{s}.data.csv_train": "prepare_train" for s in STAGES},
    **{f"training.stage_configs.{s}.data.csv_val": "prepare_val" for s in STAGES},
    "training.stages": "train_resampler",
    "training.init_checkpoint": "train_resampler",
}
"""Settings that act through a slice's inputs or its upstream, and the first node that they reach."""

_ONLY_NAMES = "names files and folders only: a new name gives new paths and leaves the old ones alone"
_NO_TEXT = "the vision stage reads no text; kept for files of the original project"
_NO_VICREG = "the overlap loss is the vision stage's; kept for files of the original project"
UNTRACKED: dict[str, str] = {
    "experiment.name": _ONLY_NAMES,
    "experiment.auto_name": _ONLY_NAMES,
    "experiment.siglip_include_patch_res": _ONLY_NAMES,
    "experiment.description": "free text for people",
    "data.dataset_name": "a label in the names of checkpoints; it shows when a stage next trains",
    "paths.runs_dir": "where results lie, not what they are: new paths",
    "paths.results_dir": "where results lie, not what they are: new paths",
    "paths.logs_dir": "where logs lie",
    "paths.image_cache": "where downloads lie; their content is the same",
    "training.num_workers": "who loads the data; the batches are the same",
    "training.gradient_checkpointing": "activations are kept or computed again; the gradients are the same",
    "training.checkpoint_every_n_steps": "how often the resumable state is saved",
    "training.keep_checkpoints": "which files stay; the numbers are the same",
    "training.log_every_n_steps": "how often a line is logged",
    "training.tensorboard": "where curves are shown",
    "training.wandb_project": "where curves are shown",
    "evaluation.spice_heap": "how much memory SPICE's parser may take; the score is the same",
    "workflow.view_caches_gib": "how long old caches stay; the numbers are the same",
    "workflow.experiments": "which experiments are built, not how",
    "training.stage_configs.vision.max_text_length": _NO_TEXT,
    **{f"training.stage_configs.{stage}.{name}": _NO_VICREG for stage in STAGES[1:] for name in _VICREG},
}
"""Settings that change no result, and why. Every setting is either read by a node or stands here (a test proves it)."""


def node_kind(node: str) -> str:
    """The node without its split: `prepare_val` -> `prepare`."""
    return node.split("_")[0] if node.startswith(("prepare_", "views_")) else node


def earliest_node(key: str) -> str | None:
    """The first node that a setting reaches, None where it changes no result. Raises KeyError for an unknown key."""
    if key in UNTRACKED:
        return None
    if key in THROUGH_INPUTS:
        return THROUGH_INPUTS[key]
    for node in NODES:
        if key in READS[node_kind(node)]:
            return node
    raise KeyError(key)


def untracked(cfg: WorkflowConfig) -> dict[str, Any]:
    """What a stage's job needs but what changes no result, for an untracked parameter: some settings of `training`,
    and under `prompt` what decides whether the prompts of all its stages fit the language model (see `models.context`).
    """
    training, models = cfg.settings.training, cfg.settings.models
    names = ("num_workers", "gradient_checkpointing", "checkpoint_every_n_steps", "keep_checkpoints",
             "log_every_n_steps", "tensorboard", "wandb_project")  # fmt: skip
    text = {
        f"training.stage_configs.{stage}.max_text_length": training.stage_configs.of(stage).max_text_length
        for stage in training.stages
        if stage != "vision"
    }
    prompt = {
        "language_model_name": models.language_model_name,
        "language_path": backbone_folder(cfg, "language"),
        "stitching_mode": cfg.settings.image_processing.stitching_mode,
        "system_message": cfg.settings.system_messages.default,
        "text": {**text, "generation.max_new_tokens": cfg.settings.generation.max_new_tokens},
    }
    return {**{name: getattr(training, name) for name in names}, "prompt": prompt}


def canonical(document: Any) -> str:
    return canonical_json(document)


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
        _put(config, key, deepcopy(_get(cfg.effective, key)))
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


def measures_of(cfg: WorkflowConfig) -> list[str]:
    """The nodes that `evaluation.extra` asks for, in the DAG's order."""
    asked = {EXTRA_NODES[key] for key in cfg.settings.evaluation.extra}
    return [node for node in NODES if node in asked]


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
        if (found := _own_code(metric, cfg.root)) is not None
    }
    if code:
        inputs["custom_metrics"] = code
    blind = [("predict_blind", None)] if cfg.settings.evaluation.blind_control else []
    measured: list[tuple[str, str | None]] = [(measure, None) for measure in measures_of(cfg)]
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


def _own_code(metric: str, root: Path) -> str | None:
    """Digest of a user's metric that lies below the root; None for one of an installed package.

    Raises ConfigError where there is neither: better now than after the training.
    """
    module = metric.partition(":")[0].replace(".", "/")
    for file in (root / f"{module}.py", root / module / "__init__.py"):
        if file.is_file():
            return sha256_file(file)
    package = metric.partition(":")[0].partition(".")[0]
    if find_spec(package) is None:
        raise ConfigError(
            f"evaluation.custom_metrics: {metric}: there is no {module}.py in the project's root, and no installed "
            f"package {package}"
        )
    return None


def effective_settings(document: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what is computed filled in, and with what is switched off at its default."""
    images, models = document["image_processing"], document["models"]
    if isinstance(images["image_size"], int):
        images["image_size"] = [images["image_size"]] * 2
    if models["vicreg_projector_dim"] is None:
        models["vicreg_projector_dim"] = models["latent_dimension"]
    for key in _switched_off(document):
        _put(document, key, _get(_DEFAULTS, key))
    return document


def _switched_off(document: dict[str, Any]) -> Iterator[str]:
    strategy = document["image_processing"]["crop_strategy"]
    yield from (f"image_processing.{name}" for name in STRATEGY_SETTINGS if name not in CROP_STRATEGIES[strategy].reads)
    chosen = f"models.{document['models']['resampler_type']}."
    yield from (key for key in leaf_keys() if key.startswith(RESAMPLER_OPTIONS) and not key.startswith(chosen))
    loss = document["training"]["stage_configs"]["vision"]["loss"]
    unread = ("densecl_temperature",) if loss == "vicreg" else _VICREG_TERMS
    yield from (f"training.stage_configs.vision.{name}" for name in unread)
    if not document["generation"]["do_sample"]:
        yield from ("generation.temperature", "generation.top_p")
    if not document["lora"]["use_lora"]:
        yield from _LORA
    for stage, settings in document["training"]["stage_configs"].items():
        if settings["optimizer"] != "muon":
            yield f"training.stage_configs.{stage}.muon_lr"
    if document["training"]["stages"][:1] == ["vision"]:
        yield "training.init_checkpoint"
    yield "training.stage_configs.vision.max_text_length"


_DEFAULTS: dict[str, Any] = Settings().model_dump(mode="json")


def _get(document: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        document = document[name]
    return document


def _put(document: dict[str, Any], key: str, value: Any) -> None:
    *head, last = key.split(".")
    for name in head:
        document = document.setdefault(name, {})
    document[last] = value
