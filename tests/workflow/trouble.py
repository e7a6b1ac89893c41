"""Faults of jobs, and small or read-only file systems where this machine lets us mount them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent / "faults"
"""A folder for PYTHONPATH: its sitecustomize.py makes jobs fail as the variable FAULTS says."""


def mounted(*arguments: str) -> bool:
    """`mount …`; False where that is not allowed."""
    try:
        return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """`folder` can be read and not be written, not even by root. Skips the test where that cannot be had."""
    if not mounted("--bind", str(folder), str(folder)):
        pytest.skip("mounting a file system is not allowed here (root can write into every other folder)")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        unmount(folder)
