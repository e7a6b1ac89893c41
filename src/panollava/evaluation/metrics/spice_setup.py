"""Bring CoreNLP 3.6.0 and its models (386 MB) into the user's cache folder: the work of `panollava setup-metrics`.

Maven, where it is installed, fetches both jars by the user's own settings; else, or where it fails, they come out of
the zip that pycocoevalcap names (536 MB), whose download goes on where it was interrupted. A jar appears under its
name only after its SHA-256 was found right.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import requests
from requests import HTTPError, RequestException
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from panollava.errors import EvaluationError
from panollava.evaluation.metrics.spice_parts import CORENLP_JARS, Jar, find_jar, spice_folder
from panollava.files import atomic_path, sha256_file
from panollava.locks import locked
from panollava.logs import LOGGER
from panollava.progress import track

ARTIFACT = "edu.stanford.nlp:stanford-corenlp:3.6.0"
ZIP_URL = "http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
_MAVEN_TIMEOUT_S = 3600
_CHUNK = 1 << 20
_ATTEMPTS, _PAUSE_S = 5, 2.0


def setup_spice() -> None:
    """Bring CoreNLP's jars; what is there stays. Raises EvaluationError saying what failed and what to do instead."""
    folder = spice_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "setup.lock"):
        jars = [jar for jar in CORENLP_JARS if find_jar(jar) is None]
        if jars and (maven := shutil.which("mvn")):
            try:
                _from_maven(maven, jars, folder)
                jars = []
            except EvaluationError as error:
                LOGGER.warning("%s", error)
                jars = [jar for jar in jars if find_jar(jar) is None]
        if jars:
            _from_zip(jars, folder)


def _from_maven(maven: str, jars: Sequence[Jar], folder: Path) -> None:
    for jar in jars:
        artifact = f"{ARTIFACT}:jar:{jar.classifier}" if jar.classifier else ARTIFACT
        LOGGER.info("%s (%.0f MB) by Maven", jar.name, jar.size / 1e6)
        with tempfile.TemporaryDirectory(prefix=".maven-", dir=folder) as target:
            command = [maven, "dependency:get", "dependency:copy", f"-Dartifact={artifact}", "-Dtransitive=false",
                       f"-DoutputDirectory={target}"]  # fmt: skip
            shown = sys.stderr.isatty()  # then Maven draws its own progress
            try:
                done = subprocess.run(
                    [*command, *([] if shown else ["-B", "-q"])], cwd=target, stdin=subprocess.DEVNULL, text=True,
                    stdout=sys.stderr if shown else subprocess.PIPE, stderr=None if shown else subprocess.STDOUT,
                    timeout=_MAVEN_TIMEOUT_S,
                )  # fmt: skip
            except (OSError, subprocess.TimeoutExpired) as error:
                raise EvaluationError(f"Maven did not bring {jar.name}: {error}") from error
            if done.returncode:
                raise EvaluationError(f"Maven did not bring {jar.name}: {(done.stdout or '').strip()[-500:]}")
            _keep(Path(target) / jar.name, jar, folder)


def _from_zip(jars: Sequence[Jar], folder: Path) -> None:
    url = ZIP_URL
    partial = folder / f"{url.rpartition('/')[2]}.partial"
    names = ", ".join(jar.name for jar in jars)
    try:
        fetch(url, partial)
    except OSError as error:
        raise EvaluationError(
            f"{url} cannot be fetched ({error}). Run the same command again, which goes on where it was, or put "
            f"{names} into {folder} by hand."
        ) from error
    try:
        with tempfile.TemporaryDirectory(prefix=".zip-", dir=folder) as target, zipfile.ZipFile(partial) as archive:
            inside = {name.rpartition("/")[2]: name for name in archive.namelist()}
            for jar in jars:
                if jar.name in inside:
                    with archive.open(inside[jar.name]) as source, (Path(target) / jar.name).open("wb") as sink:
                        shutil.copyfileobj(source, sink, _CHUNK)
                _keep(Path(target) / jar.name, jar, folder)
    except (zipfile.BadZipFile, EvaluationError) as error:
        partial.unlink()
        raise EvaluationError(f"{url}: {error} Put {names} into {folder} by hand.") from error
    partial.unlink()


def _keep(found: Path, jar: Jar, folder: Path) -> None:
    """Move a jar to its place if it is the one that was asked for."""
    if not found.is_file():
        raise EvaluationError(f"{jar.name} did not come.")
    if (digest := sha256_file(found)) != jar.sha256:
        raise EvaluationError(f"{jar.name} has SHA-256 {digest}, expected {jar.sha256}: not kept.")
    with atomic_path(folder / jar.name) as partial:
        found.replace(partial)


def fetch(url: str, partial: Path) -> None:
    """Download `url` to `partial`, going on after what is there already, with a progress bar.

    A broken connection is taken up again, a few times where nothing more comes. Raises OSError when that does not
    help; `partial` stays.
    """
    failures = 0
    while True:
        start = _size(partial)
        try:
            _append(url, partial)
            return
        except HTTPError:
            raise
        except (RequestException, ProtocolError, ReadTimeoutError) as error:
            failures = 1 if _size(partial) > start else failures + 1
            if failures >= _ATTEMPTS:
                raise OSError(str(error)) from error
            LOGGER.info("%s: %s; going on at %.0f MB", url, error, _size(partial) / 1e6)
            time.sleep(_PAUSE_S)


def _append(url: str, partial: Path) -> None:
    start = _size(partial)
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable and start:
            return  # nothing is left to fetch
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            start = 0  # the whole file comes
        left = int(answer.headers.get("Content-Length", 0))
        with partial.open("ab" if start else "wb") as sink:
            chunks = iter(lambda: answer.raw.read1(_CHUNK), b"")  # as they come: what a broken answer held is kept
            for chunk in track(chunks, -(-left // _CHUNK), f"{url.rpartition('/')[2]}, MB"):
                sink.write(chunk)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
