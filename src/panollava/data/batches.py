"""Group the rows of a shuffled epoch into batches (`training.batches`).

Takes a shuffled order and, for each row, its image and the length of its sequence. The batches are a function of that
order and of a generator's state. `mixed` takes the order as it is. `group_by_length` pads less: rows of like length are
alike in other ways too, so each batch is chosen among few rows, and the last bit of padding is traded away.
`group_by_image` lets a batch hold several rows of an image, which is then encoded and read once for all of them; traded
away is some of a batch's variety.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from panollava.data.samples import Row

Compose = Callable[[list[int], torch.Generator], list[list[int]]]
Ints = NDArray[np.int32]

POOL_BATCHES = 4
"""So many batches at a time are divided anew by length."""
ROWS_TOGETHER = 4
"""At most so many rows of a picture stay together."""


def composition(choice: str, batch_size: int, pictures: Ints, lengths: Ints) -> Compose | None:
    """How a value of `training.batches` makes batches; None for `mixed`, the order as it is."""
    made: dict[str, Compose | None] = {
        "mixed": None,
        "group_by_length": partial(group_by_length, lengths=lengths, batch_size=batch_size),
        "group_by_image": partial(group_by_image, pictures=pictures, batch_size=batch_size),
    }
    return made[choice]


def group_by_length(order: list[int], generator: torch.Generator, *, lengths: Ints, batch_size: int) -> list[list[int]]:
    """Batches of like length: pools of batches are sorted and cut, then all batches are shuffled.

    What does not fill a batch comes last, as it was.
    """
    filled = len(order) - len(order) % batch_size
    batches: list[list[int]] = []
    for start in range(0, filled, POOL_BATCHES * batch_size):
        pool = sorted(order[start : min(start + POOL_BATCHES * batch_size, filled)], key=lengths.__getitem__)
        batches += cut(pool, batch_size)
    places = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[place] for place in places] + cut(order[filled:], batch_size)


def group_by_image(order: list[int], generator: torch.Generator, *, pictures: Ints, batch_size: int) -> list[list[int]]:
    """Batches in which up to four rows of a picture follow each other; which ones, and where, changes by epoch."""
    groups: list[list[int]] = []
    filling: dict[int, list[int]] = {}
    for row in order:
        group = filling.setdefault(int(pictures[row]), [])
        if not group:
            groups.append(group)
        group.append(row)
        if len(group) == ROWS_TOGETHER:
            del filling[int(pictures[row])]
    places = torch.randperm(len(groups), generator=generator).tolist()
    return cut([row for place in places for row in groups[place]], batch_size)


def cut(order: list[int], batch_size: int) -> list[list[int]]:
    """Consecutive batches; the last one may be shorter."""
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def picture_numbers(rows: Sequence[Row]) -> Ints:
    """The picture of each row, counted in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.image_path, len(numbers)) for row in rows], np.int32)


def positions_read(batches: Sequence[Sequence[int]], pictures: Ints, lengths: Ints, begin: int) -> list[int]:
    """The positions that a language model reads of each batch.

    `begin` are those up to the end of the picture, which rows about one picture share; behind them a batch is as
    long as its longest row.
    """
    found = []
    for batch in batches:
        rows = list(batch)
        found.append(len(set(pictures[rows].tolist())) * begin + len(rows) * (int(lengths[rows].max()) - begin))
    return found
