"""Pictures that several sequences of a batch are about are read once.

In: a language model, the visual tokens of P pictures and B > P sequences that begin alike, up to the end of the
picture. Out: keys and values of that beginning for every sequence, through which gradients flow, so that only the
questions and answers behind it are computed per sequence. Causal attention makes the two the same: what a position
sees precedes it. Traded away: dropout that differs between the sequences of one picture.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from panollava.models.language import LanguageModel
from panollava.models.losses import supervised_positions
from panollava.models.probes import is_shared_cache
from panollava.models.prompt import ChatPrompt, PromptIds
from panollava.models.selection import select_rows


def checkpoints_activations(model: nn.Module) -> bool:
    """Whether activations are computed again in the backward pass, by whatever name this transformers calls it."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def cache_image_prefix(
    language: LanguageModel, tokens: Tensor, input_ids: Tensor, image_token_mask: Tensor, image_index: Tensor
) -> tuple[Any, int]:
    """`past` for `LanguageModel.forward` and the position behind the picture.

    tokens [P, T, D_lm], ids and mask [B, L], image_index [B]. `past` is None where it cannot be: under gradient
    checkpointing, which keeps no keys; for a model that remembers in another way than by keys and values; and where
    the sequences do not begin alike.
    """
    begin = int(image_token_mask[0].nonzero()[-1]) + 1
    head = begin - tokens.shape[1]
    same = (input_ids == input_ids[:1]) & (image_token_mask == image_token_mask[:1])
    checkpoints = language.training and checkpoints_activations(language.model)
    if checkpoints or not language.supports_prefix_cache or not bool(same[:, :begin].all()):
        return None, begin
    embedded = language.embed(input_ids[:1, :head]).expand(len(tokens), -1, -1)  # [P, L_head, D_lm]
    past = language.read(torch.cat([embedded, tokens.to(embedded.dtype)], dim=1))
    language.supports_prefix_cache = is_shared_cache(past)
    if not language.supports_prefix_cache:
        return None, begin
    copy_rows(past, image_index)
    return past, begin


def copy_rows(past: Any, rows: Tensor) -> None:
    """Make a cache of P sequences one of B = len(rows), in place, through which gradients flow."""
    for layer in past.layers:
        if layer.get_seq_length():
            layer.keys, layer.values = (select_rows(kept, rows) for kept in (layer.keys, layer.values))


@torch.no_grad()
def answer_losses(
    language: LanguageModel, prompt: ChatPrompt, tokens: Tensor, batches: list[list[PromptIds]]
) -> Iterator[Tensor]:
    """-log p [B] (float64) of the supervised tokens of each batch of sequences about one picture.

    `tokens` [1, T, D_lm] are the picture's. All sequences begin alike, up to its end; that part is read once, but by
    models that remember in another way than by keys and values.
    """
    device, first = tokens.device, batches[0][0]
    start = first.image_token_mask.index(True)
    end = start + tokens.shape[1]
    head = torch.tensor([first.input_ids[:start]], dtype=torch.long, device=device)
    embedded = language.embed(head)  # [1, L_head, D_lm]
    begin = torch.cat([embedded, tokens.to(embedded.dtype)], dim=1)
    read = language.read(begin) if language.supports_prefix_cache else None
    for sequences in batches:
        tails = [PromptIds(s.input_ids[end:], s.image_token_mask[end:], (s.labels or [])[end:]) for s in sequences]
        batch = prompt.collate(tails, side="right")
        ids, own, labels = (batch[key].to(device) for key in ("input_ids", "attention_mask", "labels"))
        mask = torch.cat([own.new_ones(len(tails), end), own], dim=1)
        columns, counted = supervised_positions(labels)  # [K], [B, K]
        if read is None:
            whole = torch.cat([begin.expand(len(tails), -1, -1), language.embed(ids)], dim=1)
            logits = language(whole, mask, columns + end)[counted]  # [N, vocab]
        else:
            past = copy.deepcopy(read)
            past.batch_repeat_interleave(len(tails))
            logits = language(language.embed(ids), mask, columns, past)[counted]
        targets = labels[:, columns + 1][counted]  # [N], row by row
        losses = F.cross_entropy(logits.float(), targets, reduction="none").double()
        yield losses.new_zeros(len(tails)).index_add_(0, counted.nonzero()[:, 0], losses)
