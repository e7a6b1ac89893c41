"""The typed dictionaries that the model returns."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from torch import Tensor


class VisionStageOutput(TypedDict):
    """`loss = vicreg_loss = vicreg_weight * vicreg_raw`, scalars; `vicreg_dim` is the projector's width.

    With `vision_loss: densecl` the same keys hold that loss.
    """

    loss: Tensor
    vicreg_loss: Tensor
    vicreg_raw: Tensor
    vicreg_weight: float
    vicreg_dim: int


class TrainingStageOutput(TypedDict):
    """`loss = ar_loss`, scalars; `logits` [N, vocab] of the supervised positions, or all [B, L, vocab].

    With an `overlap_loss_weight`, `loss = ar_loss + overlap_loss_weight * overlap_loss`.
    """

    loss: Tensor
    ar_loss: Tensor
    logits: Tensor
    overlap_loss: NotRequired[Tensor]


class GenerationOutput(TypedDict):
    """`generated_ids` [B, T] (new tokens only, padded after the end) and their text without special tokens."""

    generated_ids: Tensor
    text: list[str]
