"""Verify a written model: the folder is loaded once more and compared before success is reported.

In: a model; later, the one that was read back. Out: nothing, or a CheckpointError that says which part differs.
Compared is what the model gives for one fixed picture and question, so that memory holds one model at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from panollava.errors import CheckpointError
from panollava.models.panorama_model import PanoramaModel

_WORDS = ("what is it?", "this")


@torch.no_grad()
def imprint(model: PanoramaModel) -> dict[str, Tensor]:
    """What the parts give, by their names, in the order of the computation; in eval mode, always the same."""
    training = model.training
    model.eval()
    try:
        with model.autocast():
            return _given(model)
    finally:
        model.train(training)


def _given(model: PanoramaModel) -> dict[str, Tensor]:
    parts: Any = model  # a native model has its encoder and what answers, a composed one a resampler between them
    generator = torch.Generator().manual_seed(0)
    if model.config.is_native:  # its pixels are bytes
        pixels = torch.rand(1, len(model.views), 3, *parts.prompt.size, generator=generator) * 255
    else:
        pixels = torch.randn(1, len(model.views), 3, *parts.vision.spec.image_size, generator=generator)
    features = model.encode_vision(pixels.to(model.device))
    found = {"vision encoder": features}
    if not model.config.is_native:
        if parts.language is None:
            return found | {"resampler": parts.vicreg_projector(parts.resampler(features))}
        found["resampler or projection"] = parts.encode_panorama(features)
    batch = parts.prompt.collate([parts.prompt.training(*_WORDS, 64)], side="right")
    tensors = {key: tensor.to(model.device) for key, tensor in batch.items()}
    return found | {"language model": parts(vision_features=features, **tensors, stage="finetune")["logits"]}


def answer_logits(model: PanoramaModel) -> Tensor:
    """Logits of a fixed answer about a fixed picture: what merging adapters must not change."""
    return imprint(model)["language model"]


def refuse_other(folder: Path, again: PanoramaModel, wanted: dict[str, Tensor]) -> None:
    """Raise CheckpointError where the model that was read from `folder` gives something else than the written one."""
    found = imprint(again)
    tolerance = 1e-3 if again.dtype == torch.float32 else 0.05
    for part, tensor in wanted.items():
        here = found[part].float().to(tensor.device)
        size = tensor.float().std().clamp_min(1e-9)
        if here.shape != tensor.shape or not bool((here - tensor.float()).abs().max() <= tolerance * size):
            raise CheckpointError(
                f"what was written is not what the model is: loaded once more, its {part} gives something else. "
                f"Nothing of it is left in {folder}. This is a fault of panollava, or of transformers with the family: "
                "please report it; the stage folder answers as before"
            )
