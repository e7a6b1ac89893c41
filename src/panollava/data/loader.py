"""A seeded data loader that can resume in the middle of an epoch.

Yields batches of a map-style data set as a function of (seed, epoch) and of what `training.batches` looks at: a resumed
run sees exactly the batches that an uninterrupted one would have seen. Traded away: the freedom of
`torch.utils.data.RandomSampler`, whose order depends on how often a generator was used.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from panollava.data.batches import Compose, cut

_STOPPED_WORKER_S = 60


def _outlive_a_stop(worker: int) -> None:
    """Let a worker go on for a minute after SIGTERM.

    A cluster sends it to every process of a job; a worker that died of it would take the training down before its
    state is saved. Then the training ends its workers itself.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_STOPPED_WORKER_S))


class SeededBatches(Sampler[list[int]]):
    """Batches of indices: a permutation that depends on (seed, epoch), and of each batch this rank's share.

    `compose` makes batches of a shuffled order (see `batches.composition`); without it they are cut as they come.
    `batch_size` counts the rows of all ranks together: whatever their number, the batches are the same. Of the last,
    shorter batch a rank may get no row at all; it takes part with an empty share.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        compose: Compose | None = None,
    ) -> None:
        self.num_samples, self.batch_size, self.compose = num_samples, batch_size, compose
        self.seed, self.shuffle, self.rank, self.world_size = seed, shuffle, rank, world_size
        self.epoch = 0
        self.start_batch = 0

    @property
    def sampler(self) -> SeededBatches:
        """Lightning looks for `batch_sampler.sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_samples // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        start, self.start_batch = self.start_batch, 0
        for rows in self.batches()[start:]:
            yield self._share(rows)

    def _share(self, rows: list[int]) -> list[int]:
        """This rank's rows; neighbours, which may be about one picture, stay together where the order is not random."""
        if self.shuffle and self.compose is None:
            return rows[self.rank :: self.world_size]
        first, last = (-(-len(rows) * rank // self.world_size) for rank in (self.rank, self.rank + 1))
        return rows[first:last]

    def batches(self) -> list[list[int]]:
        """The epoch's batches, of all ranks together."""
        order = list(range(self.num_samples))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.num_samples, generator=generator).tolist()
            if self.compose is not None:
                return self.compose(order, generator)
        return cut(order, self.batch_size)


class ResumableLoader(DataLoader[Any]):
    """A DataLoader over `SeededBatches` that knows how many batches of this epoch it has handed out.

    `state_dict`/`load_state_dict` are called by Lightning when a checkpoint is written and read.
    `__iter__` is a generator on purpose: nothing is drawn before the epoch number is set.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batches: SeededBatches,
        collate: Callable[[list[Any]], Any],
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            collate_fn=collate,
            num_workers=num_workers,
            persistent_workers=False,
            worker_init_fn=_outlive_a_stop,
        )
        self._batches = batches
        self._handed_out = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._handed_out = self._batches.start_batch
        for batch in super().__iter__():
            self._handed_out += 1
            yield batch
        self._handed_out = 0

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._handed_out % len(self._batches)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._batches.start_batch = state["batches"]
