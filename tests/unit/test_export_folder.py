"""An export takes an earlier export's place, and nothing of anybody else's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from panollava.checkpoints.export_folder import MANIFEST, export_folder
from panollava.errors import ConfigError


def export(output: Path, **files: str) -> None:
    with export_folder(output) as partial:
        for name, text in files.items():
            path = partial / name.replace("__", "/").replace("_json", ".json").replace("_md", ".md")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def test_a_later_export_replaces_what_the_earlier_one_wrote_and_no_more(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, config_json="1", README_md="card", lora__weights="a")
    for name in (".git/HEAD", "notes.txt", "lora/mine.txt"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    export(out, config_json="2", README_md="other card", language__weights="b")
    kept = {".git/HEAD": "mine", "notes.txt": "mine", "lora/mine.txt": "mine"}
    assert texts(out) == {"config.json": "2", "README.md": "other card", "language/weights": "b", **kept}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (lambda out: (out / "README.md").write_text("my own words"), r"README\.md, edited after the export"),
        (lambda out: (out / "language").mkdir() or (out / "language/weights").touch(), "language/weights there"),
        (lambda out: (out / MANIFEST).unlink(), "no list of what an earlier export wrote"),
        (lambda out: (out / MANIFEST).write_text('{"files": {"../x": {"size": 1}}}'), r"names \.\./x"),
        (lambda out: (out / MANIFEST).write_text("[]"), "cannot be read"),
    ],
    ids=["edited", "in the way", "no list", "a list that leads away", "a damaged list"],
)
def test_work_of_others_is_never_lost(tmp_path: Path, work: object, said: str) -> None:
    out = tmp_path / "out"
    (tmp_path / "x").touch()
    export(out, config_json="1", README_md="card")
    work(out)  # type: ignore[operator]
    before = texts(tmp_path)
    with pytest.raises(ConfigError, match=f"holds other files.*{said}"):
        export(out, config_json="2", README_md="other card", language__weights="b")
    assert texts(tmp_path) == before


def test_a_failed_export_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(out, config_json="1")
    with pytest.raises(RuntimeError), export_folder(out) as partial:
        (partial / "config.json").write_text("2")
        raise RuntimeError
    assert texts(out) == {"config.json": "1"} and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_replacement_is_no_model_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export(out, config_json="1", weights="a")
    real, moved = os.replace, []

    def replace(source: object, target: object) -> None:
        if ".out.new/" in str(source):
            moved.append(target)
            if len(moved) == 2:
                raise KeyboardInterrupt
        real(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        export(out, config_json="2", weights="b")
    assert "config.json" not in texts(out)
    monkeypatch.undo()
    export(out, config_json="3", weights="c")
    assert texts(out) == {"config.json": "3", "weights": "c"}
