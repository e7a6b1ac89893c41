"""What one run of a stage gets, the configuration of its model, and what is checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from panollava.data.lengths import TextLimits, report_lengths
from panollava.data.samples import read_rows
from panollava.devices import language_dtype
from panollava.errors import CheckpointError
from panollava.logs import LOGGER
from panollava.models.choices import Stage
from panollava.models.config import ModelConfig
from panollava.models.context import check_context, planned_positions, prompt_of
from panollava.models.language_check import check_language_model
from panollava.models.stage_config import native_model_config, stage_model_config


@dataclass(frozen=True)
class StageJob:
    """What one run of a stage gets. All paths are relative to `root`, the project's root, or absolute.

    `slice` is the stage's configuration slice (`dag.slices`), `digest` its digest. `untracked` holds the settings
    that change nothing about the result (`dag.options.untracked`), and `prompt` (see `check_prompt`). `naming` holds
    experiment, checkpoint_prefix, dataset_name, wandb_run and the configured CSVs (train_csv, val_csv, test_csv) for
    the metadata, and `remembered`, the settings of generation and evaluation that an evaluation of the folder alone
    uses. `forced` names the command that asks for the stage anew, whatever state there is; None where none does.
    """

    stage: Stage
    slice: dict[str, Any]
    digest: str
    train_csv: Path
    val_csv: Path
    train_views: Path
    val_views: Path
    stage_folder: Path
    state_folder: Path
    cache: Path
    root: Path
    init_folder: Path | None = None
    init_checkpoint: Path | None = None
    vision_folder: Path | None = None
    language_folder: Path | None = None
    vlm_folder: Path | None = None
    naming: dict[str, Any] = field(default_factory=dict)
    untracked: dict[str, Any] = field(default_factory=dict)
    forced: str | None = None

    @property
    def init_weights(self) -> Path | None:
        """The file that the stage starts from: the previous stage's best, or training.init_checkpoint."""
        return self.init_folder / "best.ckpt" if self.init_folder else self.init_checkpoint

    @property
    def config(self) -> dict[str, Any]:
        return self.slice["config"]

    @property
    def settings(self) -> dict[str, Any]:
        """training.stage_configs.{stage}"""
        return self.config["training"]["stage_configs"][self.stage]


def model_config_of(job: StageJob, image_size: tuple[int, int]) -> ModelConfig:
    """The model's configuration from the slice. The vision stage only names the language model."""
    if job.config["models"].get("vlm_name") is not None:
        return native_model_config(job.stage, job.config, image_size, job.vlm_folder)
    config = stage_model_config(job.stage, job.config, image_size, job.vision_folder, job.language_folder)
    prompt = job.untracked.get("prompt")
    if job.stage != "vision" or prompt is None:
        return config
    return config.changed(language_model_name=prompt["language_model_name"])


def check_prompt(job: StageJob, model_config: ModelConfig) -> None:
    """Refuse images and texts that exceed the language model's context, before anything is loaded or trained.

    Raises ConfigError. The vision stage, which knows no language model, checks for the stages after it where that
    model is at hand, and says which of their answers will be cut.
    """
    prompt = job.untracked.get("prompt")
    if prompt is None:
        return
    if model_config.is_native:
        LOGGER.info(check_context(model_config, prompt["text"]))
        return
    if job.stage == "vision":
        settings = {key: value for key, value in prompt.items() if key not in ("text", "csvs")}
        model_config = model_config.changed(**settings)
        folder = prompt["language_path"]
        if folder is not None and not (job.root / folder).is_dir():
            return  # the DAG builds it meanwhile
    try:
        LOGGER.info(check_context(model_config, prompt["text"]))
        if job.stage == "vision":
            _report_later_texts(job, model_config, prompt)
    except (OSError, CheckpointError):
        if job.stage != "vision":
            raise
        LOGGER.info("%s is not downloaded yet; prompt length is checked when it loads", prompt["language_model_name"])


def _report_later_texts(job: StageJob, model_config: ModelConfig, prompt: dict[str, Any]) -> None:
    """What `check_lengths` has to say of the stages after this one, whose prepared CSVs `prompt` names by the key of
    their `max_text_length`. Those that are prepared later are reported by their own stage.
    """
    for key, csvs in prompt.get("csvs", {}).items():
        limits = TextLimits(key, prompt["text"][key], planned_positions(model_config), model_config.answering_name)
        there = {csv: read_rows(job.root / csv) for csv in csvs if (job.root / csv).is_file()}
        if there:
            report_lengths(prompt_of(model_config), there, limits)


def check_later_language(job: StageJob) -> None:
    """In the vision stage: refuse a language model that the stages after it could not use.

    Raises ConfigError and CheckpointError. One that the DAG builds meanwhile is its own.
    """
    prompt = job.untracked.get("prompt")
    if job.stage != "vision" or job.config["models"].get("vlm_name") is not None:
        return  # a native model is whole in every stage
    if prompt is None or prompt.get("language_model_name") is None:
        return
    settings = {key: value for key, value in prompt.items() if key not in ("text", "csvs")}
    if settings["language_path"] is not None:
        folder = job.root / settings["language_path"]
        if not folder.is_dir():
            return
        settings["language_path"] = str(folder)
    config = ModelConfig(**settings, trust_remote_code=job.config["models"]["trust_remote_code"])
    check_language_model(config, language_dtype(job.config["training"]["precision"]))
