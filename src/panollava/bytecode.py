"""Whether Python finds torch's compiled bytecode, or compiles it anew in every process.

Python writes bytecode caches as it imports. Where it may not (PYTHONDONTWRITEBYTECODE, which many container images set;
an image or an installation that is read-only) and the installer did not (uv does only with `--compile-bytecode`), each
job of the DAG compiles some 4,000 modules before it does anything: far longer than the imports themselves.
`benchmarks/bytecode.py` measures it.
"""

from __future__ import annotations

import os
import shlex
import sys
from importlib.util import cache_from_source, find_spec
from pathlib import Path

_LARGEST = "torch"


def why_compiled_anew() -> str | None:
    """Why every process compiles torch and its like anew; None where it does not, after the first. Imports nothing."""
    spec = find_spec(_LARGEST)
    if spec is None or spec.origin is None or not spec.has_location:
        return None
    cached = Path(cache_from_source(spec.origin))
    if cached.is_file():
        return None
    if sys.dont_write_bytecode:
        return "PYTHONDONTWRITEBYTECODE is set, and the packages were installed without their bytecode"
    folder = next(parent for parent in cached.parents if parent.exists())
    if not os.access(folder, os.W_OK):
        return f"{folder} may not be written, and the packages were installed without their bytecode"
    return None


def remedy() -> str:
    """The command that compiles what is installed beside torch, once, or whose it is to give."""
    spec = find_spec(_LARGEST)
    folder = Path(spec.origin).parents[1] if spec is not None and spec.origin is not None else Path(sys.prefix)
    command = shlex.join([sys.executable, "-m", "compileall", "-q", str(folder)])
    if os.access(folder, os.W_OK):
        return command
    return f"{command} (by whoever may write there), or PYTHONPYCACHEPREFIX=FOLDER names one that may be written"
