"""Bring what this machine lacks for any metric: the work of `panollava setup-metrics`.

Java and WordNet are system packages: installed where that may be done, else named. SPICE's CoreNLP goes into the user's
cache folder, and so does NLTK's WordNet where the system's cannot be had.
"""

from __future__ import annotations

import os
import subprocess
import sys

from panollava.errors import EvaluationError
from panollava.evaluation.environment import check_environment, install_advice, install_command
from panollava.evaluation.metrics.java import cache_folder
from panollava.evaluation.metrics.spice_setup import setup_spice
from panollava.evaluation.metrics.wordnet import wordnet_source
from panollava.logs import LOGGER

PARTS = ("Java", "WordNet 3.0", "SPICE")


def setup_metrics() -> None:
    """Install what `check-env` reports missing for a metric. Raises EvaluationError naming what is still missing."""
    checks = [check for check in check_environment() if check.name in PARTS]
    if command := install_command(checks):
        if os.geteuid() == 0:
            LOGGER.info("%s", command)
            environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment)
        else:
            LOGGER.warning("this needs the system's administrator: %s", command)
    if wordnet_source() is None:
        _wordnet_by_nltk()
    problem = None
    try:
        setup_spice()
    except EvaluationError as error:
        problem = str(error)
    missing = [check for check in check_environment() if check.name in PARTS and not check.ok]
    if missing or problem:
        names = ", ".join(f"{check.name} ({check.needed_for})" for check in missing)
        raise EvaluationError("\n".join(filter(None, [f"still missing: {names}", problem, install_advice(missing)])))
    LOGGER.info("every metric can run; parts are in %s", cache_folder())


def _wordnet_by_nltk() -> None:
    """NLTK's own WordNet 3.0 (11 MB), which needs no administrator."""
    import nltk.downloader

    target = cache_folder() / "nltk_data"
    LOGGER.info("WordNet by NLTK, to %s", target)
    try:
        nltk.downloader.Downloader().download("wordnet", download_dir=str(target), quiet=True, raise_on_error=True)
    except (OSError, ValueError) as error:
        LOGGER.warning("NLTK's WordNet cannot be fetched: %s", error)
