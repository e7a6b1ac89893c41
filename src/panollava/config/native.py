"""What `models.vlm_name` changes about a configuration: which settings compose a model and so exclude it.

No torch, no transformers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from panollava.config.dotted import differing
from panollava.config.schema import KEYS, STAGES, Settings, model_keys
from panollava.settings.wording import shown

_BLOCKS = "vision_trainable_blocks"
_COMPOSES = {*model_keys(of="composed"), *(f"training.stage_configs.{stage}.{_BLOCKS}" for stage in STAGES)}
_MINIATURES = ("models.miniature.vision.", "models.miniature.language.")

NATIVE_ONLY = tuple(key for key in model_keys(of="native") if key != "models.vlm_name")
"""Settings that only a native model reads."""
COMPOSING = tuple(key for key in KEYS if key in _COMPOSES or key.startswith(_MINIATURES))
"""Settings of the composed model alone."""


def backbones_of(settings: Settings) -> dict[str, tuple[str, ...]]:
    """What each stage is built upon: "vision", "language"; of a native model "vlm", "adapter"."""
    if settings.models.vlm_name is None:
        return {stage: ("vision",) if stage == "vision" else ("vision", "language") for stage in STAGES}
    return dict.fromkeys(STAGES, ("vlm",) if settings.models.adapter is None else ("vlm", "adapter"))


def without_composition(document: Mapping[str, Any], written: Collection[str]) -> dict[str, Any]:
    """A merged document in which what the project's default.yaml says of the composed model does not count.

    `written` are the keys that the experiment itself sets; these stay, and are refused.
    """
    models = document.get("models")
    if not isinstance(models, Mapping) or models.get("vlm_name") is None:
        return dict(document)
    left_out = {key for key in COMPOSING if key not in written}
    if "training.stages" not in written:
        left_out.add("training.stages")
    return _without(document, left_out, "")


def native_errors(settings: Settings, written: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """(key, message) of settings that cannot be combined. `written` are the keys that the experiment sets."""
    models = settings.models
    if models.vlm_name is None:
        if models.adapter is not None:
            yield "models.adapter", f"is read with models.vlm_name alone, got {shown(models.adapter)}"
        if models.quantization is not None:
            yield "models.quantization", f"is read with models.vlm_name alone, got {shown(models.quantization)}"
        if other := [part for part in settings.lora.parts if part != "language"]:
            yield "lora.parts", f"must be [language] without models.vlm_name, got {settings.lora.parts}: no {other[0]}"
        return
    document, default = settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    changed = differing(document, default, COMPOSING)
    both = [key for key in COMPOSING if key in written or key in changed]
    if both:
        hint = (
            " Adapters train the tower: lora.parts: [language, vision]." if any(_BLOCKS in key for key in both) else ""
        )
        named = ", ".join(both[:6]) + (", …" if len(both) > 6 else "")
        yield (
            "models.vlm_name",
            f"replaces the composed model, got {shown(models.vlm_name)} beside {named}: remove one or the other.{hint}",
        )
    stages = settings.training.stages
    if models.adapter is not None and any(stage != "finetune" for stage in stages):
        yield "models.adapter", f"can be trained on in finetune alone, got training.stages [{', '.join(stages)}]"
    if models.adapter is not None and settings.training.full_finetune:
        yield "models.adapter", "cannot be combined with training.full_finetune: true, which trains without LoRA"
    if models.quantization is not None and settings.training.full_finetune:
        hint = "quantised weights do not train"
        yield "models.quantization", f"cannot be combined with training.full_finetune: true: {hint}"
    if models.quantization is not None and "resampler" in stages:
        yield "models.quantization", "cannot be combined with stage resampler, which trains the connector's own weights"
    if "finetune" in stages and not settings.lora.use_lora and not settings.training.full_finetune:
        yield (
            "lora.use_lora",
            "is false: finetune of a native model trains adapters; or set training.full_finetune",
        )


def _without(document: Mapping[str, Any], keys: Collection[str], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in document.items():
        key = f"{prefix}{name}"
        if key in keys:
            continue
        found[name] = _without(value, keys, f"{key}.") if isinstance(value, Mapping) else value
    return found
