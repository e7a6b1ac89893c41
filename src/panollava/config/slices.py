"""What each node of the DAG reads: the tables by which exactly the stale parts run again.

Names of nodes and of settings, nothing else. Each setting belongs to exactly one earliest node, or changes no result
and says why. `build_slice` makes the document of a node out of them.
"""

from __future__ import annotations

from collections.abc import Collection

from panollava.config.schema import RESAMPLER_OPTIONS, STAGES, leaf_keys

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
    "prepare": 3,
    "views": 4,
    "train_vision": 3,
    "train_resampler": 3,
    "train_finetune": 3,
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
LORA = ("lora.rank", "lora.alpha", "lora.dropout", "lora.target_modules", "lora.use_rslora", "lora.use_dora")
_OPTIMISATION = ("epochs", "batch_size", "accumulate_grad_batches", "optimizer", "lr", "muon_lr", "weight_decay",
                 "warmup_ratio", "max_grad_norm", "vision_trainable_blocks")  # fmt: skip
VICREG_TERMS = ("vicreg_similarity_weight", "vicreg_variance_weight", "vicreg_covariance_weight")
_VICREG = ("vicreg_loss_weight", "vicreg_mode", *VICREG_TERMS)


def _stage_keys(stage: str, *names: str) -> tuple[str, ...]:
    return tuple(f"training.stage_configs.{stage}.{name}" for name in (*_OPTIMISATION, *names))


READS: dict[str, tuple[str, ...]] = {
    "synthetic": tuple(key for key in leaf_keys() if key.startswith("data.synthetic.")),
    "miniature_vision": tuple(key for key in leaf_keys() if key.startswith("models.miniature.vision.")),
    "miniature_language": tuple(key for key in leaf_keys() if key.startswith("models.miniature.language.")),
    "prepare": (
        "data.format", *(key for key in leaf_keys() if key.startswith("data.columns.")), "data.max_rejected_fraction",
        "data.allow_private_addresses",
        "evaluation.answer_instruction",
    ),
    "views": (*_VIEWS, "image_processing.view_cache"),
    "train_vision": (*_VISION, "models.vicreg_projector_dim", *_TRAINING,
                     *_stage_keys("vision", "max_text_length", "loss", "densecl_temperature", *_VICREG)),
    "train_resampler": (*_LANGUAGE, *_TRAINING, "training.batches",
                        *_stage_keys("resampler", "max_text_length")),
    "train_finetune": (*_LANGUAGE, *_TRAINING, "training.batches",
                       *_stage_keys("finetune", "max_text_length"), "lora.use_lora", *LORA),
    "select_checkpoint": (),
    "predict": ("evaluation.shuffle_options",
                "generation.max_new_tokens", "generation.do_sample", "generation.temperature", "generation.top_p",
                "training.eval_batch_size", "training.seed", *_MACHINE),
    "measure_perplexity": ("training.eval_batch_size", "training.seed", *_MACHINE),
    "measure_overlap": ("training.seed", *_MACHINE),
    "metrics": ("evaluation.metrics", "evaluation.protocol", "evaluation.extra", "evaluation.custom_metrics",
                "evaluation.blind_control", "evaluation.bootstrap_samples", "evaluation.number_tolerance",
                "evaluation.angle_tolerance_deg"),
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

NEUTRAL: dict[str, object] = {
    "data.format": "auto",
    "data.allow_private_addresses": False,
    "evaluation.answer_instruction": True,
    "evaluation.shuffle_options": False,
    "evaluation.number_tolerance": 0.1,
    "evaluation.angle_tolerance_deg": 22.5,
}
"""Settings that came later, and the value at which a node does what it did before: then its slice leaves them out."""

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


def measures_of(scores: Collection[str]) -> list[str]:
    """The nodes behind the scores of an `evaluation.extra`, in the DAG's order."""
    asked = {EXTRA_NODES[key] for key in scores}
    return [node for node in NODES if node in asked]
