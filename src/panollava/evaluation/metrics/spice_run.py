"""Compute SPICE in its Java process, with parses kept between runs and experiments.

Returns one F score per sample. Parsing costs about 0.1 s a caption and is all that costs, so parses lie in an LMDB
folder in the user's cache folder. One process at a time holds it: a lock that Java inherits and that ends with the last
of both, so that two evaluations wait for each other and a killed one leaves nothing behind. Java keeps what it has
parsed every few captions, ends when its parent is gone, and parses damaged entries again; a folder that it cannot read
at all is built anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.java import java_version, need_java
from panollava.evaluation.metrics.spice_parts import LAUNCHER, class_path, java_major, spice_folder
from panollava.locks import take_flock
from panollava.logs import LOGGER

DEFAULT_HEAP = "2500m"
_START_S, _CAPTION_S = 600, 10  # a busy machine's allowance; a caption takes 0.1 s
_BATCH = 100  # captions between two savings
_BROKEN_CACHE = 3  # the launcher's exit code
_CRASHES = {-signal.SIGBUS, -signal.SIGSEGV, -signal.SIGABRT}  # what a damaged memory map does to Java
# What LMDB and FST do is warned of from Java 24 on.
_ALLOWED = ("--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")
# FST, which SPICE stores its parses with, looks into these packages of java.base; Java 8 knows no such option.
_OPENED = ("java.lang", "java.math", "java.util", "java.util.concurrent", "java.net", "java.text")


def spice_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]], heap: str, also: Sequence[str] = ()
) -> list[float]:
    """F of each sample's scene graph tuples, 0-1, in order. `heap` is the limit of Java's heap ("2500m").

    Captions in `also` are parsed and kept only. No caption holds a line break. Raises MetricUnavailable where a part is
    missing, EvaluationError when the scorer fails or takes too long, with the end of its output.
    """
    jars = class_path()
    captions: dict[str, int] = {}
    samples = [
        [captions.setdefault(text, len(captions)) for text in (prediction, *refs)]
        for prediction, refs in zip(predictions, references, strict=True)
    ]
    for text in also:
        captions.setdefault(text, len(captions))
    if any("\n" in text for text in captions):
        raise ValueError("spice_scores expects one line per caption; collapse white space first")
    with _locked_cache() as (cache, lock), tempfile.TemporaryDirectory(prefix="panollava-spice-") as folder:
        files = [Path(folder) / name for name in ("captions", "samples", "scores")]
        files[0].write_text("\n".join(captions), encoding="utf-8", newline="\n")
        files[1].write_text("\n".join(" ".join(map(str, one)) for one in samples), encoding="ascii", newline="\n")
        command = [*_java(jars, heap), *map(str, files), str(cache), str(len(os.sched_getaffinity(0))), str(_BATCH)]
        limit_s = _START_S + _CAPTION_S * len(captions)
        code, printed = _run(command, Path(folder), lock, limit_s)
        if code == _BROKEN_CACHE or code in _CRASHES:
            LOGGER.warning("SPICE's cache of parses is broken and is built anew: %s", cache)
            shutil.rmtree(cache)
            cache.mkdir()
            code, printed = _run(command, Path(folder), lock, limit_s)
        if code:
            raise EvaluationError(_problem(code, printed, heap, max(captions, key=len)))
        scores = [float(line) for line in files[2].read_text(encoding="ascii").split()]
    if len(scores) != len(samples):
        raise EvaluationError(f"SPICE returned {len(scores)} scores for {len(samples)} samples.")
    return scores


@contextmanager
def _locked_cache() -> Iterator[tuple[Path, IO[str]]]:
    """The folder of parses, held alone, and its lock."""
    folder = spice_folder() / "parses-1"  # the number of the launcher's format
    folder.mkdir(parents=True, exist_ok=True)
    with (spice_folder() / "parses.lock").open("a+") as lock:
        take_flock(lock, lambda _: LOGGER.info("another evaluation uses SPICE's parses in %s: waiting for it", folder))
        folder.mkdir(exist_ok=True)  # the one waited for may have removed it
        yield folder, lock


def _java(jars: Sequence[Path], heap: str) -> list[str]:
    version = java_major(java_version() or "")
    opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
    return [
        need_java(),
        f"-Xmx{heap}",
        "-XX:ErrorFile=hs_err.log",  # below the temporary folder, where Java runs
        "-Dfile.encoding=UTF-8",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *(opened if version >= 9 else []),
        *(_ALLOWED if version >= 24 else []),
        *("-cp", os.pathsep.join(map(str, jars)), LAUNCHER),
    ]


def _run(command: list[str], folder: Path, lock: IO[str], limit_s: float) -> tuple[int, str]:
    """Run Java in `folder` to its end; what it says goes to the log. Returns its exit code and its last words.

    Standard input stays open while this process lives, which is how Java learns of its death.
    """
    last: deque[str] = deque(maxlen=30)
    late = threading.Event()
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        pass_fds=(lock.fileno(),), encoding="utf-8", errors="replace",
    )  # fmt: skip

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(limit_s, stop)
    timer.start()
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                LOGGER.info("SPICE: %s", line.rstrip())
                last.append(line)
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.communicate()
    if late.is_set():
        raise EvaluationError(f"SPICE did not end within {limit_s:.0f} s.")
    return code, "".join(last).strip()


def _problem(code: int, printed: str, heap: str, longest: str) -> str:
    if "OutOfMemoryError" in printed:
        return (
            f"SPICE ran out of its {heap} of memory: raise evaluation.spice_heap (or $PANOLLAVA_SPICE_HEAP). The "
            f"longest caption has {len(longest.split())} words; parsing takes memory with the square of a sentence."
        )
    if code < 0:
        name = signal.Signals(-code).name
        return f"SPICE was ended by {name}. Perhaps memory ran out: lower evaluation.spice_heap below {heap}."
    return f"SPICE failed with exit code {code}. It said: {printed[-1500:] or 'nothing'}"
