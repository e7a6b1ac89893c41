"""Which rows stand together: nothing lost, nothing doubled, and an order of (seed, epoch) alone."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tiny_models import language_folder

from panollava.data.batches import composition, picture_numbers, positions_read
from panollava.data.lengths import row_lengths
from panollava.data.loader import SeededBatches
from panollava.data.samples import Row

CHOICES = ("mixed", "group_by_length", "group_by_image")


def batches(rows: int, choice: str, epoch: int = 0, **ranks: int) -> SeededBatches:
    noise = np.random.default_rng(rows)
    lengths, pictures = (noise.integers(low, high, rows).astype(np.int32) for low, high in ((10, 99), (0, 9)))
    found = SeededBatches(rows, 4, seed=3, shuffle=True, compose=composition(choice, 4, pictures, lengths), **ranks)
    found.set_epoch(epoch)
    return found


def positions(rows: int, choice: str) -> float:
    noise = np.random.default_rng(rows)
    lengths, pictures = (noise.integers(low, high, rows).astype(np.int32) for low, high in ((10, 99), (0, 9)))
    return sum(positions_read(batches(rows, choice).batches(), pictures, lengths, begin=10))


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("rows", [3, 4, 64, 130, 131])
def test_every_row_comes_once_and_in_batches_of_one_size(rows: int, choice: str) -> None:
    found = list(batches(rows, choice))
    assert sorted(chain(*found)) == list(range(rows))
    assert len(found) == len(batches(rows, choice))
    assert [len(batch) for batch in found] == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)


@pytest.mark.parametrize("choice", CHOICES)
def test_an_epoch_is_a_function_of_seed_and_number(choice: str) -> None:
    first = list(batches(130, choice, 2))
    assert first == list(batches(130, choice, 2)) != list(batches(130, choice, 3))
    rest = batches(130, choice, 2)
    rest.start_batch = 20
    assert list(rest) == first[20:]


@pytest.mark.parametrize("choice", CHOICES)
def test_ranks_divide_each_batch_evenly(choice: str) -> None:
    whole = list(batches(130, choice))
    shares = [list(batches(130, choice, rank=rank, world_size=3)) for rank in range(3)]
    together = [list(chain(*parts)) for parts in zip(*shares, strict=True)]
    assert [sorted(batch) for batch in together] == [sorted(batch) for batch in whole]
    assert (together == whole) is (choice != "mixed")  # neighbours stay together where they may be about one picture
    assert max(len(part) for parts in shares for part in parts) == 2


def test_less_is_padded_and_read() -> None:
    assert positions_read([[0, 1, 2]], np.array([7, 7, 8]), np.array([12, 14, 13]), begin=10) == [2 * 10 + 3 * 4]
    assert positions(640, "group_by_length") < 0.8 * positions(640, "mixed")
    assert positions(640, "group_by_image") < positions(640, "mixed")


def test_long_batches_come_at_any_time() -> None:
    lengths = np.random.default_rng(640).integers(10, 99, 640)
    means = [lengths[batch].mean() for batch in batches(640, "group_by_length").batches()]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_rows_of_a_picture_follow_each_other_at_most_four_and_not_always_the_same() -> None:
    pictures = picture_numbers([Row(f"{number % 20}.png", "q", "a") for number in range(120)])
    assert pictures[:22].tolist() == [*range(20), 0, 1]

    def groups(epoch: int) -> list[frozenset[int]]:
        sampler = SeededBatches(
            120, 8, seed=0, shuffle=True, compose=composition("group_by_image", 8, pictures, pictures)
        )
        sampler.set_epoch(epoch)
        order = list(chain(*sampler))
        ends = [place for place in range(1, 120) if pictures[order[place]] != pictures[order[place - 1]]]
        return [frozenset(part) for part in np.split(np.array(order), ends)]

    assert {len(group) for group in groups(0)} <= {2, 4, 6, 8}  # 6 rows a picture: 4 and 2, which may meet
    assert np.mean([len(group) for group in groups(0)]) < 4
    assert not set(groups(0)) & set(groups(1)) or set(groups(0)) != set(groups(1))


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
    mask = prompt.generation("what?").image_token_mask
    assert mask[prompt.picture_end - 1] and not mask[prompt.picture_end]
