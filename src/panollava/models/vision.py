"""The vision encoder: pixels in, patch tokens out.

In: normalised pixels [N, 3, H, W]. Out: the last hidden state's patch tokens [N, S, D], row by row from the
top left, S = (H/patch)·(W/patch); class and register tokens are dropped. What differs between families stands in
one table, and the shapes follow from the configuration alone, before any weight is loaded. Another encoder of
transformers is one more row; one that brings its own code (`trust_remote_code`) needs none, if it takes pixels and
returns prefix and patch tokens.
Traded away: pooled outputs and intermediate layers; NaFlex' batches of pictures of different shape.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from panollava.errors import CheckpointError, ConfigError
from panollava.logs import LOGGER

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class VisionFamily:
    """What differs between encoders: inputs, prefix tokens, the norm after the last block, resizing, pixel scale."""

    name: str
    class_token: bool | None  # None: whatever precedes the patch tokens, seen at the first picture only
    final_norm: str | None = None  # None: no norm touches the patch tokens after the last block
    unused: tuple[str, ...] = ()  # parameters the patch tokens never pass; they stay frozen
    interpolate: bool = False  # whether forward asks for `interpolate_pos_encoding`; others adapt by themselves
    patchified: bool = False  # takes flattened patches with their grid's shape, instead of pixels
    statistics: tuple[Triple, Triple] | None = None  # published mean and std of pixels in [0, 1]


_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_MASK = ("embeddings.mask_token",)
_POOLED = ("post_layernorm.",)

# model_type of config.json (for a full checkpoint: of its vision tower) -> family
FAMILIES: dict[str, VisionFamily] = {
    # SigLIP, and SigLIP2 of fixed resolution, whose checkpoints have the same architecture
    "siglip_vision_model": VisionFamily(
        "SigLIP", False, "post_layernorm", unused=("head.",), interpolate=True, statistics=_HALF
    ),
    "siglip2_vision_model": VisionFamily(
        "SigLIP2 NaFlex", False, "post_layernorm", unused=("head.",), patchified=True, statistics=_HALF
    ),
    "clip_vision_model": VisionFamily("CLIP", True, unused=_POOLED, interpolate=True, statistics=_CLIP),
    "dinov2": VisionFamily("DINOv2", True, "layernorm", unused=_MASK, statistics=_IMAGENET),
    "dinov2_with_registers": VisionFamily("DINOv2", True, "layernorm", unused=_MASK, statistics=_IMAGENET),
    # MLCD and RICE-ViT; the second name stands in folders of their authors
    "mlcd_vision_model": VisionFamily("MLCD", True, unused=_POOLED, statistics=_CLIP),
    "mlcd": VisionFamily("MLCD", True, unused=_POOLED, statistics=_CLIP),
}
_OWN_CODE = VisionFamily("own code", None)


@dataclass(frozen=True)
class VisionSpec:
    """The shapes of an encoder at one image size: everything about it that needs no weights."""

    family: VisionFamily
    hidden_size: int
    num_blocks: int
    num_prefix_tokens: int | None  # None: unknown before the first picture
    image_size: tuple[int, int]
    grid: tuple[int, int]
    native_size: bool  # False: position embeddings are interpolated

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


def checkpoint_config(source: str, trust_remote_code: bool = False) -> Any:
    """A checkpoint's configuration. Raises ConfigError where transformers does not know it, or may not run its code,
    CheckpointError where it is not to be had."""
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        if trust_remote_code and (_has_own_code(config) or getattr(config, "auto_map", None)):
            commit = getattr(config, "_commit_hash", None)
            version = f", commit {commit}" if commit else ""
            LOGGER.warning("models.trust_remote_code: Python code of %s%s runs here", source, version)
        return config
    except OSError as error:
        raise CheckpointError(f"{source}: {str(error).partition(chr(10))[0]}") from error
    except ValueError as error:
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise ConfigError(
                f"{source} brings Python code of its own, which runs only if you trust it: "
                "set models.trust_remote_code: true (of a trained folder: in an experiment with these very backbones, "
                "named by --config)"
            ) from error
        raise ConfigError(f"{source}: {str(error).partition(chr(10))[0]}") from error


def vision_config(source: str, trust_remote_code: bool = False) -> Any:
    """The vision tower's configuration of a checkpoint: its own, or the `vision_config` of a full model's."""
    config = checkpoint_config(source, trust_remote_code)
    config = getattr(config, "vision_config", None) or config
    if config.model_type not in FAMILIES and not _has_own_code(config):
        raise ConfigError(
            f"{source} has model type {config.model_type!r}; known vision encoders: {', '.join(sorted(FAMILIES))}, "
            "and those that bring code of their own (models.trust_remote_code)"
        )
    return config


def describe_vision(
    source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False
) -> VisionSpec:
    """Shapes of the encoder at `image_size` (its own when None). Reads config.json only.

    Raises ConfigError when the size is not a multiple of the patch.
    """
    config = vision_config(source, trust_remote_code)
    family = FAMILIES.get(config.model_type, _OWN_CODE)
    lacking = [name for name in ("hidden_size", "num_hidden_layers", "patch_size") if not hasattr(config, name)]
    if lacking:
        raise ConfigError(f"the configuration of {source} states no {', '.join(lacking)}")
    patch = _pair(config.patch_size)
    native = _native_size(config, patch)
    size = image_size or native
    if size is None:
        raise ConfigError(f"the configuration of {source} states no image_size: set image_processing.image_size")
    height, width = size
    if height % patch[0] or width % patch[1]:
        near = [max(1, round(side / step)) * step for side, step in zip((height, width), patch, strict=True)]
        raise ConfigError(
            f"image_size [{height}, {width}] is not a multiple of the patch {list(patch)} of {source}; nearest: {near}"
        )
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    return VisionSpec(
        family=family,
        hidden_size=config.hidden_size,
        num_blocks=config.num_hidden_layers,
        num_prefix_tokens=None if family.class_token is None else int(family.class_token) + registers,
        image_size=(height, width),
        grid=(height // patch[0], width // patch[1]),
        native_size=(height, width) == native,
    )


def _has_own_code(config: Any) -> bool:
    """Whether a configuration's class came with the checkpoint (transformers puts such code into a package apart)."""
    return type(config).__module__.startswith("transformers_modules.")


