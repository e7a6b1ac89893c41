"""The validation loss is the mean over all supervised tokens of the set, whatever the batches."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from panollava.data.datamodule import StageDataModule
from panollava.models.losses import IGNORED, answer_loss, supervised_positions
from panollava.training.loss_sum import LossSum
from panollava.training.module import StageModule

LENGTHS = (12, 2, 2, 2, 11, 3, 2, 2, 12, 2, 2)  # one long answer to three short ones; the last batch is shorter
VOCABULARY = 7


class Answers(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.randint(VOCABULARY, (1 + LENGTHS[row],), generator=torch.Generator().manual_seed(row))


def collate(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    if not rows:
        return {}
    labels = torch.full((len(rows), max(map(len, rows))), IGNORED)
    for place, row in enumerate(rows):
        labels[place, 1 : len(row)] = row[1:]  # the first token is the prompt's
    return {"labels": labels}


class Model(nn.Module):
    """Says the same everywhere; long answers hold other tokens, so that a batch's mean depends on its lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.arange(float(VOCABULARY)))

    def forward(self, labels: torch.Tensor, stage: str) -> dict[str, torch.Tensor]:
        columns, counts = supervised_positions(labels)
        targets = labels[:, columns + 1][counts]
        return {"loss": answer_loss(self.scores.expand(len(targets), -1), targets)}


def validated(batch_size: int) -> float:
    module = StageModule(
        Model(), "resampler", kept=set(), total_steps=1, optimizer="adamw", lr=1e-2, muon_lr=0.02, weight_decay=0.0,
        warmup_ratio=0.0,
    )  # fmt: skip
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    data = StageDataModule(Answers(), Answers(), collate, batch_size=batch_size, num_workers=0, seed=0)
    (found,) = trainer.validate(module, datamodule=data, verbose=False)
    return found["val_loss"]


@pytest.mark.parametrize("batch_size", [1, 2, 4, 8, 11])
def test_it_does_not_depend_on_the_batch_size(batch_size: int) -> None:
    tokens = torch.cat([Answers()[row][1:] for row in range(len(LENGTHS))])
    expected = nn.functional.cross_entropy(Model().scores.expand(len(tokens), -1), tokens).item()
    assert validated(batch_size) == pytest.approx(expected, abs=2e-6)


def test_panoramas_are_the_terms_where_no_text_is_read() -> None:
    class Pictures(nn.Module):
        def forward(self, pixel_values: torch.Tensor, stage: str) -> dict[str, Any]:
            return {"loss": pixel_values.mean()}

    module = StageModule(
        Pictures(), "vision", kept=set(), total_steps=1, optimizer="adamw", lr=1e-2, muon_lr=0.02, weight_decay=0.0,
        warmup_ratio=0.0,
    )  # fmt: skip
    values = torch.arange(7.0)
    for part in values.split(3):
        module.validation_step({"pixel_values": part}, 0)
    assert module._validated == LossSum(21.0, 7)


def test_an_empty_sum_is_no_number() -> None:
    empty = LossSum()
    assert empty.mean() != empty.mean()
    empty.add(2.0, 3)
    empty.add(5.0, 1)
    assert empty.mean() == 11 / 4
