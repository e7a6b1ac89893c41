"""A stage that was stopped and resumed ends with the weights of one that was not, wherever it was cut."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from panollava.data.batches import Compose, composition
from panollava.data.datamodule import StageDataModule
from panollava.training.callbacks import Checkpoints, History, Interrupted, StepNoise
from panollava.training.module import StageModule
from panollava.training.state_folder import StateFolder

ROWS, BATCH, EPOCHS = 22, 4, 3  # 6 batches an epoch, the last one short
STEPS = 6 * EPOCHS


class Numbers(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.randn(40, generator=torch.Generator().manual_seed(index))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frozen = nn.Linear(40, 40).requires_grad_(False)
        self.hidden = nn.Linear(40, 40)
        self.noise = nn.Dropout(0.2)
        self.head = nn.Linear(40, 1)

    def forward(self, numbers: torch.Tensor, stage: str) -> dict[str, torch.Tensor]:
        seen = self.head(self.noise(self.hidden(self.frozen(numbers)).relu()))
        return {"loss": (seen[:, 0] - numbers.sum(1)).square().mean()}


class KillAt(L.Callback):
    """Ask this process to stop at a step of training, or during the validation of an epoch."""

    def __init__(self, step: int | None = None, validation_of_epoch: int | None = None) -> None:
        self.step, self.epoch = step, validation_of_epoch

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGTERM)


def run(
    folder: Path, optimizer: str = "muon", extra: list[L.Callback] | None = None, workers: int = 0, accumulate: int = 1,
    every: int = 4, compose: Compose | None = None, batch_size: int = BATCH, noise: float = 0.2,
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:  # fmt: skip
    folder.mkdir(exist_ok=True)
    state = StateFolder(folder)
    model = Model()
    model.noise.p = noise
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    steps = EPOCHS * math.ceil(math.ceil(ROWS / batch_size) / accumulate)
    module = StageModule(
        model, "resampler", kept=trainable, total_steps=steps, optimizer=optimizer, lr=1e-2, muon_lr=0.02,
        weight_decay=0.01, warmup_ratio=0.1,
    )  # fmt: skip
    checkpoints = Checkpoints(
        state, folder, every_n_steps=every,
        name_of=lambda epoch, loss: f"epoch{epoch}_{loss:.4f}.ckpt",
        write_weights=lambda path, epoch, step, loss: path.write_text(f"{epoch} {step} {loss}"),
    )  # fmt: skip
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=EPOCHS, accumulate_grad_batches=accumulate, gradient_clip_val=1.0,
        callbacks=[StepNoise(3), History(state, 2, STEPS), checkpoints, *(extra or [])], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )  # fmt: skip
    data = StageDataModule(
        Numbers(), Numbers(), lambda rows: {"numbers": torch.stack(rows)}, batch_size=batch_size, num_workers=workers,
        seed=7, compose=compose,
    )  # fmt: skip
    resume = state.resume_checkpoint
    trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume.is_file() else None, weights_only=True)
    return {name: p.detach().clone() for name, p in model.named_parameters()}, checkpoints.checkpoints


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_equal_runs(calm: tuple[Any, Any], wild: tuple[Any, Any]) -> None:
    for name, tensor in calm[0].items():
        assert torch.equal(tensor, wild[0][name]), name
    assert calm[1] == wild[1]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    return run(tmp_path_factory.mktemp("calm"))


# The first step, the last of an epoch, the first of the next, one after a regular save, the very last.
@pytest.mark.parametrize("step", [0, 4, 5, 6, 7, 11, 12, STEPS - 1])
def test_stopped_at_any_step(step: int, tmp_path: Path, undisturbed: Any) -> None:
    with pytest.raises(Interrupted, match=r"SIGTERM; state saved at step"):
        run(tmp_path, extra=[KillAt(step=step)])
    assert_equal_runs(undisturbed, run(tmp_path))


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_stopped_in_validation(epoch: int, tmp_path: Path, undisturbed: Any) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, extra=[KillAt(validation_of_epoch=epoch)])
    assert_equal_runs(undisturbed, run(tmp_path))


class KillAllAt(L.Callback):
    """As a cluster does: ask this process and those that load its data to stop, at once."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            workers = [str(process.pid) for process in multiprocessing.active_children()]
            assert workers
            # By another process: a worker takes its parent's SIGTERM for the end of the work.
            subprocess.run(["kill", "-TERM", *workers, str(os.getpid())], check=True)
            time.sleep(0.3)


def test_stopped_together_with_its_workers(tmp_path: Path, undisturbed: Any) -> None:
    with pytest.raises(Interrupted, match=r"SIGTERM; state saved at step 9"):
        run(tmp_path, extra=[KillAllAt(step=8)], workers=2)
    assert_equal_runs(undisturbed, run(tmp_path, workers=2))


