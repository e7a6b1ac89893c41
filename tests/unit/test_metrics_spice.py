"""SPICE with its real parts where they are installed, and honest words where not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from panollava.errors import EvaluationError
from panollava.evaluation.metrics import MetricUnavailable, TextSet, java, spice_parts
from panollava.evaluation.metrics.spice import spice

needs_parts = pytest.mark.skipif(
    bool(spice_parts.missing_parts()), reason="SPICE's parts are not installed (panollava setup-metrics)"
)
needs_java = pytest.mark.skipif(java.java_version() is None, reason="Java is not installed (panollava check-env)")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path))
    monkeypatch.setattr(spice_parts, "coco_folder", lambda: tmp_path / "nothing")
    return tmp_path


@needs_java
def test_without_corenlp_the_reason_is_the_remedy(empty_cache: Path) -> None:
    with pytest.raises(MetricUnavailable, match=r"^CoreNLP 3\.6\.0 not installed: run panollava setup-metrics$"):
        spice(TextSet(["a"], [["b"]]))


@needs_java
def test_a_cut_jar_is_a_missing_jar(empty_cache: Path) -> None:
    for jar in spice_parts.CORENLP_JARS:
        (empty_cache / "spice").mkdir(exist_ok=True)
        (empty_cache / "spice" / jar.name).write_bytes(b"half of it")
    assert spice_parts.missing_parts() == ["CoreNLP 3.6.0"]


def test_a_download_of_another_content_is_not_kept(tmp_path: Path) -> None:
    (tmp_path / "source.jar").write_bytes(b"content")
    good = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    url = (tmp_path / "source.jar").as_uri()
    spice_parts.download(spice_parts.Jar("x.jar", url, 7, good), tmp_path / "a" / "x.jar")
    assert (tmp_path / "a" / "x.jar").read_bytes() == b"content"
    with pytest.raises(EvaluationError, match="SHA-256"):
        spice_parts.download(spice_parts.Jar("x.jar", url, 7, "0" * 64), tmp_path / "b" / "x.jar")
    with pytest.raises(EvaluationError, match=r"cannot be fetched .*by hand"):
        spice_parts.download(spice_parts.Jar("x.jar", url + "x", 7, good), tmp_path / "b" / "x.jar")
    assert not list((tmp_path / "b").iterdir())


@needs_java
def test_the_launcher_compiles_and_starts(empty_cache: Path) -> None:
    if not spice_parts._has_compiler():
        pytest.skip("this Java has no compiler")
    folder = spice_parts.compile_launcher()
    done = subprocess.run([java.need_java(), "-cp", str(folder), spice_parts.LAUNCHER], capture_output=True, text=True)
    assert "ClassNotFoundException: edu.anu.spice.SpiceScorer" in done.stderr


@pytest.mark.spice
@needs_parts
def test_spice_matches_graphs_not_words() -> None:
    texts = {
        "a red box is behind you": ["behind you is a red box"],  # 2 of 3 tuples: SPICE takes "behind you" for a name
        "a young girl is standing": ["two dogs", "a young girl is standing"],
        "two cats": ["a young girl is standing"],
        "": ["two dogs"],
        "한국어 |||": ["None"],
    }
    value = spice(TextSet(list(texts), list(texts.values()))).value
    alone = spice(TextSet(list(texts)[:1], list(texts.values())[:1])).value
    assert alone == pytest.approx(2 / 3)
    assert value is not None and alone is not None
    of_the_girl = 5 * value - alone  # the last three score 0
    assert of_the_girl == pytest.approx(2 * 3 / (3 + 5))  # 3 tuples, all among the references' 5
