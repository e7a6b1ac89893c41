"""How long rows are as token sequences, and batches of rows of like length.

Enters: rows and a prompt. Leaves: a length per row, and an order of batches in which little is padded. Rows of like
length are alike in other ways too, so a batch is chosen among few: traded away is the last bit of padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from panollava.data.samples import Row
from panollava.models.prompt import ChatPrompt

POOL_BATCHES = 4
"""So many batches at a time are divided anew by length."""
_AT_ONCE = 1024


def row_lengths(prompt: ChatPrompt, rows: Sequence[Row], max_text_length: int) -> NDArray[np.int32]:
    """The length of each row's sequence in training: template, picture, query and answer with its end token.

    To within a token or two, where a tokenizer merges the query with the template around it.
    """
    shell = len(prompt.generation("").input_ids)
    lengths = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _AT_ONCE):
        some = rows[start : start + _AT_ONCE]
        queries = _token_counts(prompt, [row.query.strip() for row in some])
        answers = _token_counts(prompt, [row.annotation.strip() for row in some]) + 1
        room = np.maximum(1, max_text_length - queries)
        lengths[start : start + len(some)] = shell + queries + np.minimum(answers, room)
    return lengths


def _token_counts(prompt: ChatPrompt, texts: list[str]) -> NDArray[np.int32]:
    encoded: Any = prompt.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return np.fromiter(map(len, encoded), np.int32, len(texts))


def like_lengths(
    order: Sequence[int], lengths: NDArray[np.int32], batch_size: int, generator: torch.Generator
) -> list[list[int]]:
    """Batches of like length from a shuffled `order`: pools of batches are sorted and cut, then all shuffled.

    Equal order and equal state of `generator` give equal batches. What does not fill a batch comes last, as it was.
    """
    filled = len(order) - len(order) % batch_size
    batches: list[list[int]] = []
    for start in range(0, filled, POOL_BATCHES * batch_size):
        pool = sorted(order[start : min(start + POOL_BATCHES * batch_size, filled)], key=lengths.__getitem__)
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    places = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[place] for place in places] + ([list(order[filled:])] if filled < len(order) else [])


def padded_share(batches: Sequence[Sequence[int]], lengths: NDArray[np.int32]) -> float:
    """The share of all positions that hold padding when every batch is as long as its longest row."""
    held = sum(len(batch) * int(lengths[list(batch)].max()) for batch in batches)
    return 1 - float(lengths.sum()) / held
