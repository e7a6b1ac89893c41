"""What a slice holds beside settings: fingerprints of files from outside the DAG, and the nodes before.

Each function is given an experiment, a node's name and (for data) a stage, and returns `Parents`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.dotted import copy_values
from panollava.config.encoder_check import check_encoder_folder
from panollava.config.fingerprints import file_fingerprint, folder_fingerprint
from panollava.config.language_folder import language_folder_problem
from panollava.config.own_code import code_digest
from panollava.config.schema import MINIATURE_LANGUAGE, MINIATURE_VISION, MINIATURE_VLM, SYNTHETIC
from panollava.dag.native_check import check_native
from panollava.dag.node import CACHE, Parent, Parents
from panollava.dag.settings import ZERO_SHOT
from panollava.errors import ConfigError
from panollava.evaluation.judging.prompt import JudgePrompt
from panollava.evaluation.measures import measures_of
from panollava.trust import HUB_ID

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


def last_stage(cfg: WorkflowConfig) -> str | None:
    """The stage that answers; None where a native model answers as it comes (zero-shot)."""
    stages = cfg.settings.training.stages
    return stages[-1] if stages else None


def previous_stage(cfg: WorkflowConfig, stage: str) -> str | None:
    """The stage whose weights `stage` starts from. Raises ConfigError where the experiment does not train `stage`."""
    stages: list[str] = list(cfg.settings.training.stages)
    if stage not in stages:
        raise ConfigError(
            f"experiment {cfg.names.experiment} does not train the stage {stage}: training.stages is "
            f"[{', '.join(stages)}]"
        )
    place = stages.index(stage)
    return stages[place - 1] if place else None


# ---- data ----------------------------------------------------------------------------------------
def of_prepare(cfg: WorkflowConfig, node: str, stage: str | None) -> Parents:
    split = node.removeprefix("prepare_")
    csvs = cfg.csvs_by_stage[split, stage]
    if csvs == [SYNTHETIC]:
        # Without a test CSV the validation split is tested.
        drawn = "val" if split == "test" and cfg.settings.data.csv_test is None else split
        return {"csvs": [{"path": SYNTHETIC, "split": drawn}]}, [("synthetic", None)]
    key = f"data.csv_{split}" if stage is None else f"training.stage_configs.{stage}.data.csv_{split}"
    if not cfg.settings.training.stages and split != "test":
        key += " (null where nothing is trained)"
    return {"csvs": [cfg.fingerprint_of_csv(path, key) for path in csvs]}, []


def of_views(cfg: WorkflowConfig, node: str, stage: str | None) -> Parents:
    split = node.removeprefix("views_")
    inputs: dict[str, Any] = {}
    upstream: list[Parent] = [(f"prepare_{split}", stage)]
    if cfg.settings.image_processing.image_size is None:
        _add_backbone(cfg, "vision" if cfg.settings.models.vlm_name is None else "vlm", inputs, upstream)
    return inputs, upstream


def name_instruction(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """The miniature language model learns questions with right answers as they are asked: with the kind of answer that
    is wanted, or without."""
    if cfg.settings.data.synthetic.question_types != ["text"] and not cfg.settings.evaluation.answer_instruction:
        copy_values(cfg.effective, config, ["evaluation.answer_instruction"])


def name_given_columns(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """Columns that are found by their usual names are not part of the slice of `prepare`."""
    config["data"]["columns"] = {name: to for name, to in config["data"]["columns"].items() if to is not None}


def name_encoder(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """Without an image size the job of `views` asks the encoder for it."""
    if cfg.settings.image_processing.image_size is None:
        native = cfg.settings.models.vlm_name is not None
        names = ("vlm_name" if native else "vision_name", "trust_remote_code")
        config["models"] = {name: cfg.effective["models"][name] for name in names}


def of_prepared(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    return {}, [(f"prepare_{split}", None) for split in cfg.splits]


# ---- stages --------------------------------------------------------------------------------------
def of_stage(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    stage = node.removeprefix("train_")
    inputs: dict[str, Any] = {}
    upstream: list[Parent] = [(name, stage) for name in ("prepare_train", "prepare_val", "views_train", "views_val")]
    for part in cfg.backbones[stage]:
        _add_backbone(cfg, part, inputs, upstream)
    if before := previous_stage(cfg, stage):
        upstream.append((f"train_{before}", None))
    elif (init := cfg.effective["training"]["init_checkpoint"]) is not None:
        inputs["init_checkpoint"] = file_fingerprint(init, cfg.root, key="training.init_checkpoint")
    return inputs, upstream


def of_all_stages(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    return {}, [(f"train_{stage}", None) for stage in cfg.settings.training.stages]


def of_selection(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    """The last stage; of a model that answers as it comes, the model."""
    if stage := last_stage(cfg):
        return {}, [(f"train_{stage}", None)]
    inputs: dict[str, Any] = {}
    upstream: list[Parent] = []
    for part in cfg.backbones["finetune"]:
        _add_backbone(cfg, part, inputs, upstream)
    return inputs, upstream


def name_model(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """Of a model that answers as it comes, what it is built from: no stage's slice says so."""
    if last_stage(cfg) is None:
        copy_values(cfg.effective, config, ZERO_SHOT)


