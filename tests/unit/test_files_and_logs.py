"""Files that appear whole, or why not; logs that are kept; results that tell who made them."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
from pathlib import Path

import pytest

from panollava.dag.script import out_of_memory
from panollava.errors import DataError, PanollavaError, StorageError
from panollava.files import atomic_dir, atomic_path, storage_error, write_json
from panollava.logs import start_log
from panollava.provenance import note_beside, read_digest, write_sidecar

DEAD = 2**22 + 1  # above the largest PID


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_the_files_own_name(tmp_path: Path, number: int) -> None:
    target = tmp_path / "result.txt"
    target.write_text("old")
    with pytest.raises(StorageError) as told, atomic_path(target) as partial:
        partial.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(told.value) == f"{target}: {os.strerror(number)}. Make room there, then run the same command again."
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["result.txt"]


def test_where_libraries_hide_the_systems_error_it_is_found(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "x")
        except OSError as error:
            raise RuntimeError("unexpected pos 704 vs 598") from error
    except RuntimeError as error:
        assert "No space left on device" in str(storage_error(error, "a.ckpt"))
    told = storage_error(ValueError("I/O error: No space left on device (os error 28)"), "a.safetensors")
    assert str(told).startswith("a.safetensors: No space left")
    told = storage_error(PermissionError(errno.EACCES, "x", str(tmp_path / "b.csv")), "a.csv")
    assert (
        str(told) == f"{tmp_path / 'b.csv'}: Permission denied. Allow writing there, then run the same command again."
    )
    assert storage_error(FileNotFoundError(errno.ENOENT, "x", "b"), "a") is None
    assert storage_error(ValueError("no"), "a") is None


def test_errors_that_have_a_message_keep_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 3"), atomic_path(tmp_path / "a"):
        raise DataError("row 3") from PermissionError(errno.EACCES, "x")


def test_what_killed_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    host = platform.node()
    dead = tmp_path / f".a.json.{host}.{DEAD}.partial"
    living = tmp_path / f".a.json.{host}.{os.getppid()}.partial"
    elsewhere = tmp_path / f".a.json.another-host.{DEAD}.partial"
    other_target = tmp_path / f".b.json.{host}.{DEAD}.partial"
    for partial in (dead, living, elsewhere, other_target):
        partial.write_text("half")
    dead_folder = tmp_path / f".model.{host}.{DEAD}.partial"
    dead_folder.mkdir()
    write_json(tmp_path / "a.json", {})
    with atomic_dir(tmp_path / "model") as partial:
        (partial / "weights").write_text("w")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a.json", "model", living.name, elsewhere.name, other_target.name}


def test_memory_that_ran_out_is_told_with_what_to_lower() -> None:
    assert out_of_memory(MemoryError(), "compute_metrics") == (
        "compute_metrics: out of memory. Run it where more memory is free."
    )
    cuda = RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nmore")
    assert out_of_memory(cuda, "predict") == (
        "predict: out of memory (CUDA out of memory. Tried to allocate 2 GiB). Lower training.eval_batch_size, or run "
        "it where more memory is free."
    )
    worker = RuntimeError("DataLoader worker (pid(s) 7) is killed by signal: Killed. ")
    assert "train_finetune: out of memory (DataLoader worker" in str(out_of_memory(worker, "train_finetune"))
    assert out_of_memory(RuntimeError("shapes"), "predict") is None


# ---- logs ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("removed", [False, True], ids=["by hand", "after Snakemake removed the log"])
def test_each_start_keeps_the_previous_log(tmp_path: Path, removed: bool) -> None:
    path = tmp_path / "logs/predict.log"
    for number in range(3):
        start_log(path).info("start %d", number)
        os.utime(path, (10**9 + number, 10**9 + number))
        if removed:
            path.unlink()
    start_log(path).info("last")
    texts = [file.read_text() for file in sorted(path.parent.glob("predict.*"))]
    assert [text.split()[-1] for text in texts] == ["0", "1", "2", "last"] and texts[3] == path.read_text()


def test_a_log_that_cannot_be_written_says_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = start_log(tmp_path / "a.log")
    (file,) = [handler for handler in logger.handlers if isinstance(handler, logging.FileHandler)]

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None: ...

    file.setStream(Full())  # type: ignore[type-var]
    logger.info("one")
    logger.info("two")
    text = capsys.readouterr().err
    assert text.count("No space left") == 1 and "Traceback" not in text and "one" in text and "two" in text
    start_log(None)


# ---- who made it ---------------------------------------------------------------------------------
def test_a_result_tells_by_which_slice_it_was_made(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"provenance": {"config": "abc"}})
    write_json(tmp_path / "checkpoint_metadata.json", {"checkpoint_info": {"config_digest": "def"}})
    table = tmp_path / "predictions.csv"
    with write_sidecar(table, "ghi"):
        table.write_text("a,b\n")
    names = ("metrics.json", "checkpoint_metadata.json", "predictions.csv")
    assert [read_digest(tmp_path / name) for name in names] == ["abc", "def", "ghi"]


def test_a_result_that_does_not_tell_was_made_by_nobody(tmp_path: Path) -> None:
    table, document = tmp_path / "predictions.csv", tmp_path / "metrics.json"
    assert read_digest(table) is None and read_digest(document) is None
    for text in ("", "{", "[]", "{}", json.dumps({"provenance": None})):
        document.write_text(text)
        assert read_digest(document) is None
    table.write_text("a,b\n")
    assert read_digest(table) is None
    with write_sidecar(table, "abc"):
        pass
    table.write_text("another one\n")
    assert read_digest(table) is None
    with write_sidecar(table, "abc") as told:
        told["seed"] = 42
    assert read_digest(table) == "abc" and note_beside(table) == {"seed": 42}
    before = table.stat()
    table.write_text("another 1ne\n")  # of the same size, and as old: edited all the same
    os.utime(table, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_digest(table) is None and note_beside(table) == {}
    with pytest.raises(PanollavaError), write_sidecar(table, "abc"):
        raise PanollavaError("half-way")
    assert read_digest(table) is None
