"""What one key cannot know alone: errors and warnings that follow from several settings together.

The checks are of validated settings, and give (dotted key, message) pairs.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator

from panollava.config.native import NATIVE_ONLY, native_errors
from panollava.config.schema import KEYS, MINIATURE_VISION, RESAMPLER_OPTIONS, SCORE_NAMES, STAGES, Settings
from panollava.errors import ConfigError

VICREG_KEYS = tuple(
    f"training.stage_configs.vision.vicreg_{name}"
    for name in ("loss_weight", "mode", "similarity_weight", "variance_weight", "covariance_weight")
)
DENSECL_KEY = "training.stage_configs.vision.densecl_temperature"


def cross_errors(settings: Settings, written: Collection[str] = ()) -> list[tuple[str, str]]:
    """Combinations that cannot work. `written` are the keys that the experiment itself sets, where that is known."""
    found, reason = _stage_errors(settings) + _data_errors(settings), None
    try:
        reason = without_shared_directions(settings)
    except ConfigError as error:  # each value is legal, all of them together are not
        found.append(("image_processing", f"cannot be used: {error}"))
    found += _view_errors(settings, reason) + _device_errors(settings) + _other_errors(settings)
    return [*found, *_overlap_errors(settings, reason), *native_errors(settings, written)]


def _overlap_errors(settings: Settings, without_directions: str | None) -> Iterator[tuple[str, str]]:
    """(key, message) where an overlap loss beside the answers' compares nothing, or trains nothing."""
    finetune = settings.training.stage_configs.finetune
    if "finetune" not in settings.training.stages or finetune.overlap_loss_weight == 0:
        return
    key = "training.stage_configs.finetune.overlap_loss_weight"
    if without_directions:
        yield (
            key,
            f"has nothing to compare: {without_directions}. Use e2p, anyres_e2p or another that overlaps",
        )
    parts = settings.lora.parts if settings.lora.use_lora and not settings.training.full_finetune else []
    tower = finetune.overlap_features == "tower"
    if settings.models.vlm_name is not None:
        trains = "vision" in parts or (not tower and "connector" in parts)
        remedy = "lora.parts: [language, vision]" + ("" if tower else " or [language, connector]")
    else:
        trains = not tower or finetune.vision_trainable_blocks != 0
        remedy = "training.stage_configs.finetune.vision_trainable_blocks: 1, or overlap_features: connector"
    if not trains:
        yield key, f"reaches nothing that trains before the {finetune.overlap_features}'s tokens: set {remedy}"


def cross_warnings(settings: Settings, written: Container[str]) -> list[tuple[str, str]]:
    """Combinations that are legal but pointless. `written` are the keys that the experiment's own file sets."""
    found: list[tuple[str, str]] = []
    vision = settings.training.stage_configs.vision
    if "vision" in settings.training.stages:
        if vision.vicreg_loss_weight == 0:
            found.append((VICREG_KEYS[0], "is 0 in the vision stage: the stage would learn nothing"))
        elif (
            vision.loss == "vicreg"
            and vision.vicreg_similarity_weight == vision.vicreg_variance_weight == vision.vicreg_covariance_weight == 0
        ):
            found.append(
                (VICREG_KEYS[2], "and the other two terms' weights are 0: the vision stage would learn nothing")
            )
    elif any(key in written for key in VICREG_KEYS):
        reason = without_shared_directions(settings)
        if reason:
            written_key = next(key for key in VICREG_KEYS if key in written)
            found.append((written_key, f"has no effect: {reason}, and the vision stage does not run"))
    if settings.training.init_checkpoint is not None and settings.training.stages[:1] == ["vision"]:
        found.append(
            ("training.init_checkpoint", "has no effect: the first stage is vision, which starts from its backbone")
        )
    if not settings.generation.do_sample:
        found += [
            (key, "has no effect while generation.do_sample is false")
            for key in ("generation.temperature", "generation.top_p")
            if key in written
        ]
    if settings.evaluation.judge.model is None:
        keys = (f"evaluation.judge.{name}" for name in ("prompt_file", "max_new_tokens"))
        found += [(key, "has no effect without evaluation.judge.model") for key in keys if key in written]
    if settings.models.vlm_name is None:
        found += [(key, "has no effect without models.vlm_name") for key in NATIVE_ONLY if key in written]
    chosen = settings.models.resampler_type
    found += [
        (key, f"has no effect while models.resampler_type is {chosen}")
        for key in KEYS
        if key in written and key.startswith(RESAMPLER_OPTIONS) and not key.startswith(f"models.{chosen}.")
    ]
    unread = VICREG_KEYS[2:] if vision.loss == "densecl" else (DENSECL_KEY,)
    found += [(key, f"has no effect while training.stage_configs.vision.loss is {vision.loss}") for key in unread
              if key in written]  # fmt: skip
    for stage in STAGES:
        key = f"training.stage_configs.{stage}.muon_lr"
        if key in written and getattr(settings.training.stage_configs, stage).optimizer != "muon":
            found.append((key, f"has no effect while training.stage_configs.{stage}.optimizer is adamw"))
    return found


