"""SPICE with its real parts where they are installed; its process, its set-up and its reasons with stand-ins."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from panollava.errors import EvaluationError
from panollava.evaluation.metrics import MetricUnavailable, TextSet, java, spice_parts, spice_run
from panollava.evaluation.metrics.spice import spice
from panollava.evaluation.metrics.spice_parts import CORENLP_JARS, LAUNCHER, LAUNCHER_FOLDER, java_major
from panollava.evaluation.metrics.spice_run import spice_scores

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
    for jar in CORENLP_JARS:
        (empty_cache / "spice").mkdir(exist_ok=True)
        (empty_cache / "spice" / jar.name).write_bytes(b"half of it")
    assert spice_parts.missing_parts() == ["CoreNLP 3.6.0"]


# --- the launcher


def test_the_launcher_is_for_java_8() -> None:
    head = (LAUNCHER_FOLDER / f"{LAUNCHER}.class").read_bytes()[:8]
    assert head[:4] == b"\xca\xfe\xba\xbe" and int.from_bytes(head[6:8], "big") == 52


@pytest.mark.skipif(not (shutil.which("javac") and shutil.which("javap")), reason="this Java has no compiler")
def test_the_launcher_is_its_source_compiled(tmp_path: Path) -> None:
    """If this fails after a change: javac -Xlint:-options --release 8 -g:none SpiceLauncher.java, beside the source."""
    source = LAUNCHER_FOLDER / f"{LAUNCHER}.java"
    subprocess.run(
        ["javac", "-Xlint:-options", "--release", "8", "-g:none", "-d", str(tmp_path), str(source)], check=True
    )
    assert [path.name for path in tmp_path.iterdir()] == [f"{LAUNCHER}.class"]

    def code(folder: Path) -> str:
        done = subprocess.run(
            ["javap", "-p", "-c", "-cp", str(folder), LAUNCHER], capture_output=True, text=True, check=True
        )
        return re.sub(r"#\d+", "#", done.stdout)  # places in the constant pool are the compiler's own

    assert code(tmp_path) == code(LAUNCHER_FOLDER)


@pytest.mark.parametrize(
    ("version", "major"), [("1.8.0_402", 8), ("11.0.2", 11), ("17.0.15", 17), ("25", 25), ("25-ea", 25), ("?", 0)]
)
def test_java_versions(version: str, major: int) -> None:
    assert java_major(version) == major


# --- the process, with a stand-in for Java

FAKE_JAVA = f"""#!{sys.executable}
import os, signal, sys, time
from pathlib import Path
if sys.argv[1] == "-version":
    sys.exit(print('openjdk version "' + os.environ.get("FAKE_VERSION", "17.0.1") + '"', file=sys.stderr))
home = Path(os.environ["PANOLLAVA_CACHE"])
captions, samples, scores, cache, threads, batch = sys.argv[-6:]
with (home / "calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:-6]) + "\\n")
print(len(Path(captions).read_text().splitlines()), "captions", flush=True)
mode = os.environ.get("FAKE_MODE", "")
damaged = Path(cache, "damaged").exists()
if mode == "broken" and damaged: sys.exit(3)
if mode == "crash" and damaged: os.kill(os.getpid(), signal.SIGSEGV)
if mode == "always broken": sys.exit(3)
if mode == "memory": sys.exit('Exception in thread "main" java.lang.OutOfMemoryError: Java heap space')
if mode == "killed": os.kill(os.getpid(), signal.SIGKILL)
if mode == "wrong": sys.exit("java.lang.Error: something else")
if mode == "slow":
    (home / "started").write_text(str(os.getpid()))
    while not (home / "go on").exists(): time.sleep(0.02)
if mode == "hangs": time.sleep(60)
Path(scores).write_text("0.5\\n" * len(Path(samples).read_text().splitlines()))
"""


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is the cache; its `calls` lists Java's starts."""
    binary = tmp_path / "bin/java"
    binary.parent.mkdir()
    binary.write_text(FAKE_JAVA)
    binary.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path))
    monkeypatch.setattr(spice_parts, "missing_parts", list)
    java._version_of.cache_clear()
    yield tmp_path
    (tmp_path / "go on").touch()  # a stand-in that waits ends with its test


