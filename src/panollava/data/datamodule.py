"""The two loaders of a stage: training rows shuffled by (seed, epoch), validation rows in file order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from panollava.data.batches import Compose
from panollava.data.loader import ResumableLoader, SeededBatches


class StageDataModule(L.LightningDataModule):
    """Batches of one stage; both loaders share the collate function, validation has no augmentation either way.

    `compose` groups the training rows into batches (see `batches.composition`).
    """

    def __init__(
        self,
        train: Dataset[Any],
        val: Dataset[Any],
        collate: Callable[[list[Any]], Any],
        *,
        batch_size: int,
        num_workers: int,
        seed: int,
        compose: Compose | None = None,
    ) -> None:
        super().__init__()
        self.train, self.val, self.collate = train, val, collate
        self.batch_size, self.num_workers, self.seed, self.compose = batch_size, num_workers, seed, compose

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.val, shuffle=False)

    def _loader(self, dataset: Dataset[Any], *, shuffle: bool) -> DataLoader[Any]:
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        batches = SeededBatches(
            len(dataset),  # type: ignore[arg-type]
            self.batch_size,
            seed=self.seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
            compose=self.compose if shuffle else None,
        )
        return ResumableLoader(dataset, batches, self.collate, self.num_workers)
