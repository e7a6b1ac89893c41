"""`panollava models`: the zoo for people and programs; a configuration by questions, on a terminal or from a file."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml

from panollava.cli.main import main
from panollava.config import Project, WorkflowConfig
from panollava.views.strategies import CropStrategy, neighbour_pairs, plan_views
from panollava.zoo import NATIVE, zoo

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class Terminal:
    """`panollava models --interactive` on a pseudo-terminal of its own."""

    def __init__(self, root: Path) -> None:
        self.mine, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "panollava", "models", "--interactive"], cwd=root, stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True, preexec_fn=_take_terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "160"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def wait_for(self, text: str) -> str:
        """What was shown up to `text`, since the last call."""
        end = time.monotonic() + PATIENCE_S
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come:\n{self.seen}"
            if select.select([self.mine], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.mine, 65536).decode()
                except OSError:  # the other end is closed
                    assert text in self.seen, self.seen
        before, _, self.seen = self.seen.partition(text)
        return before

    def answer(self, question: str, *answers: str) -> str:
        before = self.wait_for(question)
        for text in answers:
            self.wait_for(": ")
            os.write(self.mine, f"{text}\n".encode())
        return before

    def interrupt(self) -> None:
        """Ctrl-C until it ends: one that comes between a question and the reading of its answer is not seen at once."""
        end = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < end:
            os.write(self.mine, b"\x03")
            time.sleep(0.2)

    def end(self) -> int:
        code = self.process.wait(timeout=PATIENCE_S)
        os.close(self.mine)
        return code


def _take_terminal() -> None:
    """So that Ctrl-C becomes a signal, and counts, also where the tests run in a shell's background."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("experiments", "ablations"):
        (tmp_path / "config" / name).mkdir(parents=True)
    (tmp_path / "config/default.yaml").write_text((ROOT / "config/default.yaml").read_text())
    (tmp_path / "config/experiments/OLD.yaml").write_text("experiment: {name: OLD}\n# mine\n")
    (tmp_path / "data").mkdir()
    for name in ("train", "val", "test"):
        (tmp_path / f"data/{name}.csv").write_text("url,query,annotation\nhttp://nowhere/a.jpg,q,a\n")
    return tmp_path


@pytest.fixture
def terminal(root: Path) -> Iterator[Terminal]:
    found = Terminal(root)
    yield found
    if found.process.poll() is None:
        found.process.kill()
        found.process.wait()


def test_an_experiment_by_questions(root: Path, terminal: Terminal) -> None:
    """Wrong answers are asked for again; an existing file stays as it is."""
    terminal.answer("experiment, or an ablation", "")
    terminal.answer("Its name?", "OLD")
    terminal.wait_for("there already")
    terminal.answer("Its name?", "a b")
    terminal.wait_for("must start with")
    terminal.answer("Its name?", "MINE")
    terminal.answer("Language model?", "qwen3_0.6")
    terminal.wait_for("Did you mean qwen3_0.6b?")
    terminal.answer("Language model?", "siglip_base")
    terminal.wait_for("is a vision model")
    shown = terminal.answer("Language model?", "qwen3_0.6b")
    shown = terminal.answer("Vision encoder?", "siglip2_base")
    assert "google/siglip2-base-patch16-256" in shown
    terminal.answer("Resampler", "transformer")
    terminal.wait_for("one of mlp")
    terminal.answer("Resampler", "qformer")
    terminal.answer("Crop strategy", "")
    terminal.answer("Folder of", "nowhere")
    terminal.wait_for("nowhere/train.csv")
    terminal.answer("Folder of", "data")
    terminal.answer("LoRA rank?", "0")
    terminal.wait_for("from 1 to 4096")
    terminal.answer("LoRA rank?", "8")
    terminal.wait_for("panollava run MINE")
    assert terminal.end() == 0
    cfg = WorkflowConfig.load("MINE", root)
    models = cfg.settings.models
    assert (models.language_model_name, models.vision_name) == ("Qwen/Qwen3-0.6B", "google/siglip2-base-patch16-256")
    assert (models.resampler_type, cfg.settings.lora.rank, cfg.settings.data.csv_val) == ("qformer", 8, "data/val.csv")
    assert cfg.missing_csvs() == []
    assert (root / "config/experiments/OLD.yaml").read_text() == "experiment: {name: OLD}\n# mine\n"


