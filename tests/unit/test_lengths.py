"""Batches of rows of like length: nothing lost, nothing doubled, less padding, and an order of (seed, epoch) alone."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tiny_models import language_folder

from panollava.data.lengths import padded_share, row_lengths
from panollava.data.loader import SeededBatches
from panollava.data.samples import Row


def batches(lengths: np.ndarray, epoch: int = 0, **options: int) -> SeededBatches:
    found = SeededBatches(len(lengths), 4, seed=3, shuffle=True, lengths=lengths, **options)
    found.set_epoch(epoch)
    return found


@pytest.mark.parametrize("rows", [3, 4, 64, 130, 131])
def test_every_row_comes_once_and_in_batches_of_one_size(rows: int) -> None:
    lengths = np.random.default_rng(rows).integers(1, 99, rows).astype(np.int32)
    found = list(batches(lengths))
    assert sorted(chain(*found)) == list(range(rows))
    assert len(found) == len(batches(lengths))
    assert [len(batch) for batch in found] == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)


def test_less_is_padded_and_long_batches_come_at_any_time() -> None:
    lengths = np.random.default_rng(0).integers(1, 99, 640).astype(np.int32)
    mixed = SeededBatches(640, 4, seed=3, shuffle=True).batches()
    alike = batches(lengths).batches()
    assert padded_share([[0, 1]], np.array([1, 3], np.int32)) == pytest.approx(1 / 3)
    assert padded_share(alike, lengths) < 0.2 < 0.3 < padded_share(mixed, lengths)
    means = [lengths[batch].mean() for batch in alike]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    lengths = np.random.default_rng(1).integers(1, 99, 130).astype(np.int32)
    first = list(batches(lengths, 2))
    assert first == list(batches(lengths, 2)) != list(batches(lengths, 3))
    rest = batches(lengths, 2)
    rest.start_batch = 20
    assert list(rest) == first[20:]


def test_ranks_divide_each_batch_evenly_also_by_length() -> None:
    lengths = np.random.default_rng(2).integers(1, 99, 130).astype(np.int32)
    whole = list(batches(lengths))
    shares = [list(batches(lengths, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [sorted(one + two) for one, two in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]


def test_lengths_are_those_of_the_sequences(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from panollava.models.prompt import ChatPrompt

    prompt = ChatPrompt(AutoTokenizer.from_pretrained(language_folder(tmp_path, "qwen3")), 9, "Look around.")
    texts = [
        ("what?", "a"),
        (" is it behind you ", " a red box, on your left "),
        ("사진" * 40, "한국어 답"),
        ("q", "x" * 99),
    ]
    rows = [Row("a.png", *pair) for pair in texts]
    expected = [len(prompt.training(row.query, row.annotation, 40).input_ids) for row in rows]
    assert row_lengths(prompt, rows, 40).tolist() == expected
