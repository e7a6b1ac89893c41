"""check-env: what is there, what is missing, and the one command that brings it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import spec_from_file_location
from pathlib import Path

import pytest

from panollava.evaluation import environment
from panollava.evaluation.environment import Check, check_environment, environment_json, install_command


@pytest.fixture
def bare_debian(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with apt-get and neither Java nor WordNet."""
    apt = tmp_path / "bin" / "apt-get"
    apt.parent.mkdir()
    apt.write_text("#!/bin/sh\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(apt.parent))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PANOLLAVA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("panollava.evaluation.metrics.wordnet.DEBIAN_FOLDER", tmp_path / "wordnet")
    monkeypatch.setattr("panollava.evaluation.metrics.wordnet._nltk_corpus", lambda: None)
    return tmp_path


def named(checks: list[Check], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize(("uid", "sudo"), [(0, ""), (1000, "sudo ")])
def test_the_one_command_on_a_bare_debian(
    bare_debian: Path, monkeypatch: pytest.MonkeyPatch, uid: int, sudo: str
) -> None:
    monkeypatch.setattr(environment.os, "geteuid", lambda: uid)
    checks = check_environment()
    assert install_command(checks) == (
        f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends "
        "default-jre-headless wordnet-base wordnet-sense-index"
    )
    assert not named(checks, "Java").ok and not named(checks, "WordNet 3.0").ok
    assert "setup-metrics" in named(checks, "SPICE").remedy
    assert any(line.startswith("– SPICE: ") for line in environment.environment_lines(checks))
    document = environment_json(checks)
    assert document["ok"] is True  # metrics are missing, nothing that is required
    assert document == json.loads(json.dumps(document))
    assert "panollava setup-metrics" in document["advice"]


def test_without_apt_the_advice_says_so(bare_debian: Path) -> None:
    (bare_debian / "bin" / "apt-get").unlink()
    checks = check_environment()
    assert install_command(checks) is None
    assert "no apt-get" in environment.install_advice(checks)


def test_only_what_is_missing_is_installed(bare_debian: Path) -> None:
    from panollava.evaluation.metrics.wordnet import FILES

    (bare_debian / "wordnet").mkdir()
    for name in FILES:
        if name != "index.sense":
            (bare_debian / "wordnet" / name).write_text("x")
    assert named(check_environment(), "WordNet 3.0").system_packages == ("wordnet-sense-index",)
    (bare_debian / "wordnet" / "index.sense").write_text("x")
    assert named(check_environment(), "WordNet 3.0").ok


def test_a_java_that_does_not_start_is_not_ok(bare_debian: Path) -> None:
    java = bare_debian / "bin" / "java"
    java.write_text("#!/bin/sh\nexit 3\n")
    java.chmod(0o755)
    check = named(check_environment(), "Java")
    assert not check.ok and "does not start" in check.found and str(java) in check.found


def test_a_missing_package_is_named_with_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "requires", lambda _: ["no-such-package>=2,<3", "numpy>=1", 'x; extra == "dev"'])
    check = named(check_environment(), "core packages")
    assert not check.ok and check.required and check.found.startswith("1 of 2")
    assert "pip install 'no-such-package<3,>=2'" in check.remedy
    assert check.remedy in (install_command([check]) or "")
    assert environment_json([check])["ok"] is False


def test_checking_imports_no_torch() -> None:
    code = (
        "import sys; from panollava.evaluation.environment import check_environment, environment_lines; "
        "print('\\n'.join(environment_lines(check_environment()))); "
        "assert not {'torch', 'transformers', 'pandas', 'nltk', 'sacrebleu'} & set(sys.modules), 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Python: 3." in done.stdout


@pytest.fixture
def installed_without_bytecode(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A torch that no installer compiled."""
    origin = tmp_path / "site-packages/torch/__init__.py"
    origin.parent.mkdir(parents=True)
    origin.write_text("")
    spec = spec_from_file_location("torch", origin)
    monkeypatch.setattr("panollava.bytecode.find_spec", lambda name: spec)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    return origin


def test_bytecode_that_nothing_can_write_is_said_with_its_remedy(
    installed_without_bytecode: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert named(check_environment(), "bytecode").ok, "the first import writes it"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    check = named(check_environment(), "bytecode")
    assert not check.ok and not check.required
    assert "PYTHONDONTWRITEBYTECODE" in check.found
    assert check.remedy == f"{sys.executable} -m compileall -q {installed_without_bytecode.parents[1]}"
    assert subprocess.run(check.remedy.split(), check=False).returncode == 0
    assert named(check_environment(), "bytecode").ok


def test_a_read_only_installation_without_bytecode_is_named(
    installed_without_bytecode: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    assert str(installed_without_bytecode.parent) in named(check_environment(), "bytecode").found