def without_shared_directions(settings: Settings) -> str | None:
    """Why a VICReg overlap loss has nothing to compare, or None where it has."""
    from panollava.views.strategies import neighbour_pairs, plan_views

    images = settings.image_processing
    views = plan_views(
        images.crop_strategy,
        fov_deg=images.fov_deg,
        overlap_ratio=images.overlap_ratio,
        anyres_max_patches=images.anyres_max_patches,
        cubemap_poles=images.cubemap_poles,
    )
    count = sum(view.kind != "global" for view in views)
    if neighbour_pairs(views):
        return None
    if count < 2:
        return f"crop_strategy {images.crop_strategy} gives {len(views)} view{'s' * (len(views) != 1)}"
    return f"the {count} views of crop_strategy {images.crop_strategy} share no directions"


def _data_errors(settings: Settings) -> list[tuple[str, str]]:
    """Splits that are needed and not configured."""
    data, wanted = settings.data, "must be a path, a list of paths or 'synthetic', got null"
    if settings.training.stages:
        lacking = [key for key in ("csv_train", "csv_val") if getattr(data, key) is None]
        return [
            (f"data.{key}", f"{wanted}: an experiment without stages (training.stages: []) alone needs none")
            for key in lacking
        ]
    if data.csv_test is None and data.csv_val is None:
        return [("data.csv_test", f"{wanted}, and there is no data.csv_val to test instead")]
    return []


def _stage_errors(settings: Settings) -> list[tuple[str, str]]:
    key, stages = "training.stages", settings.training.stages
    listed = f"got [{', '.join(stages[:6])}{', …' if len(stages) > 6 else ''}]"
    order = [stage for stage in STAGES if stage in stages]
    if not stages and settings.models.vlm_name is not None:
        return []  # zero-shot
    if not stages:
        return [(key, "must name at least one stage, got an empty list. Typical: [vision, resampler, finetune]")]
    if len(set(stages)) != len(stages):
        return [(key, f"must not repeat a stage, {listed}. Typical: [{', '.join(order)}]")]
    if order != stages:
        return [(key, f"must keep the order vision, resampler, finetune, {listed}. Write: [{', '.join(order)}]")]
    if stages[-1] == "vision":
        return [(key, f"must end with resampler or finetune, because prediction uses the last stage, {listed}")]
    return []


def _view_errors(settings: Settings, reason: str | None) -> list[tuple[str, str]]:
    if "vision" not in settings.training.stages or reason is None:
        return []
    rest = [stage for stage in settings.training.stages if stage != "vision"] or ["resampler", "finetune"]
    return [
        (
            "image_processing.crop_strategy",
            f"leaves the vision stage without a loss: {reason}. Use e2p, anyres_e2p or another strategy whose "
            f"views overlap, or leave the stage out: training.stages: [{', '.join(rest)}]",
        ),
    ]