def waited_for(what: Callable[[], bool], seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


def test_each_caption_is_sent_once_and_java_says_it_in_the_log(
    fake_java: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "panollava")
    assert spice_scores(["a", "b", "a"], [["b"], ["a", "c"], ["b"]], "1g") == [0.5] * 3
    assert "SPICE: 3 captions" in caplog.text
    assert "-Xmx1g" in (fake_java / "calls").read_text()
    spice_scores(["a"], [["b"]], "1g", also=["b", "d"])
    assert "SPICE: 3 captions" in caplog.records[-1].getMessage()
    with pytest.raises(ValueError, match="one line per caption"):
        spice_scores(["a\nb"], [["c"]], "1g")


@pytest.mark.parametrize(("version", "opened"), [("1.8.0_402", 0), ("9.0.4", 6), ("17.0.1", 6), ("25", 6)])
def test_java_gets_the_options_that_it_knows(
    fake_java: Path, monkeypatch: pytest.MonkeyPatch, version: str, opened: int
) -> None:
    monkeypatch.setenv("FAKE_VERSION", version)
    spice_scores(["a"], [["b"]], "1g")
    options = (fake_java / "calls").read_text()
    assert options.count("--add-opens") == opened
    assert ("--enable-native-access" in options) == (version == "25")


@pytest.mark.parametrize("mode", ["broken", "crash"])
def test_a_broken_cache_is_built_anew(fake_java: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setenv("FAKE_MODE", mode)
    (fake_java / "spice/parses-1").mkdir(parents=True)
    (fake_java / "spice/parses-1/damaged").touch()
    assert spice_scores(["a"], [["b"]], "1g") == [0.5]
    assert len((fake_java / "calls").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("always broken", "exit code 3"),
        ("memory", "ran out of its 1g of memory: raise evaluation.spice_heap.*longest caption has 2 words"),
        ("killed", "ended by SIGKILL"),
        ("wrong", "exit code 1. It said: 2 captions\njava.lang.Error: something else"),
        ("hangs", "did not end within 1 s"),
    ],
)
def test_failures_are_told(fake_java: Path, monkeypatch: pytest.MonkeyPatch, mode: str, message: str) -> None:
    monkeypatch.setenv("FAKE_MODE", mode)
    monkeypatch.setattr(spice_run, "_START_S", 1 if mode == "hangs" else 60)
    monkeypatch.setattr(spice_run, "_CAPTION_S", 0)
    with pytest.raises(EvaluationError, match=message):
        spice_scores(["a b"], [["b"]], "1g")


def test_two_evaluations_take_turns(
    fake_java: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "panollava")
    monkeypatch.setenv("FAKE_MODE", "slow")
    found: list[list[float]] = []
    both = [threading.Thread(target=lambda: found.append(spice_scores(["a"], [["b"]], "1g"))) for _ in range(2)]
    both[0].start()
    assert waited_for((fake_java / "started").exists)
    both[1].start()
    assert waited_for(lambda: "another evaluation uses SPICE's parses" in caplog.text)
    assert len((fake_java / "calls").read_text().splitlines()) == 1
    (fake_java / "go on").touch()
    for thread in both:
        thread.join(60)
    assert found == [[0.5], [0.5]]


def test_a_java_that_outlives_its_evaluation_keeps_the_lock(
    fake_java: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """kill -9 of an evaluation frees the parses only when its Java, too, has gone."""
    caplog.set_level(logging.INFO, "panollava")
    monkeypatch.setenv("FAKE_MODE", "slow")
    code = "from panollava.evaluation.metrics import spice_parts, spice_run; spice_parts.missing_parts = lambda: []; "
    first = subprocess.Popen([sys.executable, "-c", code + "spice_run.spice_scores(['a'], [['b']], '1g')"])
    assert waited_for((fake_java / "started").exists)
    first.kill()
    first.wait()
    second = threading.Thread(target=lambda: spice_scores(["a"], [["b"]], "1g"))
    second.start()
    assert waited_for(lambda: "another evaluation uses SPICE's parses" in caplog.text)
    assert len((fake_java / "calls").read_text().splitlines()) == 1
    (fake_java / "go on").touch()
    second.join(60)
    assert len((fake_java / "calls").read_text().splitlines()) == 2


# --- the real one

LONG = " ".join(
    f"A {colour} {thing} stands beside the {other}."
    for colour in ("red", "small") for thing in ("box", "cone", "old car")
    for other in ("tall tree", "house", "two dogs")
)  # fmt: skip
# What SPICE 1.0's own SpiceScorer.scoreBatch says of each, without a cache, on Java 17.
KNOWN = [
    ("a red box is behind you", ["behind you is a red box"], 2 / 3),
    ("a young girl is standing", ["two dogs", "a young girl is standing"], 0.7499999999999999),
    ("two cats", ["a young girl is standing"], 0.0),
    ("", ["two dogs"], 0.0),
    ("한국어 |||", ["None"], 0.0),
    ("a red box is behind you", ["there is a red box", "a crimson box stands behind the man", "two dogs"], 0.4),
    (
        "the man 's car is parked near three tall trees",
        ["a man parks his automobile under trees", "three trees and a parked car"],
        2 / 3,
    ),
    (LONG, ["a red box beside the house", LONG], 0.9795918367346939),  # longer than a key of LMDB
    ("none", ["None", "NA"], 2 / 3),
    (
        "people are riding horses in the street",
        ["a few people ride on horses", "a horse is ridden by a person in a busy street"],
        0.42857142857142855,
    ),
    ("dogs '' `` -lrb- x -rrb- 3/4 \\", ['" dogs "'], 0.0),
]


@pytest.fixture
def own_parses(spice_cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed parts with a folder of parses of this test's own."""
    jars = [spice_parts.find_jar(jar) for jar in CORENLP_JARS]
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path))
    (tmp_path / "spice").mkdir()
    for jar in jars:
        assert jar is not None
        (tmp_path / "spice" / jar.name).symlink_to(jar)
    return tmp_path / "spice/parses-1"


def scores_of(samples: list[tuple[str, list[str], float]]) -> list[float]:
    return spice_scores([one[0] for one in samples], [one[1] for one in samples], "1500m")


@pytest.mark.spice
@pytest.mark.timeout(300)
def test_known_captions_and_what_is_parsed_again(own_parses: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Equal to SPICE's own batch; a second model on the same references parses only its answers, damage included."""
    caplog.set_level(logging.INFO, "panollava")
    assert scores_of(KNOWN) == pytest.approx([one[2] for one in KNOWN], abs=1e-12)
    assert "22 captions, 0 of them parsed before" in caplog.text
    data = own_parses / "data.mdb"
    stored = data.read_bytes()
    word = stored.index(b"crimson")  # inside the entry of one caption
    data.write_bytes(stored[:word] + b"crimsom" + stored[word + 7 :])
    caplog.clear()
    second = [("a dog sleeps", KNOWN[1][1], 0.0), *KNOWN[1:]]
    assert scores_of(second)[1:] == pytest.approx([one[2] for one in KNOWN[1:]], abs=1e-12)
    assert "22 captions, 20 of them parsed before" in caplog.text and "parsed 2 of 2" in caplog.text


@pytest.mark.spice
@pytest.mark.timeout(300)
def test_kills_and_garbage_do_no_harm(own_parses: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "panollava")
    own_parses.mkdir()
    (own_parses / "data.mdb").write_bytes(b"no database" * 1000)
    code = "from panollava.evaluation.metrics.spice_run import spice_scores; spice_scores(['two cats'], [['a']], '1g')"
    killed = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    assert waited_for(lambda: bool(_children(killed.pid)))
    (child,) = _children(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert waited_for(lambda: not Path(f"/proc/{child}").exists(), 20)  # Java follows at once
    (own_parses / "data.mdb").write_bytes(b"no database" * 1000)
    assert scores_of(KNOWN[:1]) == pytest.approx([2 / 3], abs=1e-12)
    assert "broken and is built anew" in caplog.text


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
