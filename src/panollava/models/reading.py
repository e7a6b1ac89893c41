"""Pictures that several sequences of a batch are about are read once.

In: a language model, the visual tokens of P pictures and B > P sequences that begin alike, up to the end of the
picture. Out: keys and values of that beginning for every sequence, through which gradients flow, so that only the
questions and answers behind it are computed per sequence. Causal attention makes the two the same: what a position
sees stands before it. Traded away: dropout that differs between the sequences of one picture.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from panollava.models.language import LanguageModel
from panollava.models.probes import is_shared_cache
from panollava.models.selection import select_rows


def read_pictures(
    language: LanguageModel, tokens: Tensor, input_ids: Tensor, image_token_mask: Tensor, picture_of: Tensor
) -> tuple[Any, int]:
    """`past` for `LanguageModel.forward` and the position behind the picture.

    tokens [P, T, D_lm], ids and mask [B, L], picture_of [B]. `past` is None where it cannot be: under gradient
    checkpointing, which keeps no keys; for a model that remembers in another way than by keys and values; and where
    the sequences do not begin alike.
    """
    begin = int(image_token_mask[0].nonzero()[-1]) + 1
    head = begin - tokens.shape[1]
    same = (input_ids == input_ids[:1]) & (image_token_mask == image_token_mask[:1])
    checkpoints = language.training and language.model.is_gradient_checkpointing
    if checkpoints or not language.remembers_by_keys or not bool(same[:, :begin].all()):
        return None, begin
    embedded = language.embed(input_ids[:1, :head]).expand(len(tokens), -1, -1)  # [P, L_head, D_lm]
    past = language.read(torch.cat([embedded, tokens.to(embedded.dtype)], dim=1))
    language.remembers_by_keys = is_shared_cache(past)
    if not language.remembers_by_keys:
        return None, begin
    for layer in past.layers:
        if layer.get_seq_length():
            layer.keys, layer.values = (select_rows(kept, picture_of) for kept in (layer.keys, layer.values))
    return past, begin
