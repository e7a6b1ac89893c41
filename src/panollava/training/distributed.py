"""Train one stage in several processes on one machine (data parallel, DDP).

Runs a training function in each process, with the environment that gives Lightning its rank. Rank 0 is the process that
was started; it holds the locks, writes every file and decides when to stop. The others follow: they are started when
all inputs are there, take no signals, and never outlive rank 0 (on Linux the kernel sees to it).

Lightning could start them too, by running the whole command again. Here they call one function, so that a stage may
train from a job, a notebook or a script alike, and more than once. Traded away: several machines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import torch
import torch.distributed
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from panollava.errors import PanollavaError, TrainingError
from panollava.logs import LOGGER, start_log
from panollava.processes import die_with_parent

GRACE_S = 30.0
"""How long rank 0 may stay in a collective operation after another rank has died."""


class LocalDDPEnvironment(LightningEnvironment):
    """Ranks that `other_ranks` has started: Lightning starts none, whatever the environment's variables say."""

    def __init__(self, rank: int, port: int) -> None:
        super().__init__()
        self._rank, self._port = rank, port

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self._port

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0


@dataclass(frozen=True)
class Worker:
    """One of the other ranks, seen from rank 0. `said` receives the message of its error."""

    rank: int
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def error(self) -> str:
        """Why it ended before rank 0 did."""
        self.said.seek(0)
        code = self.process.returncode
        return (
            self.said.read().decode(errors="replace").strip() or f"training process {self.rank} ended with code {code}"
        )


@contextmanager
def other_ranks(count: int, function: Callable[..., None], *arguments: Any) -> Iterator[LocalDDPEnvironment]:
    """Ranks 1 to `count - 1` run `function(environment, *arguments)` while the block runs as rank 0.

    Function and arguments are pickled. When the block ends, the others end. Raises TrainingError where one of them
    failed by itself and left rank 0 alone in an operation; any other error of rank 0 is raised unchanged.
    """
    port = find_free_network_port()
    workers: list[Worker] = []
    done = threading.Event()
    with contextlib.ExitStack() as files:
        try:
            for rank in range(1, count):
                said = files.enter_context(tempfile.TemporaryFile())
                workers.append(
                    _start(rank, said, (os.getpid(), function, (LocalDDPEnvironment(rank, port), *arguments)))
                )
                threading.Thread(target=_watch, args=(workers[-1], done), daemon=True).start()
            yield LocalDDPEnvironment(0, port)
            _leave_group()
        except RuntimeError as error:  # what an operation raises whose partner is gone
            dead = [worker for worker in workers if _ended(worker.process)]
            if not dead:
                raise
            # One that a signal killed has pulled down the others.
            raise TrainingError(min(dead, key=lambda worker: worker.process.returncode).error()) from error
        finally:
            done.set()
            for worker in workers:
                worker.process.kill()
                worker.process.wait()
            _leave_group()


def _start(rank: int, said: IO[bytes], work: tuple[Any, ...]) -> Worker:
    command = [sys.executable, "-m", "panollava.training.distributed"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, process_group=0)  # Ctrl-C is for rank 0
    assert process.stdin is not None
    with process.stdin as stream:
        stream.write(pickle.dumps(work))
    return Worker(rank, process, said)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return process.wait(timeout=5) != 0
    return False


def _watch(worker: Worker, done: threading.Event) -> None:
    """End rank 0 where a partner is gone and the operation that waits for it does not notice."""
    if worker.process.wait() != 0 and not done.wait(GRACE_S):
        LOGGER.error("%s. The same command goes on from the last saved state.", worker.error())
        os._exit(1)


def _follow() -> int:
    """The main function of the other ranks: what to call comes on standard input."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    parent, function, arguments = pickle.load(sys.stdin.buffer)
    die_with_parent(signal.SIGKILL, parent)
    start_log(level=logging.WARNING)
    to_rank_0, sys.stdout = sys.stdout, sys.stderr
    try:
        function(*arguments)
        _leave_group()
    except PanollavaError as error:
        print(error, file=to_rank_0, flush=True)
        return error.exit_code
    return 0


def _leave_group() -> None:
    """Leave torch's process group: the next stage of this process has other partners."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def ddp() -> DDPStrategy:
    """DDP whose sums do not depend on when a process was started.

    All parameters are used. But without `find_unused_parameters` DDP rearranges its buckets after a process' first
    step, and with three ranks or more the order of summation follows the place in a bucket: a resumed run would differ.
    """
    return DDPStrategy(find_unused_parameters=True)


@dataclass(frozen=True)
class Share:
    """A rank's part of a batch: `loss` to differentiate; `whole_loss` and `terms` of the batch of all ranks."""

    loss: Tensor
    whole_loss: Tensor
    terms: int


def share_of_batch(loss: Tensor, terms: int) -> Share:
    """From the mean `loss` over a rank's own `terms`: what makes all ranks together equal to one process.

    DDP takes the plain mean of the ranks' gradients, so each rank's loss is weighted by its share of all terms. Every
    rank must call this for every batch, also with 0 terms.
    """
    if not torch.distributed.is_initialized():
        return Share(loss, loss.detach(), terms)
    sums = torch.stack([loss.detach().double() * terms, loss.new_tensor(terms).double()])
    torch.distributed.all_reduce(sums)
    loss_sum, all_terms = sums
    weight = terms * torch.distributed.get_world_size() / all_terms
    return Share(loss * weight.to(loss.dtype), (loss_sum / all_terms).to(loss.dtype), int(all_terms))


if __name__ == "__main__":
    sys.exit(_follow())
