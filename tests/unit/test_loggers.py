"""Runs of W&B: where they lie, by which server, under which identity."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lightning.pytorch.loggers as lightning_loggers
import pytest

from panollava.training.job import StageJob
from panollava.training.loggers import settings_of, training_loggers, wandb_offline
from panollava.training.run_stage import _loggers

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*PROXIES, *(name.upper() for name in PROXIES), "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class Server(ThreadingHTTPServer):
    """Answers everything with `status` and remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status, self.asked = 200, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_the_users_own_server_counts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    server.status = 404  # whatever it says: it is there
    assert not wandb_offline() and server.asked == ["/"]
    server.server_close()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_offline()


@pytest.mark.parametrize(("status", "offline"), [(200, False), (502, True)])
def test_a_proxy_is_the_way_there(server: Server, monkeypatch: pytest.MonkeyPatch, status: int, offline: bool) -> None:
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.example")
    server.status = status
    assert wandb_offline() is offline and server.asked == ["http://wandb.example/"]


@pytest.mark.parametrize(("mode", "offline"), [("offline", True), ("online", False)])
def test_wandb_mode_is_the_last_word(monkeypatch: pytest.MonkeyPatch, mode: str, offline: bool) -> None:
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_offline() is offline


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_runs_lie_below_the_logs_and_go_on_as_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(lightning_loggers, "WandbLogger", lambda **options: made.append(options))
    monkeypatch.setenv("WANDB_MODE", mode)
    state = tmp_path / "runs/E/finetune/v/.state"
    state.mkdir(parents=True)
    paths = dict.fromkeys(("train_csv", "val_csv", "train_views", "val_views", "cache", "stage_folder"), tmp_path)
    job = StageJob(
        stage="finetune", slice={}, digest="d", state_folder=state, root=tmp_path, untracked={"wandb_project": "p"},
        naming={"wandb_run": "E/finetune/x", "logs": "logs/E"}, **paths,
    )  # fmt: skip
    training_loggers(job)
    training_loggers(job)
    first, again = made
    assert first["save_dir"] == str(tmp_path / "logs/E") and (tmp_path / "logs/E").is_dir()
    assert first["version"] == again["version"] == json.loads((state / "wandb.json").read_text())["id"]
    assert (first["offline"], first.get("resume")) == (mode == "offline", None if mode == "offline" else "allow")
    (state / "wandb.json").unlink()  # the stage begins afresh
    training_loggers(job)
    assert made[2]["version"] != first["version"]


def configured(tmp_path: Path, **untracked: Any) -> StageJob:
    config = {"lora": {"rank": 8, "target_modules": ["q", "v"]}, "training": {"seed": None}}
    paths = dict.fromkeys(("train_csv", "val_csv", "train_views", "val_views", "cache", "state_folder"), tmp_path)
    return StageJob(
        stage="finetune", slice={"config": config}, digest="d", stage_folder=tmp_path / "stage", root=tmp_path,
        untracked=untracked, naming={"experiment": "E", "wandb_run": "E/finetune/x", "logs": "logs/E"}, **paths,
    )  # fmt: skip


def test_settings_are_flat_and_of_types_that_loggers_take(tmp_path: Path) -> None:
    assert settings_of(configured(tmp_path)) == {
        "experiment": "E", "stage": "finetune", "lora.rank": 8, "lora.target_modules": "['q', 'v']",
        "training.seed": "None",
    }  # fmt: skip


def test_tensorboard_gets_settings_and_learning_rates(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (logger,) = _loggers(configured(tmp_path, tensorboard=True))
    logger.log_metrics({"train_loss": 1.0, "learning_rate": 0.5}, step=1)
    logger.finalize("success")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "stage/tensorboard")).Reload()
    assert {"train_loss", "learning_rate"} <= set(events.Tags()["scalars"])
    assert any(tag.startswith("_hparams_/") for tag in events.summary_metadata)


def test_wandb_gets_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    (logger,) = _loggers(configured(tmp_path, wandb_project="p"))
    assert dict(logger.experiment.config)["lora.rank"] == 8
    logger.experiment.finish()
    assert list((tmp_path / "logs/E/wandb").glob("offline-run-*"))