def name_adapters(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """The vision stage of a native model trains adapters, which the stage behind it holds; composed ones know none."""
    if cfg.settings.models.vlm_name is not None and "vision" in cfg.settings.training.stages:
        config["lora"] = dict(cfg.effective["lora"])


def without_overlap_loss(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """How much of a view must be covered counts in finetune only beside an overlap loss."""
    if not cfg.settings.training.stage_configs.finetune.overlap_loss_weight:
        config["image_processing"].pop("min_coverage", None)


# ---- evaluation ----------------------------------------------------------------------------------
def of_prediction(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    return {}, [("select_checkpoint", None), ("prepare_test", None), ("views_test", None)]


def wants_text_only(cfg: WorkflowConfig) -> bool:
    """Whether the test set is answered without pictures too: with `auto` where it has questions with right answers."""
    wanted = cfg.settings.evaluation.text_only_control
    if wanted != "auto":
        return wanted
    csvs = cfg.slice_of("prepare_test")["inputs"]["csvs"]
    if any("sha256" not in one for one in csvs):  # drawn
        return set(cfg.settings.data.synthetic.question_types) != {"text"}
    return any({"answer_type", "options", "scoring"} & set(one.get("details", ())) for one in csvs)


def _answers(cfg: WorkflowConfig) -> list[Parent]:
    """The nodes that answer the test set: with its pictures, with shuffled ones, without any."""
    blind: list[Parent] = [("predict_blind", None)] if cfg.settings.evaluation.blind_control else []
    text_only: list[Parent] = [("predict_text_only", None)] if wants_text_only(cfg) else []
    return [("predict", None), *blind, *text_only]


def of_judge(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    """The answers; the prompt and the judges' weights, as far as they are files of this machine."""
    judge = cfg.settings.evaluation.judge
    inputs: dict[str, Any] = {"prompt": _prompt(cfg)}
    upstream = _answers(cfg)
    for key, name in (("judge.model", judge.model), ("judge.second_model", judge.second_model)):
        if name == MINIATURE_LANGUAGE:
            upstream.append(("miniature_language", None))
        elif name is not None and (cfg.root / name).is_dir():
            if (problem := language_folder_problem(cfg.root / name)) is not None:
                raise ConfigError(f"{_source(cfg)}evaluation.{key}: {name} {problem}")
            inputs[key] = folder_fingerprint(name, cfg.root)
        elif name is not None and not HUB_ID.fullmatch(name):
            raise ConfigError(
                f"{_source(cfg)}evaluation.{key} must be a hub id (owner/name) or a folder that exists, got {name!r}"
            )
    return inputs, upstream


def _prompt(cfg: WorkflowConfig) -> dict[str, Any]:
    judge = cfg.settings.evaluation.judge
    path = judge.prompt_file
    if path is None or judge.model is None:  # without a judge only status asks, and the file may not be there
        return {"path": None, "sha256": JudgePrompt.read().sha256}
    found = file_fingerprint(path, cfg.root, key="evaluation.judge.prompt_file")
    JudgePrompt.read(cfg.root / path)  # what it lacks is reported before anything is predicted
    return found


def name_protocol(cfg: WorkflowConfig, config: dict[str, Any]) -> None:
    """Which answers are judged beside which references: a setting of `metrics`, which the judge needs too."""
    copy_values(cfg.effective, config, ["evaluation.protocol"])


def of_metrics(cfg: WorkflowConfig, node: str, _: str | None) -> Parents:
    inputs = dict(cfg.slice_of("prepare_test")["inputs"])
    code = {
        metric: found
        for metric in cfg.settings.evaluation.custom_metrics
        if (found := code_digest(metric, cfg.root)) is not None
    }
    if code:
        inputs["custom_metrics"] = code
    judge: list[Parent] = [("judge", None)] if cfg.settings.evaluation.judge.model is not None else []
    measured: list[Parent] = [(measure, None) for measure in measures_of(cfg.settings.evaluation.extra)]
    return inputs, [*_answers(cfg), *judge, *measured]


# ---- backbones -----------------------------------------------------------------------------------
_NAMES = {"vision": "vision_name", "language": "language_model_name", "vlm": "vlm_name", "adapter": "adapter"}
_MINIATURES = (MINIATURE_VISION, MINIATURE_LANGUAGE, MINIATURE_VLM)


def backbone_folder(cfg: WorkflowConfig, part: str) -> str | None:
    """The local folder of a backbone: one that the DAG builds, one that the user gave; None for a hub id."""
    name = getattr(cfg.settings.models, _NAMES[part])
    if name is None:
        return None
    if name in _MINIATURES:
        return f"{CACHE}/miniature/{part}/{cfg.slices.digest(f'miniature_{part}')}"
    return Path(name).as_posix() if (cfg.root / name).is_dir() else None


def _add_backbone(cfg: WorkflowConfig, part: str, inputs: dict[str, Any], upstream: list[Parent]) -> None:
    name = getattr(cfg.settings.models, _NAMES[part])
    if part == "vlm":
        check_native(cfg, None if name in _MINIATURES else backbone_folder(cfg, part))
    if name in _MINIATURES:
        upstream.append((f"miniature_{part}", None))
    elif (cfg.root / name).is_dir():
        if part == "vision":
            check_encoder_folder(cfg)
        elif part == "language" and (problem := language_folder_problem(cfg.root / name)) is not None:
            raise ConfigError(f"{_source(cfg)}models.language_model_name: {name} {problem}")
        inputs[f"{part}_folder"] = folder_fingerprint(name, cfg.root)
    elif not HUB_ID.fullmatch(name):
        raise ConfigError(
            f"{_source(cfg)}models.{_NAMES[part]} must be a hub id (owner/name) or a folder that exists, got {name!r}"
        )


def _source(cfg: WorkflowConfig) -> str:
    return f"{cfg.source}: " if cfg.source else ""
