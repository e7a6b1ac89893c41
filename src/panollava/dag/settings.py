"""Settings as the table of nodes groups them, and those that change no result.

Dotted keys, nothing else. Each setting belongs to exactly one earliest node, or is listed in UNTRACKED with the reason
(a test verifies it).
"""

from __future__ import annotations

from panollava.config.effective import LORA, OVERLAP_LOSS
from panollava.config.schema import KEYS, STAGES, OptimisationSettings, model_keys
from panollava.settings.model import VicregSettings, ViewSettings


def section(prefix: str | tuple[str, ...]) -> tuple[str, ...]:
    """Every setting below a dotted prefix, or below one of several."""
    return tuple(key for key in KEYS if key.startswith(prefix))


def _named(section_name: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{section_name}.{name}" for name in names)


VIEWS = _named("image_processing", *ViewSettings.model_fields)
"""What views there are, and their pixels."""
MACHINE = _named("training", "devices", "strategy", "precision", "cpu_threads")
"""What decides about the last bits of a number."""
VISION = model_keys(stages=None)
"""The model of the vision stage, as far as the other stages have it too."""
LANGUAGE = (*VISION, *model_keys(stages="text"), "system_messages.default")
"""The model of the stages that read text."""
ZERO_SHOT = (
    *(key for key in LANGUAGE if key not in model_keys(of="composed")), "training.precision",
)  # fmt: skip
"""A native model that answers as it comes."""
ANSWERS = (
    *section("generation."), *_named("training", "eval_batch_size", "seed"),
    *_named("evaluation", "shuffle_options", "turns"), *MACHINE,
)  # fmt: skip
"""How answers are generated; the model follows from the checkpoint."""

PREPARATION = (
    "data.format", *section("data.columns."), "data.max_rejected_fraction",
    "data.allow_private_addresses", "evaluation.answer_instruction",
)  # fmt: skip
SCORES = _named(
    "evaluation", "metrics", "protocol", "extra", "custom_metrics", "blind_control", "bootstrap_samples",
    "number_tolerance", "angle_tolerance_deg", "text_only_control",
)  # fmt: skip
JUDGE = (
    *section("evaluation.judge."), "models.trust_remote_code",
    *_named("training", "eval_batch_size", "precision", "cpu_threads"),
)  # fmt: skip

_OPTIMISATION = tuple(OptimisationSettings.model_fields)
_VICREG = tuple(VicregSettings.model_fields)

OF_VISION_STAGE = (
    *VISION, *model_keys(stages="vision"), "image_processing.min_coverage", *MACHINE,
    *_named("training", "seed", "cache_vision_features"),
    *_named("training.stage_configs.vision", *_OPTIMISATION, "loss", "densecl_temperature", *_VICREG),
)  # fmt: skip
OF_RESAMPLER_STAGE = (
    *LANGUAGE, *MACHINE, *_named("training", "seed", "cache_vision_features", "batches"),
    *_named("training.stage_configs.resampler", *_OPTIMISATION),
)  # fmt: skip
OF_FINETUNE_STAGE = (
    *LANGUAGE, *MACHINE, *_named("training", "seed", "cache_vision_features", "batches"),
    *_named("training.stage_configs.finetune", *_OPTIMISATION, "overlap_loss_weight", *OVERLAP_LOSS),
    "image_processing.min_coverage",
    "training.full_finetune", "lora.use_lora", *LORA,
)  # fmt: skip

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
    "evaluation.shards": "how many jobs share the answers; each batch is the same in all of them",
    "workflow.view_caches_gib": "how long old caches stay; the numbers are the same",
    "workflow.experiments": "which experiments are built, not how",
    "training.stage_configs.vision.max_text_length": _NO_TEXT,
    **{f"training.stage_configs.resampler.{name}": _NO_VICREG for name in _VICREG},
    "training.stage_configs.finetune.vicreg_loss_weight": "overlap_loss_weight is that of finetune",
}
"""Settings that change no result, and why. Every setting is either read by a node or listed here (tested)."""