def test_an_ablation_by_questions(root: Path, terminal: Terminal) -> None:
    terminal.answer("experiment, or an ablation", "ab")
    terminal.answer("Its name?", "grid")
    terminal.answer("Language models, separated by commas?", "qwen_0.5b, llama_1b")
    terminal.answer("Vision encoder?", "clip_base")
    terminal.answer("Resampler", "")
    terminal.answer("Crop strategy", "resize")
    terminal.answer("Folder of", "synthetic")
    terminal.answer("LoRA ranks, separated by commas?", "4,4")
    terminal.wait_for("named twice")
    terminal.answer("LoRA ranks, separated by commas?", "4,8")
    terminal.wait_for("panollava run grid")
    assert terminal.end() == 0
    project = Project(root)
    names = [cell.names.experiment for cell in project.cells(project.ablation("grid"))]
    assert names == [f"grid_{model}_r{r}a{2 * r}" for model in ("qwen_0.5b", "llama_1b") for r in (4, 8)]
    document = yaml.safe_load((root / "config/ablations/grid.yaml").read_text())
    assert document["experiment_name"] == "grid" and document["lora_configs"][0]["lora_r"] == 4


def test_ctrl_c_writes_nothing(root: Path, terminal: Terminal) -> None:
    terminal.answer("experiment, or an ablation", "")
    terminal.answer("Its name?", "MINE")
    terminal.wait_for("Language model?")
    terminal.interrupt()
    assert terminal.end() not in (0, 2)
    assert [path.name for path in (root / "config/experiments").iterdir()] == ["OLD.yaml"]


def test_a_file_that_came_meanwhile_is_not_written_over(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from panollava.cli import interactive
    from panollava.errors import ConfigError

    monkeypatch.chdir(root)
    data = dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic")
    with pytest.raises(ConfigError, match="is there already"):
        interactive._write_experiment(Path(), "OLD", "a/b", "c/d", "mlp", "e2p", data, 4)
    assert (root / "config/experiments/OLD.yaml").read_text().endswith("# mine\n")
    assert [path.name for path in (root / "config/experiments").iterdir()] == ["OLD.yaml"]


@pytest.mark.parametrize("as_json", [True, False])
def test_the_list(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
    monkeypatch.setattr("sys.argv", ["panollava", "models", "--list", *(["--json"] if as_json else [])])
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    assert not ended.value.code and err == ""
    if as_json:
        document = json.loads(out)
        rows = document["models"]
        assert [row["id"] for row in document["native"]] == [row.id for row in NATIVE]
        assert [row["name"] for row in rows] == [row.name for row in zoo()]
        assert rows[0]["parameters"] == 494_032_768 and rows[0]["memory"]["training_bytes"] > 10**9
    else:
        assert "\x1b" not in out and all(f"{row.name}  " in out and row.id in out for row in zoo())
        assert all(row.id in out and row.family in out for row in NATIVE)


@pytest.mark.parametrize("complete", [True, False])
def test_answers_from_a_file(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], complete: bool
) -> None:
    answers = ["experiment", "PIPED", "qwen_0.5b", "siglip2_base", "", "e2p", "data", "8"]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{one}\n" for one in answers[: 8 if complete else 7])))
    monkeypatch.setattr("sys.argv", ["panollava", "models", "--interactive"])
    monkeypatch.chdir(root)
    with pytest.raises(SystemExit) as ended:
        main()
    out, err = capsys.readouterr()
    if complete:
        assert not ended.value.code and "panollava run PIPED" in out
        assert WorkflowConfig.load("PIPED", root).settings.image_processing.crop_strategy == "e2p"
    else:
        assert ended.value.code == 2 and "the answers end before the question 'LoRA rank?'" in err
        assert not (root / "config/experiments/PIPED.yaml").exists()


@pytest.mark.parametrize("crop", get_args(CropStrategy))
def test_every_crop_strategy_can_be_answered(root: Path, monkeypatch: pytest.MonkeyPatch, crop: str) -> None:
    from panollava.cli import interactive

    monkeypatch.chdir(root)
    data = dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic")
    interactive._write_experiment(Path(), "MINE", "a/b", "c/d", "mlp", crop, data, 4)
    stages = WorkflowConfig.load("MINE", root).settings.training.stages
    assert ("vision" in stages) == bool(neighbour_pairs(plan_views(crop)))
    assert crop in interactive._CROPS
