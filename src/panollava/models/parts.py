"""A model's parts by name: what a stage table trains, what a checkpoint keeps, what fits a checkpoint.

The parts divide a model's parameters without overlap. A checkpoint keeps every tensor that *any* stage so far
has trained: a model remembers what was trainable and what it loaded, so that the vision stage's encoder blocks
are still in finetune's checkpoint. Functions here take the model; `vlm.PanoramaVLM` offers them as methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from panollava.errors import CheckpointError

if TYPE_CHECKING:
    from panollava.models.vlm import PanoramaVLM

PARTS = (
    "vision_encoder",
    "resampler",
    "vicreg_projector",
    "positional",
    "projection",
    "language_model",
    "lora",
)
# The parts that train in each stage (SPEC 7), beside the encoder's last blocks.
STAGE_PARTS: dict[str, tuple[str, ...]] = {
    "vision": ("resampler", "vicreg_projector"),
    "resampler": ("resampler", "positional", "projection"),
    "finetune": ("resampler", "positional", "projection", "lora"),
}
_ATTRIBUTES = {"vision": "vision_encoder", "language": "language_model"}


def part_of(key: str) -> str:
    """The part that a parameter's or state's key belongs to."""
    first = key.partition(".")[0]
    part = _ATTRIBUTES.get(first, first)
    return "lora" if part == "language_model" and ".lora_" in key else part


def modules_of(model: PanoramaVLM) -> dict[str, nn.Module]:
    modules: dict[str, nn.Module | None] = {
        "vision_encoder": model.vision,
        "resampler": model.resampler,
        "vicreg_projector": model.vicreg_projector,
        "positional": model.positional,
        "projection": model.projection,
        "language_model": model.language,
        "lora": model.language.lora_modules() if model.language and model.language.has_lora else None,
    }
    return {name: module for name, module in modules.items() if module is not None}


def parameters_of(model: PanoramaVLM) -> dict[str, dict[str, nn.Parameter]]:
    """Parameters by the part that they belong to, then by their names in the model."""
    divided: dict[str, dict[str, nn.Parameter]] = {name: {} for name in modules_of(model)}
    for key, parameter in model.named_parameters():
        divided[part_of(key)][key] = parameter
    return divided


def set_trainable(model: PanoramaVLM, names: Iterable[str], vision_blocks: int) -> None:
    """Raises ValueError for a part that the model does not have, and for `vision_encoder` (see vision_blocks)."""
    wanted, divided = set(names), parameters_of(model)
    trainable = set(divided) - {"vision_encoder"}
    if wanted - trainable:
        raise ValueError(
            f"cannot train {sorted(wanted - trainable)}; this model has {sorted(trainable)}, and "
            "vision_blocks for the encoder"
        )
    for name, parameters in divided.items():
        for parameter in parameters.values():
            parameter.requires_grad_(name in wanted)
    model.vision.set_trainable_blocks(vision_blocks)
    model.train(model.training)


def trained_state(model: PanoramaVLM, trained: set[str], names: Sequence[str] | None) -> dict[str, Tensor]:
    trained.update(key for key, parameter in model.named_parameters() if parameter.requires_grad)
    return {
        key: tensor.detach().cpu()
        for key, tensor in model.state_dict().items()
        if key in trained and (names is None or part_of(key) in names)
    }


def load_trained(model: PanoramaVLM, trained: set[str], state: Mapping[str, Tensor], required: Sequence[str]) -> None:
    own = dict(model.named_parameters())
    present = {part_of(key) for key in state}
    whole = (present | set(required)) - {"vision_encoder", "language_model"}
    missing = [key for key in own if part_of(key) in whole and key not in state]
    absent = [f"(all of {name})" for name in required if name not in present and name not in whole]
    refuse_other_keys(own, state, [*missing, *absent])
    with torch.no_grad():
        for key, tensor in state.items():
            own[key].copy_(tensor)
    trained.update(state)


def refuse_other_keys(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: Iterable[str] | None = None
) -> None:
    """Raise CheckpointError that lists the keys of `state` that `own` has not or in another shape, and the missing.

    `missing` None: every key of `own` must be there.
    """
    lacking = sorted(set(own) - set(state)) if missing is None else sorted(missing)
    shapes = [
        f"{key}: {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in sorted(set(state) & set(own))
        if state[key].shape != own[key].shape
    ]
    found = (("missing", lacking), ("unexpected", sorted(set(state) - set(own))), ("other shape", shapes))
    lines = [f"{title} ({len(keys)}):\n    " + "\n    ".join(keys) for title, keys in found if keys]
    if lines:
        raise CheckpointError("the checkpoint does not fit this model:\n  " + "\n  ".join(lines))
