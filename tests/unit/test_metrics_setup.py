"""setup-metrics: by Maven or out of the zip, resumed, verified; and what it says when something stays missing."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from panollava.cli.main import app
from panollava.errors import EvaluationError
from panollava.evaluation import environment, setup_metrics
from panollava.evaluation.metrics import spice_parts, spice_setup
from panollava.evaluation.metrics.spice_parts import Jar

CONTENT = {"small.jar": b"small" * 50, "small-models.jar": bytes(range(256)) * 20000}
JARS = tuple(
    Jar(name, "models" if "models" in name else "", len(content), hashlib.sha256(content).hexdigest())
    for name, content in CONTENT.items()
)


def zipped(content: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"corenlp-full/{name}", data)
    return stream.getvalue()


class Server:
    """Serves `body`; cuts each answer after `cut` bytes; knows ranges or not. `asked` lists the Range headers."""

    def __init__(self) -> None:
        self.body, self.cut, self.ranges = zipped(CONTENT), 0, True
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                outer.asked.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and outer.ranges else 0
                if start >= len(outer.body):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(outer.body) - start))
                self.end_headers()
                end = start + outer.cut if outer.cut else None
                self.wfile.write(outer.body[start:end])

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/corenlp.zip"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(spice_setup, "ZIP_URL", made.url)
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, jars of a few bytes, no Maven, no pause."""
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(spice_setup, "CORENLP_JARS", JARS)
    monkeypatch.setattr(spice_parts, "CORENLP_JARS", JARS)
    monkeypatch.setattr(spice_setup, "_PAUSE_S", 0)
    monkeypatch.setattr(spice_setup.shutil, "which", lambda name: None)
    return tmp_path / "cache/spice"


def jars_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "setup.lock"}


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_goes_on(server: Server, folder: Path, ranges: bool) -> None:
    server.cut, server.ranges = 2_000_000, ranges
    if ranges:
        spice_setup.setup_spice()
        assert server.asked == [None, "bytes=2000000-", "bytes=4000000-"]
        assert jars_in(folder) == CONTENT
        spice_setup.setup_spice()
        assert len(server.asked) == 3  # what is there stays
    else:
        with pytest.raises(EvaluationError, match=r"goes on where it was, or put small\.jar, small-models\.jar into"):
            spice_setup.setup_spice()
        server.cut = 0
        spice_setup.setup_spice()
        assert jars_in(folder) == CONTENT


def test_a_finished_download_is_not_fetched_again(server: Server, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "corenlp.zip.partial").write_bytes(server.body)
    spice_setup.setup_spice()
    assert server.asked == [f"bytes={len(server.body)}-"] and jars_in(folder) == CONTENT


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (zipped({**CONTENT, "small-models.jar": b"altered"}), "SHA-256"),
        (zipped({"small.jar": CONTENT["small.jar"]}), "small-models.jar did not come"),
        (b"<html>moved</html>", "not a zip file"),
    ],
)
def test_what_is_altered_is_not_kept(server: Server, folder: Path, body: bytes, message: str) -> None:
    server.body = body
    with pytest.raises(EvaluationError, match=message):
        spice_setup.setup_spice()
    assert "small-models.jar" not in jars_in(folder) and not list(folder.glob("*.partial"))


MAVEN = """#!/bin/sh
echo "$@" >> {home}/asked
for word in "$@"; do case $word in
  -DoutputDirectory=*) target=${{word#*=}};;
  -Dartifact=*:models) name=small-models.jar;;
  -Dartifact=*) name=small.jar;;
esac; done
cp {home}/$name $target/ || {{ echo "ERROR: no $name"; exit 1; }}
"""


def test_maven_comes_first_and_the_zip_brings_what_it_does_not(
    server: Server, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text(MAVEN.format(home=tmp_path))
    maven.chmod(0o755)
    monkeypatch.setattr(spice_setup.shutil, "which", lambda name: str(maven))
    (tmp_path / "small.jar").write_bytes(CONTENT["small.jar"])
    (tmp_path / "small-models.jar").write_bytes(b"of another release")
    spice_setup.setup_spice()
    assert server.asked == [None] and jars_in(folder) == CONTENT
    first = (tmp_path / "asked").read_text().splitlines()[0].split()
    assert {"dependency:get", "-Dartifact=edu.stanford.nlp:stanford-corenlp:3.6.0", "-B", "-q"} <= set(first)
    (folder / "small-models.jar").unlink()
    (tmp_path / "small-models.jar").write_bytes(CONTENT["small-models.jar"])
    spice_setup.setup_spice()
    assert len(server.asked) == 1 and jars_in(folder) == CONTENT


def test_the_command_names_what_stays_missing(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without Java, WordNet and the right to install them: CoreNLP comes all the same, exit 1 says the rest."""
    monkeypatch.setattr(environment, "java_version", lambda: None)
    monkeypatch.setattr(environment, "find_java", lambda: None)
    monkeypatch.setattr(spice_parts, "java_version", lambda: None)
    for module in (environment, setup_metrics):
        monkeypatch.setattr(module, "wordnet_source", lambda: None)
    monkeypatch.setattr(environment, "missing_debian_files", lambda: ["index.sense", "data.noun"])
    monkeypatch.setattr(environment.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "apt-get" else None)
    monkeypatch.setattr(setup_metrics.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(setup_metrics, "_wordnet_by_nltk", lambda: None)
    done = CliRunner().invoke(app, ["setup-metrics"])
    assert done.exit_code == 1 and isinstance(done.exception, EvaluationError)
    assert "still missing: Java (METEOR, SPICE, CIDEr), WordNet 3.0 (METEOR), SPICE" in str(done.exception)
    assert "sudo apt-get install -y --no-install-recommends default-jre-headless wordnet" in str(done.exception)
    assert jars_in(folder) == CONTENT
