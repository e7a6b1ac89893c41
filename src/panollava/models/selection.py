"""Rows of a tensor by their numbers, some of them several times, with a gradient that is the same in every run."""

from __future__ import annotations

import torch
from torch import Tensor


def select_rows(values: Tensor, rows: Tensor, dim: int = 0) -> Tensor:
    """`values` [..., P, ...] at the `rows` (int64 [B]) of dimension `dim`: [..., B, ...].

    A row that is taken several times gets the sum of their gradients. On a CPU with several threads the backward pass
    of plain indexing adds them up in any order, and a resumed training would end with other bits; that of
    `index_select` adds them one after the other. On a GPU it is the other way round.
    """
    if values.device.type == "cpu":
        return torch.index_select(values, dim, rows)
    return values[(slice(None),) * dim + (rows,)]
