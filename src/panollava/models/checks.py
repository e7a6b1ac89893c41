"""Validate the model's inputs: every tensor from outside is checked here, once.

Inside the model, shapes are trusted. Each function raises TypeError for a wrong type and ValueError for a wrong shape
or range, with what was expected and what was received.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from panollava.errors import PromptTooLong
from panollava.models.config import Stage

TEMPERATURES = (0.1, 1.0)


def check_stage(stage: Any) -> None:
    """Raise ValueError for a stage that does not exist."""
    if stage not in get_args(Stage):
        raise ValueError(f"stage must be one of {', '.join(get_args(Stage))}, got {stage!r}")


def check_pixels(pixel_values: Any, num_views: int | None, image_size: tuple[int, int]) -> Tensor:
    """Pixels as [B, V, 3, H, W]; [B, 3, H, W] counts as one view each. `num_views` None: any number."""
    _float_tensor("pixel_values", pixel_values)
    pixels: Tensor = pixel_values.unsqueeze(1) if pixel_values.ndim == 4 else pixel_values
    height, width = image_size
    wanted = f"[B, {num_views or 'V'}, 3, {height}, {width}]"
    if pixels.ndim != 5 or pixels.shape[2:] != (3, height, width) or 0 in pixels.shape:
        raise ValueError(f"pixel_values must be {wanted} (or [B, 3, H, W]), got {list(pixel_values.shape)}")
    if num_views is not None and pixels.shape[1] != num_views:
        raise ValueError(f"pixel_values must be {wanted}, got {list(pixel_values.shape)}")
    return pixels


def check_features(features: Any, shape: tuple[int, int, int]) -> Tensor:
    """Features as [B, V, S, D], `shape` (V, S, D). Raises TypeError and ValueError."""
    _float_tensor("vision_features", features)
    if features.ndim != 4 or tuple(features.shape[1:]) != shape or not len(features):
        raise ValueError(f"vision_features must be [B, {shape[0]}, {shape[1]}, {shape[2]}], got {list(features.shape)}")
    checked: Tensor = features
    return checked


def check_sequence(
    input_ids: Any, attention_mask: Any, image_token_mask: Any, labels: Any, batch: int, num_image_tokens: int
) -> None:
    """Ids, masks and labels of one batch: equal shapes [B, L] and `num_image_tokens` picture places a row."""
    given = {"input_ids": input_ids, "attention_mask": attention_mask, "image_token_mask": image_token_mask}
    for name, value in {**given, "labels": labels}.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor [B, L], got {type(value).__name__}")
        if value.shape != input_ids.shape or value.ndim != 2:
            raise ValueError(f"{name} must be [B, L] = {list(input_ids.shape)} like input_ids, got {list(value.shape)}")
    if input_ids.dtype != torch.long or labels.dtype != torch.long:
        raise TypeError(f"input_ids and labels must be int64, got {input_ids.dtype} and {labels.dtype}")
    if image_token_mask.dtype != torch.bool:
        raise TypeError(f"image_token_mask must be bool, got {image_token_mask.dtype}")
    if len(input_ids) != batch:
        raise ValueError(f"input_ids has {len(input_ids)} rows, the pictures {batch}")
    counts = image_token_mask.sum(dim=1)
    if not bool((counts == num_image_tokens).all()):
        raise ValueError(f"image_token_mask must mark {num_image_tokens} places in every row, got {counts.tolist()}")


def check_length(length: int, positions: int | None) -> None:
    """Raise PromptTooLong where a sequence has more tokens than the model has positions (None: it states no limit)."""
    if positions is not None and length > positions:
        raise PromptTooLong(
            f"a sequence of {length:,} tokens leaves the language model's {positions:,} positions: shorten the query, "
            "lower max_text_length or the number of image tokens"
        )


def check_image_index(image_index: Any, pictures: int) -> int:
    """The number of sequences, each about one of the `pictures`."""
    if not isinstance(image_index, Tensor) or image_index.dtype != torch.long or image_index.ndim != 1:
        raise TypeError("image_index must be an int64 tensor [B], the picture of each sequence")
    if not len(image_index) or int(image_index.min()) < 0 or int(image_index.max()) >= pictures:
        raise ValueError(f"image_index must name pictures 0 to {pictures - 1}, got {image_index.tolist()}")
    return len(image_index)


def is_padded_right(attention_mask: Tensor) -> bool:
    """Whether every row [L] of the mask is ones, then zeros."""
    return not bool((attention_mask.diff(dim=1) > 0).any())


def check_queries(queries: Any, batch: int) -> list[str]:
    """The queries as a list, one text per panorama of the `batch`. Raises TypeError and ValueError."""
    if isinstance(queries, str) or not isinstance(queries, Sequence):
        raise TypeError(f"queries must be a list of text, one per panorama, got {type(queries).__name__}")
    wrong = [query for query in queries if not isinstance(query, str)]
    if wrong:
        raise TypeError(f"queries must be text, got {wrong[0]!r}")
    if len(queries) != batch:
        raise ValueError(f"{len(queries)} queries for {batch} panoramas; one query per panorama is expected")
    return list(queries)


GREEDY: dict[str, Any] = {"max_new_tokens": 64, "do_sample": False, "temperature": 1.0, "top_p": 1.0}
"""The default settings of `generate`."""


def sampling_options(max_new_tokens: Any, do_sample: Any, temperature: Any, top_p: Any) -> dict[str, Any]:
    """Options of generation: greedy by default; temperature is clamped to [0.1, 1.0] with a warning."""
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int):
        raise TypeError(f"max_new_tokens must be a whole number, got {max_new_tokens!r}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be >= 1, got {max_new_tokens}")
    if not isinstance(do_sample, bool):
        raise TypeError(f"do_sample must be true or false, got {do_sample!r}")
    for name, value in (("temperature", temperature), ("top_p", top_p)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number, got {value!r}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    if temperature != temperature:  # not a number at all: there is no nearest one
        raise ValueError(f"temperature must be in [{TEMPERATURES[0]}, {TEMPERATURES[1]}], got {temperature}")
    clamped = min(max(float(temperature), TEMPERATURES[0]), TEMPERATURES[1])
    if clamped != temperature:
        warnings.warn(
            f"temperature {temperature} is outside [{TEMPERATURES[0]}, {TEMPERATURES[1]}]; using {clamped}",
            UserWarning,
            stacklevel=3,
        )
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": do_sample}
    if do_sample:
        options |= {"temperature": clamped, "top_p": float(top_p), "top_k": 0}
    return options


def _float_tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be floating point (normalised), got {value.dtype}")
