"""Every name and path of an experiment, from its settings: the only place that composes them (SPEC 2).

The paths of `ExperimentNames` are posix text, relative to the project's root (or absolute, where `paths.*` is).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath, PurePosixPath
from typing import Any

from panollava.config.schema import NAME_MAX_LENGTH, NAME_PATTERN, Settings
from panollava.errors import ConfigError
from panollava.models.choices import Stage

FALLBACK_NAME = "panovlm_exp"
AUTO = "auto"
NATIVE = "native"
"""Stands in the place of the resampler in the names of a native model."""
SPLITS = ("train", "val", "test")
RESULT_FILES = {
    "predict": "predictions.csv",
    "predict_blind": "predictions_blind.csv",
    "predict_text_only": "predictions_text_only.csv",
    "predict_rolled": "predictions_rolled.csv",
    "measure_perplexity": "measures/perplexity.json",
    "measure_overlap": "measures/overlap.json",
    "judge": "measures/judge.json",
}
"""What each step of an evaluation leaves beside metrics.json, by the node of the DAG."""
OVERLAP_PLOT = "measures/overlap.png"

_SIZE = re.compile(r"\d+(\.\d+)?(x\d+(\.\d+)?)?[bmk]", re.IGNORECASE)
_PURPOSES = {"instruct", "it", "pt", "hf", "chat", "base", "thinking", "mix"}
_VERSION = re.compile(r"v?\d+(\.\d+)*", re.IGNORECASE)
_SIGLIP = re.compile(
    r"(?P<variant>siglip\d*-[a-z0-9-]+?)-patch(?P<patch>\d+)(-(?P<resolution>[a-z0-9]+))?", re.IGNORECASE
)


def token(text: str) -> str:
    """`text` as part of a file name: every character outside [A-Za-z0-9._-] becomes `-`."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def vision_token(vision_name: str, *, patch_and_resolution: bool = False) -> str:
    """`google/siglip2-so400m-patch16-256` -> `siglip2`; with patch and resolution `siglip2-so400m_p16_256`."""
    base = _basename(vision_name)
    if patch_and_resolution and (match := _SIGLIP.match(base)):
        parts = [match["variant"], f"p{match['patch']}", match["resolution"]]
        return token("_".join(part for part in parts if part))
    return token(re.split(r"[-_]", base)[0] or base)


def language_token(language_model_name: str) -> str:
    """Family and version without the size: `Qwen/Qwen2.5-0.5B` -> `Qwen2.5`, `google/gemma-2-2b-it` -> `gemma-2`.

    A bare number counts as a version only directly after the family (`Llama-3.2-1B` -> `Llama-3.2`), a number with
    a `v` anywhere (`Mistral-7B-v0.3` -> `Mistral-v0.3`).
    """
    first, *rest = re.split(r"[-_]", _basename(language_model_name))
    kept = [first]
    leading = True
    for part in rest:
        leading = leading and not _SIZE.fullmatch(part) and _VERSION.fullmatch(part) is not None
        if leading or (part[:1] in "vV" and _VERSION.fullmatch(part)):
            kept.append(part)
    return token("-".join(kept))


def vlm_token(vlm_name: str) -> str:
    """A native model's family and version without size and purpose: `Qwen/Qwen2.5-VL-3B-Instruct` -> `Qwen2.5-VL`.

    What follows the size is left out, and of what precedes it words for a purpose or a format: `google/gemma-3-4b-it`
    -> `gemma-3`, `OpenGVLab/InternVL3_5-1B-HF` -> `InternVL3.5`, `miniature/vlm` -> `vlm`.
    """
    base = re.sub(r"(?<=\d)_(?=\d)", ".", _basename(vlm_name))
    kept: list[str] = []
    for part in base.split("-"):
        if _SIZE.fullmatch(part) and kept:
            break
        if part.lower() not in _PURPOSES or not kept:
            kept.append(part)
    return token("-".join(kept))


def crop_token(crop_strategy: str) -> str:
    return token(crop_strategy.replace("_", "-"))


