"""Build batches from rows and images.

Takes rows of a prepared CSV and a store of views (uint8) or of cached encoder features, and returns the keyword
arguments of `PanoramaVLM.forward`. One example per row; the image set is never held in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from panollava.data.samples import Row
from panollava.models.processor import PanoramaProcessor
from panollava.models.prompt import ChatPrompt


class PictureStore(Protocol):
    """Anything that gives a picture's views or features by its path in the prepared CSV."""

    def __getitem__(self, image_path: str) -> np.ndarray: ...


class CaptionDataset(Dataset[tuple[np.ndarray, Row]]):
    """(picture, row) pairs: views uint8 [V, h, w, 3] or features [V, S, D_vision] as their store holds them."""

    def __init__(self, rows: list[Row], pictures: PictureStore) -> None:
        self.rows, self.pictures = rows, pictures

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Row]:
        row = self.rows[index]
        return self.pictures[row.image_path], row

    def __getitems__(self, indices: list[int]) -> list[tuple[np.ndarray, Row]]:
        """A batch, for which each picture is read once."""
        rows = [self.rows[index] for index in indices]
        once = {path: self.pictures[path] for path in dict.fromkeys(row.image_path for row in rows)}
        return [(once[row.image_path], row) for row in rows]


class Collator:
    """Stacks pictures and, where the stage's loss reads text, builds prompts and labels. No items, no keys.

    Rows about one picture bring it once, and `image_index` says which each of them is about (not in the vision stage,
    whose loss takes each row's picture).

    Args:
        processor: normalises views; unused for features.
        prompt: None in the vision stage, whose loss sees no text.
        max_text_length: tokens of query and answer that training keeps.
        features: whether the pictures are cached encoder features.
        kept_views: which views [V] of a partial panorama the overlap loss compares, by image path; all of the others.
    """

    def __init__(
        self,
        processor: PanoramaProcessor,
        prompt: ChatPrompt | None,
        max_text_length: int,
        features: bool,
        kept_views: Mapping[str, Sequence[bool]] | None = None,
    ) -> None:
        self.processor, self.prompt = processor, prompt
        self.max_text_length, self.features = max_text_length, features
        self.kept_views = kept_views or {}

    def __call__(self, items: list[tuple[np.ndarray, Row]]) -> dict[str, Any]:
        if not items:
            return {}
        processor = None if self.features else self.processor
        if self.prompt is None:
            pictures = dict(picture_batch([picture for picture, _ in items], processor))
            return pictures | self._kept([row.image_path for _, row in items])
        once = {row.image_path: picture for picture, row in items}
        batch: dict[str, Any] = picture_batch(list(once.values()), processor)
        if len(once) < len(items):
            places = {path: place for place, path in enumerate(once)}
            batch["image_index"] = torch.tensor([places[row.image_path] for _, row in items])
        batch |= self._kept(list(once))
        encoded = [
            self.prompt.training(row.prompt, row.target, self.max_text_length, row.details.context_turns)
            for _, row in items
        ]
        batch.update(self.prompt.collate(encoded, side="right"))
        return batch

    def _kept(self, paths: list[str]) -> dict[str, Tensor]:
        """`{"kept_views": bool [P, V]}` where one of these panoramas is one of those; else nothing."""
        if not any(path in self.kept_views for path in paths):
            return {}
        all_views = [True] * len(self.processor.views)
        return {"kept_views": torch.tensor([self.kept_views.get(path, all_views) for path in paths])}


def kept_views(coverage: Mapping[str, Sequence[float]], min_coverage: float) -> dict[str, list[bool]]:
    """Which views of partial panoramas are covered enough, for those of which some are not."""
    kept = {path: [share >= min_coverage for share in shares] for path, shares in coverage.items()}
    return {path: views for path, views in kept.items() if not all(views)}


def picture_batch(pictures: list[np.ndarray], processor: PanoramaProcessor | None) -> dict[str, Tensor]:
    """`{"pixel_values": [B, V, 3, h, w]}`, or `{"vision_features": [B, V, S, D]}` where `processor` is None."""
    stacked = torch.from_numpy(np.stack(pictures))
    if processor is None:
        # bfloat16, which numpy does not know, is stored as its bits
        return {"vision_features": stacked.view(torch.bfloat16) if stacked.dtype == torch.uint16 else stacked}
    return {"pixel_values": processor.pixels(stacked)}
