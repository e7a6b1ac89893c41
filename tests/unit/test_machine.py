"""Jobs side by side on a machine without a GPU, and the memory that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from panollava.config import Project
from panollava.dag import machine
from panollava.dag.nodes import RULES
from panollava.dag.options import memory_mb


@pytest.mark.parametrize("file", ["nvidia0", "nvidiactl", "kfd", "dxg", "nvhost-gpu", "accel0"])
def test_a_device_file_says_that_there_is_a_gpu(tmp_path: Path, file: str) -> None:
    for other in ("null", "nvme0n1", "nvram", "sda", "shm"):
        (tmp_path / other).touch()
    assert not machine.has_gpu(tmp_path)
    (tmp_path / file).touch()
    assert machine.has_gpu(tmp_path)


def test_jobs_share_a_gpu_by_turns_and_a_machine_without_one_by_cores_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "machine_memory", lambda: 24 * 10**9)
    monkeypatch.setattr(machine, "has_gpu", lambda: False)
    assert machine.limits_without_gpu(8) == {"gpu": 8, "mem_mb": 24000}
    monkeypatch.setattr(machine, "has_gpu", lambda: True)
    assert machine.limits_without_gpu(8) == {}


@pytest.mark.parametrize(
    ("changes", "memory"),
    [
        ({}, 4000),
        ({"vlm_name": "miniature/vlm", "vision_name": None, "language_model_name": None}, 4000),
        ({"language_model_name": "Qwen/Qwen3-0.6B"}, 16000),
        ({"vision_name": "google/siglip2-base-patch16-224"}, 16000),
    ],
)
def test_miniatures_ask_for_less_memory(changes: dict[str, Any], memory: int) -> None:
    experiment = Project(ROOT).experiment("EXP1")
    models = experiment.settings.models.model_copy(update=changes)

    class Changed:
        settings = experiment.settings.model_copy(update={"models": models})

    for rule in ("train_finetune", "predict", "measure_overlap"):
        assert memory_mb(RULES[rule].resources, Changed()) == memory, rule  # type: ignore[arg-type]
    assert memory_mb(RULES["judge"].resources, Changed()) == 16000  # type: ignore[arg-type]
