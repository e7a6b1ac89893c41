"""Encode images, given by their paths, to the vision encoder's patch tokens: the starting point of every measure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from panollava.data.dataset import PictureStore, picture_batch
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor

_PICTURES_AT_ONCE = 16


@torch.no_grad()
def encode(
    model: PanoramaModel, processor: PanoramaProcessor, pictures: PictureStore, paths: list[str], device: torch.device
) -> Tensor:
    """Patch tokens [B, V, S, D_vision] of some pictures, on `device`."""
    pixels = picture_batch([np.array(pictures[path]) for path in paths], processor)["pixel_values"]
    return model.encode_vision(pixels.to(device))


def encode_in_chunks(
    model: PanoramaModel, processor: PanoramaProcessor, pictures: PictureStore, paths: list[str], device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    """(path, patch tokens [V, S, D_vision]) of any number of pictures; few are held at once."""
    for start in range(0, len(paths), _PICTURES_AT_ONCE):
        some = paths[start : start + _PICTURES_AT_ONCE]
        yield from zip(some, encode(model, processor, pictures, some, device), strict=True)
