"""The parts of SPICE and where they lie: Java, pycocoevalcap's jars, Stanford CoreNLP 3.6.0, our launcher.

pycocoevalcap ships SPICE without CoreNLP's two jars; `panollava setup-metrics` (spice_setup.py) brings them into the
user's cache folder. SPICE's own entry point prints through Nashorn, which left Java in version 15, so a launcher calls
the same scorer. Its class lies beside its source here: it is for Java 8 and so for every later one, and needs no
compiler, which a Java runtime lacks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from panollava.evaluation.metrics.java import cache_folder, java_version
from panollava.evaluation.metrics.ptb import coco_folder
from panollava.evaluation.metrics.result import MetricUnavailable

REMEDY = "run panollava setup-metrics"
LAUNCHER = "SpiceLauncher"
LAUNCHER_FOLDER = Path(__file__).with_name("launcher")
MINIMUM_JAVA = 8


@dataclass(frozen=True)
class Jar:
    """A jar of CoreNLP. `classifier` is its part of the Maven artifact edu.stanford.nlp:stanford-corenlp:3.6.0."""

    name: str
    classifier: str
    size: int
    sha256: str


CORENLP_JARS = (
    Jar(
        "stanford-corenlp-3.6.0.jar",
        "",
        7_270_741,
        "d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742",
    ),
    Jar(
        "stanford-corenlp-3.6.0-models.jar",
        "models",
        378_116_526,
        "d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd",
    ),
)


def spice_folder() -> Path:
    """CoreNLP's jars and SPICE's parses, for all projects of a user."""
    return cache_folder() / "spice"


def find_jar(jar: Jar) -> Path | None:
    """A CoreNLP jar in the cache folder or among pycocoevalcap's own, of the right size; None without."""
    for folder in (spice_folder(), coco_folder() / "spice" / "lib"):
        path = folder / jar.name
        if path.is_file() and path.stat().st_size == jar.size:
            return path
    return None


def missing_parts() -> list[str]:
    """What SPICE still lacks, in words; empty when it can run."""
    found = java_version()
    missing = []
    if found is None:
        missing.append("Java")
    elif java_major(found) < MINIMUM_JAVA:
        missing.append(f"Java {MINIMUM_JAVA} or later (found {found})")
    if any(find_jar(jar) is None for jar in CORENLP_JARS):
        missing.append("CoreNLP 3.6.0")
    return missing


def class_path() -> list[Path]:
    """Everything that SPICE's class path names. Raises MetricUnavailable with the remedy."""
    if missing := missing_parts():
        raise MetricUnavailable(f"{' and '.join(missing)} not installed: {REMEDY}")
    own = coco_folder() / "spice"
    jars = [path for jar in CORENLP_JARS if (path := find_jar(jar))]
    return [LAUNCHER_FOLDER, own / "spice-1.0.jar", *sorted((own / "lib").glob("*.jar")), *jars]


def java_major(version: str) -> int:
    """8 of "1.8.0_402", 17 of "17.0.15", 25 of "25-ea"; 0 where there is no number."""
    numbers = [int(digits) for digits in re.findall(r"\d+", version)]
    if not numbers:
        return 0
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]
