"""The vision encoder: pixels in, patch tokens out.

In: normalised pixels [N, 3, H, W]. Out: the last hidden state's patch tokens [N, S, D], row by row from the
top left, S = (H/patch)·(W/patch); class and register tokens are dropped. What differs between families is in
one table (`vision_families`), and the shapes follow from the configuration alone, before any weight is loaded. An
encoder without a row, of transformers or with code of its own (`trust_remote_code`), is tried: if it returns prefix and
patch tokens in their order it is taken, else refused.
Traded away: pooled outputs and intermediate layers; NaFlex' batches of pictures of different shape.
"""

from __future__ import annotations

import inspect
import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import logging as transformers_logging

from panollava.errors import CheckpointError, ConfigError
from panollava.logs import LOGGER
from panollava.models.finite import refuse_not_finite
from panollava.models.unused_weights import of_own_layers, refuse_unused
from panollava.models.vision_families import FAMILIES, TRIED, VisionFamily
from panollava.models.vision_probe import check_layout, shallow, unused_parameters
from panollava.models.vision_tower import load_tower, tower_class


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
    except (ValueError, StrictDataclassError) as error:
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise ConfigError(
                f"{source} brings Python code of its own, which runs only if you trust it: "
                "set models.trust_remote_code: true (of a trained folder: in an experiment with these very backbones, "
                "named by --config)"
            ) from error
        raise ConfigError(f"{source}: {str(error).partition(chr(10))[0]}") from error


def vision_config(source: str, trust_remote_code: bool = False) -> Any:
    """The vision tower's configuration of a checkpoint: its own, or the `vision_config` of a full model's.

    Raises ConfigError for a model that takes no pixels.
    """
    config = checkpoint_config(source, trust_remote_code)
    config = getattr(config, "vision_config", None) or config
    if config.model_type in FAMILIES or _has_own_code(config):
        return config
    try:
        kind = tower_class(config)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}; {_known()}") from error
    kind = MODEL_MAPPING.get(type(config), kind)
    if getattr(kind, "main_input_name", None) != "pixel_values":
        raise ConfigError(f"{source} has model type {config.model_type!r}, which takes no pixels; {_known()}")
    return config


def _known() -> str:
    return (
        f"known vision encoders: {', '.join(sorted(FAMILIES))}, other encoders of patch tokens, and those that bring "
        "code of their own (models.trust_remote_code)"
    )


def describe_vision(
    source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False
) -> VisionSpec:
    """Shapes of the encoder at `image_size` (its own when None). Reads config.json only.

    An encoder's own size that its patch does not divide (384 by 14) is cut to whole patches, as the models themselves
    leave the rest out. Raises ConfigError when a size that was asked for is not a multiple of the patch, or when the
    encoder takes its own size alone.
    """
    config = vision_config(source, trust_remote_code)
    family = FAMILIES.get(config.model_type, TRIED)
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
    if family.sizes not in ("any", "interpolated") and not getattr(config, family.sizes) and size != native:
        raise ConfigError(
            f"image_size [{height}, {width}]: {source} ({family.name}) takes its own size {list(native or ())} alone: "
            "its position embeddings are not interpolated"
        )
    return VisionSpec(
        family=family,
        hidden_size=config.hidden_size,
        num_blocks=config.num_hidden_layers,
        num_prefix_tokens=_num_prefix_tokens(config, family),
        image_size=(height, width),
        grid=(height // patch[0], width // patch[1]),
        native_size=(height, width) == native,
    )


def _num_prefix_tokens(config: Any, family: VisionFamily) -> int | None:
    if family.prefix is None:
        return None
    if isinstance(family.prefix, str):
        return int(getattr(config, family.prefix))
    return family.prefix + int(getattr(config, "num_register_tokens", 0) or 0)


def _has_own_code(config: Any) -> bool:
    """Whether a configuration's class came with the checkpoint (transformers puts such code into a package apart)."""
    return type(config).__module__.startswith("transformers_modules.")


def _native_size(config: Any, patch: tuple[int, int]) -> tuple[int, int] | None:
    """The size an encoder was made for, in whole patches: as stated, or (NaFlex) the square of `num_patches`; None
    where neither is."""
    if getattr(config, "image_size", None) is not None:
        height, width = _pair(config.image_size)
        return height // patch[0] * patch[0], width // patch[1] * patch[1]
    if getattr(config, "num_patches", None) is not None:
        side = round(config.num_patches**0.5)
        return side * patch[0], side * patch[1]
    return None


def try_encoder(source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False) -> None:
    """Refuse an encoder before any job: by its configuration, and without a row in the table by a trial of one random
    block, since the order of tokens does not depend on weights. Raises ConfigError, CheckpointError."""
    spec = describe_vision(source, image_size, trust_remote_code)
    if spec.family is not TRIED:
        return
    config = shallow(vision_config(source, trust_remote_code))
    kind = tower_class(config)
    options = {"trust_remote_code": trust_remote_code} if kind is AutoModel else {}
    build = AutoModel.from_config if kind is AutoModel else kind._from_config
    with packages_there(source):
        model = build(config, **options)
    _check_layout(source, model.eval(), replace(spec, num_blocks=1))


def _check_layout(source: str, model: Any, spec: VisionSpec) -> None:
    blocks = blocks_of(model, spec.num_blocks)
    check_layout(source, partial(raw_output, model, spec), blocks, spec.image_size, spec.grid, spec.hidden_size)


def blocks_of(model: nn.Module, count: int) -> nn.ModuleList | None:
    """The first list of `count` modules: the transformer's blocks. None where there is none."""
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList))
    return next((one for one in lists if len(one) == count), None)


