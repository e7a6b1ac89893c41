"""The text side of a saved native model's processor: the family's own inputs, for the family's own class.

In: panoramas' views as bytes, questions or conversations. Out: what AutoModelForImageTextToText takes of them, pixels
and prompts as panollava itself shows them to the model, positions along the ring among them. Configurations and
tokenizer are read, no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from panollava.errors import CheckpointError
from panollava.files import read_json
from panollava.hub.folders import NATIVE_FILE
from panollava.models.config import ModelConfig
from panollava.models.native_positions import head_positions, sequence_positions
from panollava.models.native_prompt import NativePrompt, native_prompt
from panollava.models.processor_text import TextSide
from panollava.models.prompt import Turn
from panollava.models.shapes import plan_model_views

if TYPE_CHECKING:
    from panollava.models.processor import PanoramaProcessor

_TYPES = ("token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True)
class NativeTextSide(TextSide):
    """`TextSide` with the settings of the saved model."""

    prompt: NativePrompt
    config: ModelConfig

    @classmethod
    def load(cls, folder: Path | None) -> NativeTextSide:
        """Reads configurations and the tokenizer, no weights.

        Raises CheckpointError for a panollava.json that cannot be read, ConfigError as `native_prompt`.
        """
        assert folder is not None
        path = folder / NATIVE_FILE
        try:
            recorded = {**read_json(path)["model"], "trust_remote_code": False}
            config = ModelConfig.from_json({**recorded, "vlm_path": str(folder), "adapter": None, "adapter_path": None})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error!r}") from error
        return cls(native_prompt(config, plan_model_views(config)), config)

    def pictures(self, processor: PanoramaProcessor, views: NDArray[np.uint8]) -> dict[str, Any]:
        bytes_first = torch.from_numpy(np.ascontiguousarray(views)).movedim(-1, -3)  # [B, V, 3, h, w]
        return {key: value for key, value in self.prompt.processing.inputs(bytes_first).items() if key in self._taken}

    def _collate(self, asked: Sequence[tuple[Sequence[Turn], str]]) -> dict[str, Any]:
        batch = super()._collate(asked)
        places: Tensor = batch.pop("image_token_mask")
        if self.prompt.processing.family.prefix_lm:  # 0: of the prompt, which sees all of itself
            batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
        else:
            batch |= {key: places.long() for key in _TYPES if key in self._taken}
        if self.config.panorama_positions == "panorope":  # else the class counts them by itself
            batch["position_ids"] = self._positions(batch["attention_mask"])
        return batch

    def _prompt_with(self, system_message: str) -> NativePrompt:
        prompt = self.prompt
        return NativePrompt(prompt.processing, prompt.views, prompt.size, system_message, bool(prompt.labels))

    def _positions(self, attention_mask: Tensor) -> Tensor:
        """Positions [B, L] or [3, B, L], as `NativeVLM` gives them to `generate`."""
        places = self.prompt.head == self.prompt.processing.image_id
        head, following = head_positions(places, self.prompt.views, self.prompt.grid, axes=self._axes, panorope=True)
        return sequence_positions(head, following, attention_mask)

    @cached_property
    def _axes(self) -> int:
        """3 where the family's positions are M-RoPE's, else 1."""
        from transformers import MODEL_MAPPING

        return 3 if hasattr(MODEL_MAPPING[type(self.prompt.processing.config)], "get_rope_index") else 1

    @cached_property
    def _taken(self) -> frozenset[str]:
        """The names of what the family's processor hands to its model."""
        processing = self.prompt.processing
        if processing.family.prefix_lm:
            return frozenset({"pixel_values"})
        text = self.prompt.text("x")
        return frozenset(processing.prompt_inputs(text, len(self.prompt.views), self.prompt.size))
