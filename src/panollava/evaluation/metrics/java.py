"""Java, as the PTB tokenizer and SPICE need it: where it is, which version, and a cache folder for parts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

from panollava.evaluation.metrics.result import MetricUnavailable


def cache_folder() -> Path:
    """The user's folder for metric parts: $PANOLLAVA_CACHE, else $XDG_CACHE_HOME/panollava, else ~/.cache/panollava."""
    if chosen := os.environ.get("PANOLLAVA_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "panollava"


def find_java() -> str | None:
    """The `java` of JAVA_HOME, else of PATH; None without one."""
    if home := os.environ.get("JAVA_HOME"):
        candidate = Path(home) / "bin" / "java"
        if candidate.is_file():
            return str(candidate)
    return shutil.which("java")


def java_version() -> str | None:
    """Java's version ("17.0.15"), or None where there is no Java or it does not start."""
    java = find_java()
    return None if java is None else _version_of(java)


@lru_cache(maxsize=4)
def _version_of(java: str) -> str | None:
    try:
        done = subprocess.run([java, "-version"], capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "([^"]+)"', done.stderr.decode(errors="replace"))
    return found.group(1) if found else None


def need_java() -> str:
    """Path of a Java that starts. Raises MetricUnavailable with the remedy."""
    java = find_java()
    if java is None:
        raise MetricUnavailable("Java not installed: run the command that panollava check-env prints")
    if _version_of(java) is None:
        raise MetricUnavailable(f"{java} -version fails: repair Java or set JAVA_HOME, then panollava check-env")
    return java
