"""Bars where somebody looks, lines elsewhere, and never a bar in a job or in a log file."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path
from types import SimpleNamespace

import pytest

from panollava import progress
from panollava.logs import LOGGER, start_log
from panollava.training.callbacks import Bars

WORK = """
import time
from pathlib import Path
from panollava.logs import LOGGER, start_log
from panollava.progress import bar, no_bars, track
{before}
start_log(Path("job.log"))
for one in track(range(30), 30, "Rendering"):
    time.sleep(0.01)
    if one == 15:
        LOGGER.info("half of it")
"""


def on_a_terminal(folder: Path, code: str) -> str:
    """What a program writes whose standard error is a terminal."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TQDM", "PANOLLAVA_BARS"))}
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=there, env=environment)
    os.close(there)
    said = b""
    try:
        while part := os.read(here, 65536):
            said += part
    except OSError:  # the other end is closed
        pass
    assert process.wait() == 0
    return said.decode()


def test_a_terminal_has_a_bar_and_the_log_file_has_none(tmp_path: Path) -> None:
    said = on_a_terminal(tmp_path, WORK.format(before=""))
    assert "Rendering:" in said and "/30 [" in said and "half of it" in said
    log = (tmp_path / "job.log").read_text()
    assert "half of it" in log and "Rendering" not in log and "\r" not in log


def test_a_job_draws_none_on_a_terminal_either(tmp_path: Path) -> None:
    said = on_a_terminal(tmp_path, WORK.format(before="no_bars()"))
    assert "Rendering: 30 done in" in said and "/30 [" not in said
    assert "Rendering: 30 done in" in (tmp_path / "job.log").read_text()


def test_a_notebook_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PANOLLAVA_BARS", raising=False)
    assert not progress.in_notebook()
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook() and progress.bars_are_shown()
    monkeypatch.setenv("PANOLLAVA_BARS", "0")
    assert not progress.bars_are_shown()


def test_training_and_validation_have_bars(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(progress, "bars_are_shown", lambda: True)
    start_log()
    trainer = SimpleNamespace(is_global_zero=True, global_step=2, current_epoch=0, num_val_batches=[4])
    bars = Bars("resampler", 10)
    bars.on_train_start(trainer, None)  # type: ignore[arg-type]
    for step in range(3, 11):
        trainer.global_step = step
        bars.on_train_batch_end(trainer, None, {}, None, step)  # type: ignore[arg-type]
    bars.on_validation_start(trainer, None)  # type: ignore[arg-type]
    for batch in range(4):
        bars.on_validation_batch_end(trainer, None, {}, None, batch)  # type: ignore[arg-type]
    handlers = list(LOGGER.handlers)
    bars.on_validation_end(trainer, None)  # type: ignore[arg-type]
    bars.on_train_end(trainer, None)  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert "Training resampler" in said and "2/10" in said and "Validating" in said
    assert handlers != LOGGER.handlers and len(LOGGER.handlers) == 1  # the console is as it was
    silent = Bars("vision", 10)
    silent.on_train_start(SimpleNamespace(is_global_zero=False, global_step=0), None)  # type: ignore[arg-type]
    assert "Training vision" not in capsys.readouterr().err