def _native_size(config: Any, patch: tuple[int, int]) -> tuple[int, int] | None:
    """The size an encoder was made for: as stated, or (NaFlex) the square of `num_patches`; None where neither is."""
    if getattr(config, "image_size", None) is not None:
        return _pair(config.image_size)
    if getattr(config, "num_patches", None) is not None:
        side = round(config.num_patches**0.5)
        return side * patch[0], side * patch[1]
    return None


class VisionEncoder(nn.Module):
    """An encoder of a known family, loaded frozen and in float32 through transformers' Auto classes."""

    def __init__(self, source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False) -> None:
        super().__init__()
        self.spec = describe_vision(source, image_size, trust_remote_code)
        config = vision_config(source, trust_remote_code)
        refuse_adapter(source)
        if hasattr(config, "vision_use_head"):
            config.vision_use_head = False  # SigLIP's pooling head: nothing here would ever train it
        self.model: Any
        with quiet_loading(), readable_weights(source):
            loaded: Any = AutoModel.from_pretrained(
                source,
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                ignore_mismatched_sizes=True,  # refused below, with their names
                output_loading_info=True,
            )
        self.model, loading = loaded
        refuse_missing_weights(source, loading)
        self.unexpected_keys = sorted(loading["unexpected_keys"])
        self.set_trainable_blocks(0)

    @property
    def hidden_size(self) -> int:
        return self.spec.hidden_size

    def forward(self, pixel_values: Tensor) -> Tensor:
        spec = self.spec
        inputs: dict[str, Any] = {"pixel_values": pixel_values}
        if spec.family.patchified:
            inputs = patchified(pixel_values, spec.grid)
        elif spec.family.interpolate and not spec.native_size:
            inputs["interpolate_pos_encoding"] = True
        hidden = self.model(**inputs).last_hidden_state  # [N, prefix + S, D]
        prefix = hidden.shape[1] - spec.num_tokens
        if prefix < 0 or spec.num_prefix_tokens not in (None, prefix) or hidden.shape[2] != spec.hidden_size:
            before = "any number of" if spec.num_prefix_tokens is None else spec.num_prefix_tokens
            raise ConfigError(
                f"{type(self.model).__name__} returns {list(hidden.shape[1:])} for a view of {list(spec.image_size)} "
                f"pixels; expected {before} prefix tokens and {spec.num_tokens} of patches, each of {spec.hidden_size}"
            )
        tokens: Tensor = hidden[:, prefix:]  # [N, S, D]
        return tokens

    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        for module in self.model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.spec.num_blocks:
                return module
        raise ConfigError(f"no list of {self.spec.num_blocks} blocks in {type(self.model).__name__}")

    def set_trainable_blocks(self, count: int) -> None:
        """Train nothing (0), the last `count` blocks with the norm behind them, or everything (-1).

        Parameters that patch tokens never pass (class-token norms, mask tokens) stay frozen always; the norm of an
        encoder with code of its own, which nobody here knows by name, trains with -1 only.
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


def patchified(pixel_values: Tensor, grid: tuple[int, int]) -> dict[str, Any]:
    """NaFlex' inputs of pixels [N, 3, H, W]: patches [N, S, p·p·3], row by row, channels last; none is padding."""
    count, device = len(pixel_values), pixel_values.device
    patches = pixel_values.unflatten(3, (grid[1], -1)).unflatten(2, (grid[0], -1))  # [N, 3, rows, p, columns, p]
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return {
        "pixel_values": patches,
        "pixel_attention_mask": torch.ones(patches.shape[:2], dtype=torch.int32, device=device),
        "spatial_shapes": torch.tensor([grid] * count),  # read number by number: stays on the CPU
    }


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without transformers' report of weights that nobody wants (text towers, heads): what is missing, and
    only that, matters, and `refuse_missing_weights` looks at it. Progress bars on a terminal only."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def readable_weights(source: str) -> Iterator[None]:
    """Weights that are damaged, absent, or a pickle of more than tensors (which never runs): a CheckpointError."""
    try:
        yield
    except (OSError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise CheckpointError(f"{source}: its weights cannot be read: {first}") from error


def refuse_adapter(source: str) -> None:
    """A folder of an adapter makes transformers load the model that the adapter names, and not this one's weights.

    Raises ConfigError.
    """
    if (stray := Path(source) / "adapter_config.json").is_file():
        raise ConfigError(
            f"{stray}: transformers would load the model that this adapter names. Merge the adapter into the encoder, "
            "or remove the file"
        )


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
