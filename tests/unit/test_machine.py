"""Jobs side by side on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from panollava.dag import machine


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
