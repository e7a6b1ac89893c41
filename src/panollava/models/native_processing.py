"""A native model's own processor, with its tiling and resizing switched off: a view is seen as it was rendered.

In: a hub id or folder. Out: what the model's encoder takes, from views as uint8; the ids of a prompt with pictures; the
size of a view. Nothing here loads a weight, so that the DAG's planning can ask. Pixels are checked, not trusted: one
picture of noise must come out of the processor as it went in, but for mean and standard deviation.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_type_hints

import numpy as np
import torch
from torch import Tensor

from panollava.errors import CheckpointError, ConfigError
from panollava.extras import install
from panollava.models.native_families import NativeFamily, family_of
from panollava.models.vision import checkpoint_config, quiet_loading

_AS_RENDERED = {"do_resize": False, "do_center_crop": False}
_USUAL_SIDE = 448  # of a view where the family takes any size
_EXTRA = install("native")
_PACKAGES = {"torchvision": "torchvision", "num2words": "num2words", "timm": "timm"}


@dataclass(frozen=True)
class NativeProcessing:
    """The processor of a family, its configuration, and the id of a picture's token."""

    source: str
    config: Any
    family: NativeFamily
    processor: Any
    image_id: int

    @classmethod
    def of(cls, source: str, trust_remote_code: bool = False) -> NativeProcessing:
        """Raises ConfigError, saying what is lacking, where a family cannot be used; CheckpointError for a folder that
        cannot be read. Kept for the next caller while the folder's files stay."""
        return _processing(source, trust_remote_code, _stamp(source))

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @property
    def options(self) -> dict[str, Any]:
        """The processor's options for every picture: no tiles, no resizing."""
        known = _options_of(self.processor.image_processor)
        return {key: value for key, value in {**self.family.untiled, **_AS_RENDERED}.items() if key in known}

    def view_size(self, wanted: tuple[int, int] | None) -> tuple[int, int]:
        """(height, width) of a view in pixels: as wanted, else the family's own. Raises ConfigError for another size
        than the only one that the tower takes."""
        own = self._own_size()
        if wanted is None:
            if own is None:
                raise ConfigError(f"{self.source} states no size of pictures: set image_processing.image_size")
            return own
        fixed = self._fixed_size()
        if fixed is not None and wanted != fixed:
            raise ConfigError(
                f"image_size {list(wanted)} does not fit {self.source}, whose vision tower takes {list(fixed)} alone: "
                "leave image_processing.image_size unset"
            )
        return wanted

    def inputs(self, views: Tensor) -> dict[str, Tensor]:
        """What the model's encoder takes of uint8 views [B, V, 3, h, w], without tiling or resizing."""
        pictures = [list(panorama.unbind(0)) for panorama in views]
        found = self.processor.image_processor(
            images=pictures, return_tensors="pt", input_data_format="channels_first", **self.options
        )
        return {key: value for key, value in found.items() if isinstance(value, Tensor)}

    def prompt_inputs(self, text: str, views: int, size: tuple[int, int]) -> dict[str, Tensor]:
        """The processor's own output for a rendered conversation about `views` black pictures."""
        blank = [np.zeros((*size, 3), np.uint8) for _ in range(views)]
        options = {**self.options, "add_special_tokens": False, "return_tensors": "pt"}
        return dict(self.processor(text=[text], images=[blank], **options))

    def check_views(self, size: tuple[int, int], views: int) -> None:
        """Raise ConfigError where the processor changes views of this size, or where there are too few of them."""
        if views < self.family.fewest_views:
            raise ConfigError(
                f"{self.source} ({self.family.name}) cuts a single picture into tiles: choose a crop_strategy with at "
                f"least {self.family.fewest_views} views"
            )
        noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, views, 3, *size), dtype=np.uint8))
        try:
            problem = self._change(noise)
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if problem is not None:
            raise ConfigError(
                f"{self.source} ({self.family.name}) does not see views of {list(size)} pixels as they are rendered: "
                f"{problem}. Set image_processing.image_size to a size that its patches divide"
                + ("" if self._own_size() is None else f", for instance {list(self._own_size() or ())}")
            )

    def _change(self, views: Tensor) -> str | None:
        """What is different about the processor's pixels; None where nothing is."""
        found = self.inputs(views)
        if "pixel_values" not in found:
            return f"its processor returns {', '.join(sorted(found))}, but no pixel_values"
        pixels = found["pixel_values"].double()
        mask = found.get("pixel_attention_mask")
        if mask is not None and pixels.ndim == mask.ndim + 1 and mask.shape == pixels.shape[:-1]:
            pixels = pixels[mask.bool()]  # patches that only pad
        times, rest = divmod(pixels.numel(), views.numel())
        if rest or not times:
            return f"{views.numel():,} numbers became {pixels.numel():,}"
        settings = self.processor.image_processor
        mean, std = (self._statistic(settings, key) for key in ("image_mean", "image_std"))
        wanted = (views.double() / 255 - mean) / std
        difference = (pixels.flatten().sort()[0] - wanted.flatten().sort()[0].repeat_interleave(times)).abs().max()
        return None if difference < 1e-3 else f"its pixels differ by up to {float(difference):.3f}"

    @staticmethod
    def _statistic(settings: Any, key: str) -> Tensor:
        value = getattr(settings, key, None) if getattr(settings, "do_normalize", True) else None
        usual = 0.0 if key == "image_mean" else 1.0
        return torch.tensor([usual] * 3 if value is None else list(value), dtype=torch.float64).view(3, 1, 1)

    def _fixed_size(self) -> tuple[int, int] | None:
        """The only size that the tower takes; None where it takes several."""
        stated = getattr(getattr(self.config, "vision_config", None), "image_size", None)
        if self.family.any_size or stated is None:
            return None
        return _pair(stated)

    def _own_size(self) -> tuple[int, int] | None:
        fixed = self._fixed_size()
        if fixed is not None:
            return fixed
        settings = self.processor.image_processor
        step = self._step(settings)
        if step is None:
            return None
        side: float = _USUAL_SIDE
        size = getattr(settings, "size", None) or {}
        shortest, longest = (size.get(key) for key in ("shortest_edge", "longest_edge"))
        if getattr(settings, "merge_size", None) is not None:  # bounds are numbers of pixels
            side = min(max(side, (shortest or 0) ** 0.5), (longest or side**2) ** 0.5)
        elif getattr(settings, "tile_size", None) is not None:
            side = settings.tile_size
        elif longest is not None:
            side = min(side, longest)
        steps = max(1, int(side / step + 1e-6))
        return steps * step, steps * step

    @staticmethod
    def _step(settings: Any) -> int | None:
        """Pixels that a token of the prompt covers, along one side."""
        patch = getattr(settings, "patch_size", None) or getattr(settings, "encoder_patch_size", None)
        if patch is None:
            return None
        side = max(patch.values()) if isinstance(patch, Mapping) else _pair(patch)[0]
        merged: Any = getattr(settings, "merge_size", None) or getattr(settings, "downsample_factor", 1)
        return int(side) * int(merged)


