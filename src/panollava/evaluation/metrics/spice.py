"""SPICE (Anderson et al. 2016): F of scene-graph tuples, by pycocoevalcap's scorer and Stanford CoreNLP 3.6.0.

Parsing is what costs (88 ms a caption on two cores), so parses are kept in an LMDB cache in the user's cache folder; a
second experiment on the same test set parses its own predictions only. One process at a time holds the cache.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.java import need_java
from panollava.evaluation.metrics.ptb import SIGNATURE as PTB
from panollava.evaluation.metrics.result import MetricResult, mean, package_version
from panollava.evaluation.metrics.spice_parts import LAUNCHER, class_path, spice_folder
from panollava.evaluation.metrics.sums import means
from panollava.evaluation.metrics.texts import TextSet
from panollava.logs import LOGGER

HEAP = "2500m"
TIMEOUT_S = 4 * 3600
# FST, which SPICE stores its parses with, looks into these packages of java.base.
_OPENED = ("java.lang", "java.math", "java.util", "java.util.concurrent", "java.net", "java.text")


def spice(texts: TextSet) -> MetricResult:
    """Mean F of scene-graph tuples over samples, 0-1. $PANOLLAVA_SPICE_HEAP sets Java's heap (2500m).

    Raises MetricUnavailable where Java or CoreNLP is missing, EvaluationError when the scorer fails.
    """
    jars = class_path()
    predictions, references = texts.words()
    items = [
        {"image_id": index, "test": prediction, "refs": refs}
        for index, (prediction, refs) in enumerate(zip(predictions, references, strict=True))
    ]
    with _cache() as cache:
        try:
            scores = _score(jars, items, cache)
        except EvaluationError as error:
            if "lmdb" not in str(error).lower():
                raise
            LOGGER.warning("SPICE's cache of parses is broken and is built anew: %s", cache)
            shutil.rmtree(cache)
            cache.mkdir()
            scores = _score(jars, items, cache)
    tokens = PTB if texts.coco_tokens else "tok:raw"
    signature = f"corenlp:3.6.0|synsets:yes|{tokens}"
    return MetricResult(
        mean(scores), "0-1", "pycocoevalcap", package_version("pycocoevalcap"), signature, samples=means(scores)
    )


@contextmanager
def _cache() -> Iterator[Path]:
    """SPICE's cache of parses, held alone: LMDB files do not survive two writers of this age."""
    folder = spice_folder() / "parses-corenlp-3.6.0"
    folder.mkdir(parents=True, exist_ok=True)
    with (spice_folder() / "parses.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _score(jars: list[Path], items: list[dict[str, object]], cache: Path) -> list[float]:
    heap = os.environ.get("PANOLLAVA_SPICE_HEAP", HEAP)
    with tempfile.TemporaryDirectory(prefix="panollava-spice-") as folder:
        source, target = Path(folder) / "in.json", Path(folder) / "out.json"
        source.write_text(json.dumps(items), encoding="ascii")
        command = [
            need_java(),
            f"-Xmx{heap}",
            "-Dfile.encoding=UTF-8",
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED),
            *("-cp", os.pathsep.join(map(str, jars)), LAUNCHER),
            *(str(target), str(source), "-cache", str(cache), "-silent"),
            *("-threads", str(len(os.sched_getaffinity(0)))),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise EvaluationError(f"SPICE did not end within {TIMEOUT_S} s for {len(items)} samples.") from error
        if done.returncode or not target.is_file():
            told = done.stderr.decode(errors="replace").strip()
            helps = " Give it more memory: PANOLLAVA_SPICE_HEAP=8G." if "OutOfMemoryError" in told else ""
            raise EvaluationError(f"SPICE failed with exit code {done.returncode}.{helps} It said: …{told[-1500:]}")
        found = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(target.read_text("utf-8"))}
    if sorted(found) != list(range(len(items))):
        raise EvaluationError(f"SPICE returned {len(found)} scores for {len(items)} samples.")
    return [float(found[index]) for index in range(len(items))]
