"""The vision encoder: pixels in, patch tokens out.

In: normalised pixels [N, 3, H, W]. Out: the last hidden state's patch tokens [N, S, D], row by row from the
top left, S = (H/patch)·(W/patch); class and register tokens are dropped. What differs between families
stands in one table, and the shapes follow from the configuration alone, before any weight is loaded.
Traded away: pooled outputs and intermediate layers; models with patchified inputs of varying size (NaFlex).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from panollava.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class VisionFamily:
    """What differs between encoders: prefix tokens, the norm after the last block, resizing, pixel scale."""

    name: str
    has_class_token: bool
    final_norm: str | None  # None: no norm touches the patch tokens after the last block
    unused: tuple[str, ...]  # parameters the patch tokens never pass; they stay frozen
    interpolate: bool  # whether forward takes `interpolate_pos_encoding`
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_HALF = (0.5, 0.5, 0.5)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_DINO = ("DINOv2", True, "layernorm", ("embeddings.mask_token",), False, _IMAGENET_MEAN, _IMAGENET_STD)
_CLIP = (True, None, ("post_layernorm.",))

FAMILIES: dict[str, VisionFamily] = {
    "siglip_vision_model": VisionFamily("SigLIP", False, "post_layernorm", ("head.",), True, _HALF, _HALF),
    "clip_vision_model": VisionFamily("CLIP", *_CLIP, True, _CLIP_MEAN, _CLIP_STD),
    "mlcd_vision_model": VisionFamily("MLCD", *_CLIP, False, _CLIP_MEAN, _CLIP_STD),
    "dinov2": VisionFamily(*_DINO),
    "dinov2_with_registers": VisionFamily(*_DINO),
}


@dataclass(frozen=True)
class VisionSpec:
    """The shapes of an encoder at one image size: everything about it that needs no weights."""

    family: VisionFamily
    hidden_size: int
    num_blocks: int
    num_prefix_tokens: int
    image_size: tuple[int, int]
    grid: tuple[int, int]
    native_size: bool  # False: position embeddings are interpolated

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


def vision_config(source: str, trust_remote_code: bool = False) -> Any:
    """The vision tower's configuration of a checkpoint: its own, or the `vision_config` of a full model's."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    config = getattr(config, "vision_config", None) or config
    if config.model_type == "siglip2_vision_model":
        raise ConfigError(
            f"{source} is a SigLIP2 NaFlex model (variable patch grids), which is not available yet. "
            "Use a fixed-resolution SigLIP2, for instance google/siglip2-base-patch16-256"
        )
    if config.model_type not in FAMILIES:
        raise ConfigError(
            f"{source} has model type {config.model_type!r}; known vision encoders: {', '.join(sorted(FAMILIES))}"
        )
    return config


def describe_vision(
    source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False
) -> VisionSpec:
    """Shapes of the encoder at `image_size` (its own when None). Reads config.json only.

    Raises ConfigError when the size is not a multiple of the patch.
    """
    config = vision_config(source, trust_remote_code)
    family = FAMILIES[config.model_type]
    native, patch = _pair(config.image_size), _pair(config.patch_size)
    height, width = image_size or native
    if height % patch[0] or width % patch[1]:
        near = [max(1, round(side / step)) * step for side, step in zip((height, width), patch, strict=True)]
        raise ConfigError(
            f"image_size [{height}, {width}] is not a multiple of the patch {list(patch)} of {source}; nearest: {near}"
        )
    prefix = int(family.has_class_token) + int(getattr(config, "num_register_tokens", 0) or 0)
    return VisionSpec(
        family=family,
        hidden_size=config.hidden_size,
        num_blocks=config.num_hidden_layers,
        num_prefix_tokens=prefix,
        image_size=(height, width),
        grid=(height // patch[0], width // patch[1]),
        native_size=(height, width) == native,
    )


class VisionEncoder(nn.Module):
    """An encoder of a known family, loaded frozen and in float32 through transformers' Auto classes."""

    def __init__(self, source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False) -> None:
        super().__init__()
        self.spec = describe_vision(source, image_size, trust_remote_code)
        config = vision_config(source, trust_remote_code)
        if hasattr(config, "vision_use_head"):
            config.vision_use_head = False  # SigLIP's pooling head: nothing here would ever train it
        self.model: Any
        with quiet_loading():
            loaded: Any = AutoModel.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        self.model, loading = loaded
        refuse_missing_weights(source, loading)
        self.set_trainable_blocks(0)

    @property
    def hidden_size(self) -> int:
        return self.spec.hidden_size

    def forward(self, pixel_values: Tensor) -> Tensor:
        options: dict[str, Any] = {}
        if self.spec.family.interpolate and not self.spec.native_size:
            options["interpolate_pos_encoding"] = True
        hidden = self.model(pixel_values=pixel_values, **options).last_hidden_state  # [N, prefix + S, D]
        return hidden[:, self.spec.num_prefix_tokens :]  # [N, S, D]

    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.spec.num_blocks:
                return module
        raise ConfigError(f"no list of {self.spec.num_blocks} blocks in {type(self.model).__name__}")

    def set_trainable_blocks(self, count: int) -> None:
        """Train nothing (0), the last `count` blocks with the norm behind them, or everything (-1).

        Parameters that patch tokens never pass (class-token norms, mask tokens) stay frozen always.
        Raises ValueError when there are not that many blocks.
        """
        if not -1 <= count <= self.spec.num_blocks:
            raise ValueError(
                f"vision_trainable_blocks must be -1 (all), 0 (frozen) or 1 to {self.spec.num_blocks}, got {count}"
            )
        self.requires_grad_(count == -1)
        if count > 0:
            self.blocks()[-count:].requires_grad_(True)
        norm, unused = self.spec.family.final_norm, self.spec.family.unused
        for name, parameter in self.model.named_parameters():
            own = name.removeprefix("vision_model.")  # some versions of transformers wrap the tower once more
            if count > 0 and norm and own.startswith(f"{norm}."):
                parameter.requires_grad_(True)
            if own.startswith(unused):
                parameter.requires_grad_(False)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' report of weights that nobody wants (text towers, heads): what is missing, and
    only that, matters, and `refuse_missing_weights` looks at it."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def refuse_missing_weights(source: str, loading: dict[str, Any]) -> None:
    """Raise CheckpointError when `from_pretrained` had to invent weights: a model is never half random."""
    missing, odd = sorted(loading["missing_keys"]), sorted(map(str, loading.get("mismatched_keys", ())))
    if missing or odd:
        raise CheckpointError(
            f"{source} does not hold all weights of its architecture: missing {missing[:8] or 'none'}"
            f"{' …' if len(missing) > 8 else ''}, of other shape {odd[:8] or 'none'}"
        )


def _pair(value: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