def raw_output(model: Any, spec: VisionSpec, pixel_values: Tensor) -> Any:
    """What the model itself returns for pixels [N, 3, H, W]."""
    inputs: dict[str, Any] = {"pixel_values": pixel_values}
    if spec.family.patchified:
        inputs = patchified(pixel_values, spec.grid)
    elif not spec.native_size and "interpolate_pos_encoding" in _forward_parameters(model.__class__):
        inputs["interpolate_pos_encoding"] = True
    if spec.family.masked:  # patches are sorted by this noise: all stay where they are
        inputs["noise"] = torch.arange(spec.num_tokens, device=pixel_values.device).expand(len(pixel_values), -1)
    return model(**inputs)


@cache
def _forward_parameters(kind: Any) -> frozenset[str]:
    """The names that the forward of a class of models takes."""
    return frozenset(inspect.signature(kind.forward).parameters)


class VisionEncoder(nn.Module):
    """An encoder, loaded frozen and in float32; one that has no row in the table of families is tried at once.

    Raises ConfigError for what does not return patch tokens in their order, CheckpointError for missing weights.
    """

    def __init__(self, source: str, image_size: tuple[int, int] | None = None, trust_remote_code: bool = False) -> None:
        super().__init__()
        self.spec = describe_vision(source, image_size, trust_remote_code)
        config = vision_config(source, trust_remote_code)
        refuse_adapter(source)
        if hasattr(config, "vision_use_head"):
            config.vision_use_head = False  # SigLIP's pooling head: nothing here would ever train it
        if self.spec.family.masked:
            config.mask_ratio = 0.0
        self.model: Any
        with quiet_loading(), readable_weights(source), packages_there(source):
            self.model, loading = load_tower(source, config, self.spec.family, trust_remote_code)
        refuse_missing_weights(source, loading)
        refuse_not_finite(source, self.model.named_parameters())
        self.unexpected_keys = sorted(loading["unexpected_keys"])
        unused = of_own_layers(self.model, self.unexpected_keys)
        refuse_unused(source, self.model, [key for key in unused if not key.startswith(self.spec.family.unused)])
        if self.spec.num_prefix_tokens is None:
            _check_layout(source, self.model.eval(), self.spec)
        self.set_trainable_blocks(0)

    @property
    def hidden_size(self) -> int:
        return self.spec.hidden_size

    @property
    def settings(self) -> dict[str, Any]:
        """What features depend on beside tensors and pixels."""
        return settings_of(self.model.config)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Normalised pixels [N, 3, H, W] -> patch tokens [N, S, D]. Raises ConfigError for tokens of other shape."""
        spec = self.spec
        hidden = raw_output(self.model, spec, pixel_values).last_hidden_state  # [N, prefix + S, D]
        prefix = hidden.shape[1] - spec.num_tokens
        fits = len(hidden) == len(pixel_values) and prefix >= 0 and hidden.shape[2] == spec.hidden_size
        if not fits or spec.num_prefix_tokens not in (None, prefix):
            before = "any number of" if spec.num_prefix_tokens is None else spec.num_prefix_tokens
            raise ConfigError(
                f"{type(self.model).__name__} returns {list(hidden.shape[1:])} for a view of {list(spec.image_size)} "
                f"pixels; expected {before} prefix tokens and {spec.num_tokens} of patches, each of {spec.hidden_size}"
            )
        tokens: Tensor = hidden[:, prefix:]  # [N, S, D]
        return tokens

    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        blocks = blocks_of(self.model, self.spec.num_blocks)
        if blocks is None:
            raise ConfigError(f"no list of {self.spec.num_blocks} blocks in {type(self.model).__name__}")
        return blocks

    def set_trainable_blocks(self, count: int) -> None:
        """Train nothing (0), the last `count` blocks with the norm behind them, or everything (-1).

        Parameters that patch tokens never pass (class-token norms, mask tokens) stay frozen always; the norm of an
        encoder without a row in the table, which nobody here knows by name, trains with -1 only.
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
        if count == -1 and self.spec.family is TRIED:
            unused = unused_parameters(self.model, partial(raw_output, self.model, self.spec), self.spec.image_size)
        for name, parameter in self.model.named_parameters():
            own = name.removeprefix("vision_model.")  # some versions of transformers wrap the tower once more
            if count > 0 and norm and own.startswith(f"{norm}."):
                parameter.requires_grad_(True)
            if name in unused or own.startswith(unused):
                parameter.requires_grad_(False)


def settings_of(config: Any) -> dict[str, Any]:
    """A configuration of transformers, model or image processor, without where it comes from and who wrote it."""
    stated: dict[str, Any] = json.loads(config.to_json_string())
    return {key: value for key, value in stated.items() if key not in ("_name_or_path", "transformers_version")}


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
def packages_there(source: str) -> Iterator[None]:
    """A model whose code needs a package that is not installed: a ConfigError that says so."""
    try:
        yield
    except ImportError as error:
        message = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ConfigError(f"{source}: {message}") from error


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
