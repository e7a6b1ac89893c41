"""From a panorama's file to the pixels that the encoder takes.

In: an image file, or the uint8 views that a cache holds. Out: uint8 views [V, h, w, 3] (`open`), and their
normalised float32 form [..., V, 3, h, w] (`pixels`). Resizing and cropping are always the views' own; only mean and
standard deviation come from the vision model. Cached and freshly rendered views go through the same two functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor
from transformers import BatchFeature
from transformers.image_processing_base import ImageProcessingMixin

from panollava.errors import CheckpointError, ConfigError
from panollava.files import read_json, write_json
from panollava.hub.folders import NATIVE_FILE, upload
from panollava.models.config import ModelConfig
from panollava.models.native_processing import NativeProcessing
from panollava.models.processor_native import NativeTextSide
from panollava.models.processor_text import (
    TextSide,
    has_text_side,
    is_saved_native,
    list_of_panoramas,
)
from panollava.models.shapes import plan_model_views
from panollava.models.vision import VisionEncoder, VisionSpec, describe_vision
from panollava.views.panorama import decode_panorama, place_image, read_planned
from panollava.views.render import open_views, render_views
from panollava.views.rendering import DEFAULT_RENDERING, Rendering
from panollava.views.strategies import View

PROCESSOR_FILE = "processor_config.json"
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PanoramaProcessor:
    """Views, their size (height, width) in pixels, and the mean and standard deviation of pixels in [0, 1].

    >>> from panollava.views.strategies import plan_views
    >>> half = (0.5, 0.5, 0.5)
    >>> processor = PanoramaProcessor(plan_views("anyres_e2p"), (64, 64), half, half)
    >>> views = np.zeros((2, 9, 64, 64, 3), dtype=np.uint8)  # of two panoramas
    >>> tuple(processor.pixels(views).shape), float(processor.pixels(views).max())
    ((2, 9, 3, 64, 64), -1.0)
    """

    views: tuple[View, ...]
    image_size: tuple[int, int]
    mean: Triple
    std: Triple
    rendering: Rendering = DEFAULT_RENDERING
    folder: Path | None = field(default=None, compare=False, repr=False)
    """The saved model that it was read from, whose tokenizer and prompt `processor(images, text)` uses."""

    @classmethod
    def for_model(cls, config: ModelConfig, vision: VisionEncoder | None = None) -> PanoramaProcessor:
        """The processor of a model, or of the model to be. Reads configuration files, no weights.

        `use_vision_processor` takes mean and std from the model's preprocessor_config.json (ConfigError when it
        states none); without it they are the published ones of the encoder's family. A native model gets pixels from 0
        to 255, which its own processor normalises.
        """
        if config.is_native:
            # The family's own processor normalises, inside the model: views arrive there as the bytes that they are.
            size = NativeProcessing.of(config.vlm_source, config.trust_remote_code).view_size(config.image_size)
            return cls(plan_model_views(config), size, (0.0, 0.0, 0.0), (1 / 255,) * 3, config.rendering)
        spec = vision.spec if vision else _spec_of(config)
        statistics = _stated_statistics(config.vision_source) if config.use_vision_processor else spec.family.statistics
        if statistics is None:
            raise ConfigError(
                f"no mean and std are known for {config.vision_name}: set image_processing.use_vision_processor: true"
            )
        return cls(plan_model_views(config), spec.image_size, *statistics, config.rendering)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write FOLDER/processor_config.json, which `from_pretrained` reads."""
        write_json(Path(folder) / PROCESSOR_FILE, {"processor_class": type(self).__name__, **self.to_json()})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> PanoramaProcessor:
        """The processor of a folder that `save_pretrained` wrote. Raises CheckpointError where it is not one."""
        native = is_saved_native(folder)  # beside the family's own processor_config.json
        path = Path(folder) / (NATIVE_FILE if native else PROCESSOR_FILE)
        try:
            document = read_json(path)
            return replace(cls.from_json(document["processor"] if native else document), folder=path.parent)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: no processor of panollava can be read: {error!r}") from error

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Upload processor_config.json by huggingface_hub; `options` are those of `hub.folders.upload`."""
        return upload(self.save_pretrained, repo_id, **options)

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, *, return_tensors: str = "pt", **_: Any
    ) -> BatchFeature:
        """`pixel_values` [B, V, 3, h, w] of one panorama or a list of them, and with `text` (one question a panorama)
        `input_ids`, `attention_mask` and `image_token_mask` [B, L] of prompts, padded left. Of a saved native model the
        inputs of its family instead, as AutoModelForImageTextToText takes them.

        A panorama is a path, a PIL image or an array uint8 [H, W, 3]. Text needs a processor of a whole saved model.
        Raises DataError for what is no panorama, ValueError for other numbers of questions.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors must be 'pt', got {return_tensors!r}")
        panoramas = [] if images is None else list_of_panoramas(images)
        batch: dict[str, Any] = {}
        if panoramas:
            batch |= self._pictures(np.stack([self.open(one) for one in panoramas]))
        if text is not None:
            asked = [text] if isinstance(text, str) else list(text)
            if len(asked) != len(panoramas):
                raise ValueError(f"{len(asked)} questions about {len(panoramas)} panoramas: give one each")
            batch |= self.text_side.batch(asked)
        return BatchFeature(batch)

    def _pictures(self, views: NDArray[np.uint8]) -> dict[str, Any]:
        whole = self.folder is not None and has_text_side(self.folder)
        return self.text_side.pictures(self, views) if whole else {"pixel_values": self.pixels(views)}

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """As transformers' processors: `__call__` of conversations, whose user turn names the panorama.

        With `tokenize=False` the prompt as text, in which ⟦picture⟧ represents the panorama.
        """
        return self.text_side.apply_chat_template(self, conversation, **options)

    @cached_property
    def text_side(self) -> TextSide:
        """Tokenizer and prompt of the saved model. Raises ConfigError where there is none."""
        native = self.folder is not None and is_saved_native(self.folder)
        return NativeTextSide.load(self.folder) if native else TextSide.load(self.folder)

    @property
    def tokenizer(self) -> Any:
        """The language model's; None of a processor that is read from no whole saved model."""
        return self.text_side.prompt.tokenizer if self.folder and has_text_side(self.folder) else None

    def batch_decode(self, ids: Any, **options: Any) -> list[str]:
        """Texts of ids [B, L]; special tokens are left out unless `options` say otherwise."""
        decoded: list[str] = self.text_side.prompt.tokenizer.batch_decode(
            ids, **{"skip_special_tokens": True, **options}
        )
        return decoded

    def decode(self, ids: Any, **options: Any) -> str:
        """The text of ids [L]."""
        return self.batch_decode([ids], **options)[0]

    def post_process_image_text_to_text(self, generated: Any, **options: Any) -> list[str]:
        """The answers in generated ids [B, T]: what pipelines call. A native model's ids begin with the prompt, which
        pipelines find again and take away."""
        texts = self.batch_decode(generated, **options)
        return texts if self.folder and is_saved_native(self.folder) else [text.strip() for text in texts]

    def open(self, panorama: str | Path | Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The panorama's views, uint8 RGB [V, h, w, 3], of a path, a PIL image or an array uint8 [H, W, 3].

        Raises DataError for what is not a usable panorama.
        """
        if not isinstance(panorama, (str, Path)):
            placed = place_image(panorama, level=self.rendering.level, north=self.rendering.north)
            return render_views(placed.pixels, self.views, self.image_size, self.rendering)
        return open_views(panorama, self.views, self.image_size, self.rendering)

    def panorama(self, path: str | Path, min_width: int | None = None, sha256: str | None = None) -> NDArray[np.uint8]:
        """The panorama itself as its views see it, uint8 RGB [H, W, 3] (see `load_panorama`). Raises DataError, and
        FileChanged where the file is not the one whose digest `sha256` is."""
        content, _ = read_planned(path, sha256)
        return decode_panorama(content, path, min_width, **self.rendering.pose)

    def pixels(self, views: Tensor | NDArray[np.uint8]) -> Tensor:
        """Normalised float32 [..., V, 3, h, w] of uint8 views [..., V, h, w, 3] (tensor or array)."""
        if isinstance(views, np.ndarray):
            views = torch.from_numpy(np.ascontiguousarray(views))
        if not isinstance(views, Tensor):
            raise TypeError(f"views must be a tensor or an array, got {type(views).__name__}")
        if views.dtype != torch.uint8:
            raise TypeError(f"views must be uint8, got {views.dtype}")
        wanted = (len(self.views), *self.image_size, 3)
        if tuple(views.shape[-4:]) != wanted:
            raise ValueError(f"views must be [..., {', '.join(map(str, wanted))}], got {list(views.shape)}")
        scale = torch.tensor(self.std, device=views.device) * 255
        shift = torch.tensor(self.mean, device=views.device) * 255
        return ((views.float() - shift) / scale).movedim(-1, -3).contiguous()

    def to_json(self) -> dict[str, Any]:
        return {
            "views": [view.to_json() for view in self.views],
            "image_size": list(self.image_size),
            "mean": list(self.mean),
            "std": list(self.std),
            **self.rendering.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> PanoramaProcessor:
        """The inverse of `to_json`."""
        height, width = document["image_size"]
        return cls(
            views=tuple(View.from_json(view) for view in document["views"]),
            image_size=(int(height), int(width)),
            mean=_triple(document["mean"]),
            std=_triple(document["std"]),
            rendering=Rendering.from_json(document),
        )


def _spec_of(config: ModelConfig) -> VisionSpec:
    return describe_vision(config.vision_source, config.image_size, config.trust_remote_code)


def _stated_statistics(source: str) -> tuple[Triple, Triple]:
    """Mean and std of pixels in [0, 1] that a vision model's image processor amounts to.

    Its arithmetic on pixels in [0, 255] is (pixel * rescale_factor - mean) / std, without the steps that `do_rescale`
    and `do_normalize` switch off. Raises ConfigError for what it states otherwise.
    """
    remedy = "set image_processing.use_vision_processor: false for the family's published mean and std"
    try:
        stated, _ = ImageProcessingMixin.get_image_processor_dict(source)
    except OSError as error:
        raise ConfigError(f"{source} has no image processor ({error}); {remedy}") from error
    subject = f"the image processor of {source}"
    mean, std, factor = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0
    if stated.get("do_flip_channel_order"):
        raise ConfigError(f"{subject} swaps red and blue (do_flip_channel_order), which views cannot")
    if stated.get("do_normalize", True):
        if stated.get("image_mean") is None or stated.get("image_std") is None:
            raise ConfigError(f"{subject} states no image_mean and image_std; {remedy}")
        mean = _stated_triple(stated["image_mean"], "image_mean", subject, remedy)
        std = _stated_triple(stated["image_std"], "image_std", subject, remedy)
    if stated.get("do_rescale", True):
        factor = stated.get("rescale_factor", 1 / 255)
        if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < math.inf:
            raise ConfigError(f"{subject} states the rescale_factor {factor!r}, expected a number above 0; {remedy}")
    if min(std) <= 0:
        raise ConfigError(f"{subject} states the image_std {list(std)}, expected numbers above 0; {remedy}")
    scale = factor * 255  # exactly 1 where the factor is the usual one
    if math.isclose(scale, 1.0, rel_tol=1e-6):
        return mean, std
    red, green, blue = mean
    return (red / scale, green / scale, blue / scale), (std[0] / scale, std[1] / scale, std[2] / scale)


def _stated_triple(stated: Any, key: str, subject: str, remedy: str) -> Triple:
    """Three numbers, or one for all channels."""
    values = stated if isinstance(stated, (list, tuple)) else [stated]
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)]
    if len(numbers) != len(values) or len(values) not in (1, 3):
        raise ConfigError(f"{subject} states the {key} {stated!r}, expected three numbers or one; {remedy}")
    return _triple(numbers * 3 if len(numbers) == 1 else numbers)


def _triple(values: Sequence[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