def dataset_token(dataset_name: str | None, csv_train: str | Sequence[str]) -> str:
    """`quic360`, `train`, `train_plus1` or `synthetic`."""
    if dataset_name:
        return token(dataset_name)
    paths = [csv_train] if isinstance(csv_train, str) else list(csv_train)
    more = f"_plus{len(paths) - 1}" if len(paths) > 1 else ""
    return token(PurePosixPath(paths[0].replace("\\", "/")).stem) + more


def auto_name(
    vision_name: str, language_model_name: str, resampler_type: str, crop_strategy: str, *,
    positional_encoding: bool, siglip_include_patch_res: bool = False,
) -> str:  # fmt: skip
    """`{vision}_{lm}_{resampler}_{crop}` and `_PE`."""
    vision = vision_token(vision_name, patch_and_resolution=siglip_include_patch_res)
    parts = [vision, language_token(language_model_name), token(resampler_type), crop_token(crop_strategy)]
    return "_".join([*parts, *(["PE"] if positional_encoding else [])])


def checkpoint_name(prefix: str, epoch: int, loss: float) -> str:
    """`siglip2_mlp_anyres-e2p_quic360_epoch03_loss0.4523.ckpt`; epochs count from 0."""
    return f"{prefix}_epoch{epoch:02d}_loss{loss:.4f}.ckpt"


def resolve_name(document: Mapping[str, Any]) -> tuple[str, str]:
    """The experiment's name and how it came about: `name`, `auto` or `fallback`.

    `document` is a merged configuration, validated or not: naming 300 experiments must not cost 300 validations.
    Raises ConfigError for a name that cannot be one.
    """
    experiment, models = document["experiment"], document["models"]
    name = experiment["name"]
    if name == AUTO or (name is None and experiment["auto_name"] is True):
        if models.get("vlm_name") is not None:
            crop = crop_token(document["image_processing"]["crop_strategy"])
            return check_name(f"{vlm_token(models['vlm_name'])}_{crop}"), "auto"
        composed = auto_name(
            models["vision_name"],
            models["language_model_name"],
            models["resampler_type"],
            document["image_processing"]["crop_strategy"],
            positional_encoding=models["use_projection_positional_encoding"] is True,
            siglip_include_patch_res=experiment["siglip_include_patch_res"] is True,
        )
        return check_name(composed), "auto"
    return (FALLBACK_NAME, "fallback") if name is None else (check_name(name), "name")


def check_name(name: Any) -> str:
    """`name` itself. Raises ConfigError where it cannot name an experiment."""
    if not isinstance(name, str):
        raise ConfigError(f"experiment.name must be text, got {name!r}. Put it in quotes")
    if len(name) > NAME_MAX_LENGTH or not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"experiment.name must start with a letter or digit, hold only letters, digits, '.', '_' and '-', and have "
            f"at most {NAME_MAX_LENGTH} characters, got {name!r}"
        )
    return name