@functools.lru_cache(maxsize=8)
def _processing(source: str, trust_remote_code: bool, stamp: tuple[tuple[str, int, int], ...]) -> NativeProcessing:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    config = checkpoint_config(source, trust_remote_code)
    family = family_of(config.model_type)
    if config.model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and not trust_remote_code:
        raise ConfigError(
            f"models.vlm_name: {source} has model type {config.model_type!r}, which is no model of images and text "
            "(AutoModelForImageTextToText). A language model is named by models.language_model_name"
        )
    if family.refused is not None:
        raise ConfigError(f"models.vlm_name: {source} ({family.name}) cannot be used: {family.refused}")
    if find_spec("torchvision") is None:
        raise ConfigError(
            f"models.vlm_name needs the package torchvision, for the processors of its families: {_EXTRA}"
        )
    try:
        with quiet_loading():
            processor = _family_processor(source, trust_remote_code)
    except ImportError as error:
        lacking = next((name for name in _PACKAGES if name in str(error)), None)
        message = f"needs the package {lacking}: {_EXTRA}" if lacking else " ".join(str(error).split())
        raise ConfigError(f"models.vlm_name: the processor of {source} {message}") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: its processor cannot be read: {' '.join(str(error).split())}") from error
    image_id = getattr(config, "image_token_id", None)
    image_id = getattr(config, "image_token_index", None) if image_id is None else image_id
    lacks = [
        what
        for what, there in (
            ("an image processor", getattr(processor, "image_processor", None) is not None),
            ("a tokenizer", getattr(processor, "tokenizer", None) is not None),
            ("a token that stands for a picture (image_token_id)", image_id is not None),
        )
        if not there
    ]
    if not lacks and not family.prefix_lm and _template_of(processor) is None:
        lacks.append("a chat template")
    if lacks:
        raise ConfigError(
            f"models.vlm_name: {source} ({family.name}) cannot be used as a native model: it lacks {', '.join(lacks)}"
        )
    return NativeProcessing(source, config, family, processor, int(cast(int, image_id)))


def _family_processor(source: str, trust_remote_code: bool) -> Any:
    """The family's own processor, also of a folder that panollava has saved (`hub`)."""
    from transformers import AutoProcessor

    load = getattr(AutoProcessor.from_pretrained, "family_processor", AutoProcessor.from_pretrained)
    return load(source, trust_remote_code=trust_remote_code)


def _stamp(source: str) -> tuple[tuple[str, int, int], ...]:
    """A stamp that changes with a local folder's small files; empty for the hub's models."""
    files = sorted(path for pattern in ("*.json", "*.jinja") for path in Path(source).glob(pattern))
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)


def _template_of(processor: Any) -> str | None:
    """The processor's chat template, or its tokenizer's; the default one where there are several."""
    found = getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None)
    if isinstance(found, Mapping):
        found = found.get("default")
    return found


def _options_of(image_processor: Any) -> set[str]:
    """The names of the options that an image processor knows."""
    known = set(inspect.signature(type(image_processor).__call__).parameters)
    stated = getattr(image_processor, "valid_kwargs", None)
    return known | set(get_type_hints(stated)) if stated is not None else known


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