def _device_errors(settings: Settings) -> list[tuple[str, str]]:
    devices = settings.training.devices
    if devices == "auto" or devices == 1:
        return []
    found: list[tuple[str, str]] = []
    for stage in settings.training.stages:
        key, of_stage = f"training.stage_configs.{stage}", settings.training.stage_configs.of(stage)
        if of_stage.batch_size % devices:
            nearest = -(-of_stage.batch_size // devices) * devices
            found.append(
                (
                    f"{key}.batch_size",
                    f"must be a multiple of training.devices ({devices}), because it counts the rows of all devices, "
                    f"got {of_stage.batch_size}. Write: {nearest}",
                )
            )
        has_overlap_loss = stage == "vision" or getattr(of_stage, "overlap_loss_weight", 0) > 0
        if has_overlap_loss and of_stage.vicreg_mode == "batchwise":
            found.append(
                (
                    f"{key}.vicreg_mode",
                    f"must be pairwise with training.devices: {devices}, got batchwise: its statistics need the whole "
                    "batch on one device",
                )
            )
    return found


def _metric_errors(settings: Settings) -> list[tuple[str, str]]:
    """Custom metrics are stored under their function's name in metrics.json, beside all others."""
    taken = set(SCORE_NAMES)
    for dotted in settings.evaluation.custom_metrics:
        name = dotted.partition(":")[2]
        if name in taken:
            message = f"{dotted} would be stored under {name}, which another metric has: rename the function"
            return [("evaluation.custom_metrics", message)]
        taken.add(name)
    return []


def _other_errors(settings: Settings) -> list[tuple[str, str]]:
    found = _metric_errors(settings)
    if settings.training.batches == "group_by_image" and settings.training.gradient_checkpointing is True:
        message = (
            "must be auto or false with training.batches: group_by_image, which keeps what the language model read"
        )
        found.append(("training.gradient_checkpointing", f"{message}, got true"))
    judge = settings.evaluation.judge
    if judge.second_model is not None and judge.second_model == judge.model:
        message = f"is {judge.second_model!r}, the first judge itself, which always agrees"
        found.append(("evaluation.judge.second_model", message))
    elif judge.second_model is not None and judge.model is None:
        found.append(("evaluation.judge.second_model", "is a second judge: name the first one under judge.model"))
    columns = [name for name in (settings.data.columns.image_path, settings.data.columns.query,
                                 settings.data.columns.annotation) if name]  # fmt: skip
    folded = [name.strip().casefold() for name in columns]
    if len(set(folded)) != len(folded):
        found.append(("data.columns", f"maps one column twice: {', '.join(columns)}"))
    vlm = settings.models.miniature.vlm
    for key, value, step in (
        ("hidden_size", vlm.hidden_size, 8 * vlm.heads),
        ("vision_hidden_size", vlm.vision_hidden_size, 4 * vlm.heads),
        ("image_size", vlm.image_size, 2 * vlm.patch_size),
    ):
        if value % step:
            found.append((f"models.miniature.vlm.{key}", f"must be a multiple of {step}, got {value}"))
    for part in ("vision", "language"):
        miniature = getattr(settings.models.miniature, part)
        if miniature.hidden_size % (2 * miniature.heads):
            found.append(
                (
                    f"models.miniature.{part}.hidden_size",
                    f"must be a multiple of twice the heads ({miniature.heads}), got {miniature.hidden_size}",
                )
            )
    models = settings.models
    heads = getattr(getattr(models, models.resampler_type, None), "heads", 1)
    if models.latent_dimension % heads:
        found.append(
            (
                "models.latent_dimension",
                f"must be a multiple of models.{models.resampler_type}.heads ({heads}), got {models.latent_dimension}",
            )
        )
    vision, asked = settings.models.miniature.vision, settings.image_processing.image_size
    sides = [asked] * 2 if isinstance(asked, int) else asked or []
    if models.vision_name == MINIATURE_VISION and any(side % vision.patch_size for side in sides):
        nearest = [max(1, round(side / vision.patch_size)) * vision.patch_size for side in sides]
        message = f"must be a multiple of models.miniature.vision.patch_size ({vision.patch_size}), got {asked}"
        found.append(("image_processing.image_size", f"{message}. Nearest: {nearest}"))
    if vision.image_size % vision.patch_size:
        found.append(
            (
                "models.miniature.vision.image_size",
                f"must be a multiple of patch_size ({vision.patch_size}), got {vision.image_size}",
            )
        )
    return found