@dataclass(frozen=True)
class ExperimentNames:
    """Names of one experiment. `datasets` maps each stage to its dataset token; `stages` are those that run."""

    experiment: str
    vision: str
    resampler: str
    crop: str
    datasets: Mapping[str, str]
    stages: tuple[str, ...]
    own_data: frozenset[tuple[str, str]] = frozenset()
    runs_dir: str = "runs"
    results_dir: str = "results"
    logs_dir: str = "logs"

    @classmethod
    def of(
        cls, settings: Settings, experiment: str, csvs: Mapping[Stage, list[str]], own_data: frozenset[tuple[str, str]]
    ) -> ExperimentNames:
        """The names of the experiment called `experiment`; `csvs` are those by which each stage's data is named."""
        models, paths = settings.models, settings.paths
        return cls(
            experiment=experiment,
            vision=vision_token(models.vision_name) if models.vlm_name is None else vlm_token(models.vlm_name),
            resampler=token(models.resampler_type) if models.vlm_name is None else NATIVE,
            crop=crop_token(settings.image_processing.crop_strategy),
            datasets={stage: dataset_token(settings.data.dataset_name, of_stage) for stage, of_stage in csvs.items()},
            stages=tuple(settings.training.stages),
            own_data=own_data,
            runs_dir=PurePath(paths.runs_dir).as_posix(),
            results_dir=PurePath(paths.results_dir).as_posix(),
            logs_dir=PurePath(paths.logs_dir).as_posix(),
        )

    @property
    def variant(self) -> str:
        """`anyres-e2p_mlp`: the folder's name below each stage."""
        return f"{self.crop}_{self.resampler}"

    def stage_dir(self, stage: str) -> str:
        return f"{self.runs_dir}/{self.experiment}/{stage}/{self.variant}"

    def state_dir(self, stage: str) -> str:
        """Undeclared folder of a stage's resumable state."""
        return f"{self.runs_dir}/{self.experiment}/.state/{stage}/{self.variant}"

    def checkpoint_prefix(self, stage: str) -> str:
        """`siglip2_mlp_anyres-e2p_quic360`: what precedes `_epoch…` in a checkpoint's name."""
        return f"{self.vision}_{self.resampler}_{self.crop}_{self.datasets[stage]}"

    def checkpoint_pattern(self, stage: str) -> str:
        """A glob that the stage's checkpoints match."""
        return f"{self.checkpoint_prefix(stage)}_epoch*_loss*.ckpt"

    def wandb_run(self, stage: str, started_at: datetime | None = None) -> str:
        """`{experiment}/{stage}/{vision}_{resampler}_{crop}_{dataset}_{MMDD-HHMM}`; the stamp's form before a start."""
        stamp = started_at.strftime("%m%d-%H%M") if started_at else "MMDD-HHMM"
        return f"{self.experiment}/{stage}/{self.checkpoint_prefix(stage)}_{stamp}"

    def of_job(self, stage: str, started_at: datetime) -> dict[str, str]:
        """What a job that trains a stage calls things by."""
        return {
            "experiment": self.experiment,
            "checkpoint_prefix": self.checkpoint_prefix(stage),
            "dataset_name": self.datasets[stage],
            "wandb_run": self.wandb_run(stage, started_at),
            "logs": self.logs,
        }

    @property
    def stage_state(self) -> str:
        return f"{self.runs_dir}/{self.experiment}_stage_state.json"

    @property
    def results(self) -> str:
        return f"{self.results_dir}/{self.experiment}"

    @property
    def metrics(self) -> str:
        return f"{self.results}/metrics.json"

    @property
    def predictions(self) -> str:
        return self.result("predict")

    def result(self, node: str) -> str:
        """What a step of the evaluation writes: `results/EXP1/predictions.csv` of `predict`."""
        return f"{self.results}/{RESULT_FILES[node]}"

    @property
    def checkpoint_json(self) -> str:
        return f"{self.results}/checkpoint.json"

    def prepared(self, split: str, stage: str | None = None) -> str:
        """The prepared CSV of a split; of a stage with data of its own, that stage's."""
        own = f"{stage}_" if (stage, split) in self.own_data else ""
        return f"{self.results}/prepared/{own}{split}.csv"

    @property
    def rejected(self) -> str:
        return f"{self.results}/prepared/rejected.csv"

    @property
    def logs(self) -> str:
        return f"{self.logs_dir}/{self.experiment}"

    def log(self, rule: str) -> str:
        return f"{self.logs}/{rule}.log"

    def as_json(self) -> dict[str, Any]:
        """The document of `panollava names EXPERIMENT --json` (SPEC 10)."""
        return {
            "experiment": self.experiment,
            "stages": {
                stage: {
                    "dir": self.stage_dir(stage),
                    "checkpoint_pattern": self.checkpoint_pattern(stage),
                    "wandb_run": self.wandb_run(stage),
                }
                for stage in self.stages
            },
            "stage_state": self.stage_state,
            "metrics": self.metrics,
            "predictions": self.predictions,
        }


def _basename(model_name: str) -> str:
    parts = [part for part in re.split(r"[/\\]", model_name) if part not in ("", ".", "..")]
    return parts[-1] if parts else model_name
