"""What a job asks of the system before it works."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_FAULTS = """
import ctypes, resource
from panollava.processes import keep_freed_memory
if not hasattr(ctypes.CDLL(None), "mallopt"):
    print("no glibc")
    raise SystemExit
keep_freed_memory()

def step():
    return [bytearray(16 * 2**20) for _ in range(8)]  # zeroed, so every page is touched

step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(
    ("environment", "kept"),
    [
        ({}, True),
        ({"MALLOC_TRIM_THRESHOLD_": "0"}, False),
        ({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=0"}, False),
    ],
)
def test_a_job_uses_its_memory_again_unless_the_user_wants_it_otherwise(
    environment: dict[str, str], kept: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FAULTS], env=os.environ | environment, capture_output=True, text=True, check=True
    )
    if done.stdout.strip() == "no glibc":
        pytest.skip("the C library has no mallopt")
    pages = 5 * 8 * 16 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    assert (int(done.stdout) < pages // 20) is kept