def test_stopped_twice_with_workers(tmp_path: Path, undisturbed: Any) -> None:
    for step in (8, 15):
        with pytest.raises(Interrupted):
            run(tmp_path, extra=[KillAt(step=step)], workers=1)
    assert_equal_runs(undisturbed, run(tmp_path, workers=1))


@pytest.mark.parametrize("step", [0, 3, 4, 7])
def test_accumulated_gradients(step: int, tmp_path: Path) -> None:
    calm = run(tmp_path / "calm", "adamw", accumulate=2, every=1)
    with pytest.raises(Interrupted):
        run(tmp_path / "wild", "adamw", extra=[KillAt(step=step)], accumulate=2, every=1)
    assert_equal_runs(calm, run(tmp_path / "wild", "adamw", accumulate=2, every=1))


def test_accumulated_batches_train_as_one_large_batch(tmp_path: Path) -> None:
    """Also the epoch's last ones, 4 and 2 rows, and where a batch is the only one of its step."""
    for size, parts in ((2, 4), (4, 2)):
        small, _ = run(tmp_path / f"{size}", "adamw", accumulate=parts, batch_size=size, noise=0.0)
        large, _ = run(tmp_path / f"{size}large", "adamw", accumulate=1, batch_size=size * parts, noise=0.0)
        for name, tensor in large.items():
            torch.testing.assert_close(small[name], tensor, rtol=1e-4, atol=1e-6, msg=name)
        assert losses(tmp_path / f"{size}") == pytest.approx(losses(tmp_path / f"{size}large"), rel=1e-4)


@pytest.mark.parametrize("sizes", [[6], [4, 2], [1, 2, 3]])
def test_an_accumulated_gradient_is_the_mean_over_all_terms(sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning divides each loss by 3, the configured number of batches, also where an epoch ends with fewer."""
    module = StageModule(
        Model().eval(), "resampler", kept=set(), total_steps=1, optimizer="adamw", lr=1e-2, muon_lr=0.02,
        weight_decay=0.0, warmup_ratio=0.0,
    )  # fmt: skip
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module._trainer = SimpleNamespace(accumulate_grad_batches=3)  # type: ignore[assignment]
    rows = torch.stack([Numbers()[row] for row in range(6)])
    for part in rows.split(sizes):
        (module.training_step({"numbers": part}, 0)["loss"] / 3).backward()
    module.on_before_optimizer_step(torch.optim.SGD(module.parameters()))
    found = [p.grad for p in module.parameters() if p.requires_grad]
    whole = torch.autograd.grad(
        module.model(rows, stage="resampler")["loss"], [p for p in module.parameters() if p.requires_grad]
    )
    torch.testing.assert_close(found, list(whole))


@pytest.mark.parametrize(("step", "workers"), [(3, 0), (8, 1)])
@pytest.mark.parametrize("choice", ["group_by_length", "group_by_image"])
def test_composed_batches(choice: str, step: int, workers: int, tmp_path: Path, undisturbed: Any) -> None:
    known = np.random.default_rng(0).integers(1, 9, ROWS).astype(np.int32)
    compose = composition(choice, BATCH, known, known)
    calm = run(tmp_path / "calm", compose=compose)
    with pytest.raises(Interrupted):
        run(tmp_path / "wild", extra=[KillAt(step=step)], compose=compose, workers=workers)
    assert_equal_runs(calm, run(tmp_path / "wild", compose=compose, workers=workers))
    assert calm[1] != undisturbed[1]


def test_a_finished_run_stays_as_it_is(tmp_path: Path, undisturbed: Any) -> None:
    run(tmp_path)
    assert_equal_runs(undisturbed, run(tmp_path))


def losses(folder: Path) -> list[float]:
    """The column `loss` of a run's history."""
    return [float(line.split(",")[3]) for line in (folder / "history.csv").read_text().splitlines()[1:]]


def test_a_logged_loss_is_that_of_all_its_steps_also_after_a_resume(tmp_path: Path) -> None:
    """A row of the history covers two steps here; the run is cut between them."""
    run(tmp_path / "calm")
    with pytest.raises(Interrupted, match="saved at step 9"):
        run(tmp_path / "wild", extra=[KillAt(step=8)])
    run(tmp_path / "wild")
    assert losses(tmp_path / "wild") == losses(tmp_path / "calm")


def test_history_holds_each_step_once(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, extra=[KillAt(step=9)])
    run(tmp_path)
    rows = [line.split(",") for line in (tmp_path / "history.csv").read_text().splitlines()[1:]]
    steps = [int(row[1]) for row in rows if row[2] == "train"]
    assert steps == sorted(set(steps)) and steps[-1] == STEPS
    assert [int(row[0]) for row in rows if row[2] == "val"] == list(range(EPOCHS))
