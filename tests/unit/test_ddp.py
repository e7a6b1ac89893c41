"""The parts of training on several devices that need no model: shares of batches, processes that come and go."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from itertools import chain
from pathlib import Path

import pytest
import torch

from panollava.data.loader import SeededBatches
from panollava.errors import TrainingError
from panollava.training import distributed
from panollava.training.distributed import other_ranks, share_of_batch


@pytest.mark.parametrize("ranks", [2, 3, 4])
@pytest.mark.parametrize("rows", [12, 24, 25, 3])
def test_all_shares_together_are_the_batches_of_one_process(rows: int, ranks: int) -> None:
    def batches(rank: int, world_size: int) -> list[list[int]]:
        sampler = SeededBatches(rows, 12, seed=3, shuffle=True, rank=rank, world_size=world_size)
        sampler.set_epoch(2)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    whole = batches(0, 1)
    shares = [batches(rank, ranks) for rank in range(ranks)]
    assert [sorted(chain(*parts)) for parts in zip(*shares, strict=True)] == [sorted(batch) for batch in whole]
    assert sorted(chain(*whole)) == list(range(rows))
    for parts in zip(*shares, strict=True):  # nobody has much more to do than another
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shares_epoch_goes_on_where_it_stopped() -> None:
    whole = list(SeededBatches(25, 4, seed=0, shuffle=True, rank=1, world_size=2))
    rest = SeededBatches(25, 4, seed=0, shuffle=True, rank=1, world_size=2)
    rest.start_batch = 3
    assert list(rest) == whole[3:] and whole[-1] == []


def test_one_process_keeps_its_loss() -> None:
    loss = torch.tensor(2.5, requires_grad=True)
    share = share_of_batch(loss, terms=7)
    assert share.loss is loss and share.whole_loss.item() == 2.5 and share.terms == 7


def test_a_rank_that_fails_is_named_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 gets an error from the operation that it shares with the others (gloo), or none at all (NCCL)."""
    ended = threading.Event()
    monkeypatch.setattr(distributed, "GRACE_S", 0.1)
    monkeypatch.setattr("os._exit", lambda code: ended.set())
    with pytest.raises(TrainingError, match="training process 1 ended with code 1"), other_ranks(2, sys.exit):
        assert ended.wait(300)
        raise RuntimeError("Connection closed by peer")


def sleep(_: object) -> None:
    time.sleep(300)


def test_an_error_of_rank_0_stands_and_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    with pytest.raises(ZeroDivisionError), other_ranks(3, sleep):
        followers = _children("panollava.training.distributed")
        assert len(followers) == 2
        raise ZeroDivisionError
    assert not _children("panollava.training.distributed")


def _children(module: str) -> list[str]:
    listed = subprocess.run(["ps", "-o", "args=", "--ppid", str(os.getpid())], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if module in line]
