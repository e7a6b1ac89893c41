"""Preparation: good rows in order, every other one with its line and reason."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panollava.data.prepare import PrepareSummary, prepare_csv
from panollava.data.samples import read_rows, read_samples
from panollava.errors import DataError

REAL = Path(__file__).parents[3] / "shared" / "data" / "quic360"


def draw(path: Path, size: tuple[int, int] = (64, 32), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    for name in ("a.png", "b.jpg"):
        draw(root / "data" / "images" / name)
    draw(root / "data" / "square.png", (32, 32))
    cut(draw(root / "data" / "cut.jpg"))
    (root / "data" / "page.jpg").write_text("<html>")
    draw(tmp_path / "elsewhere" / "c.png")
    monkeypatch.chdir(root)
    return root


def write(path: Path, lines: list[str], header: str = "url,query,annotation") -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def prepare(*csvs: Path, **settings: object) -> PrepareSummary:
    return prepare_csv(list(csvs), "out/prepared.csv", "out/rejected.csv", progress=False, **settings)  # type: ignore[arg-type]


def rejected(path: str = "out/rejected.csv") -> list[list[str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, strict=True))


def test_good_rows_keep_order_and_text(project: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "c.png"
    lines = [
        "images/b.jpg,뒤에 무엇이 있나요?,빨간 상자",
        "images/a.png,q,None",
        f"{elsewhere},q,NA",
        "data/images/a.png,q,None",
        "images/../images/a.png,q,doubled",
    ]
    summary = prepare(write(project / "data" / "in.csv", lines))
    assert [(row.image_path, row.query, row.annotation) for row in read_rows("out/prepared.csv")] == [
        ("data/images/b.jpg", "뒤에 무엇이 있나요?", "빨간 상자"),
        ("data/images/a.png", "q", "None"),
        (str(elsewhere), "q", "NA"),
        ("data/images/a.png", "q", "None"),
        ("data/images/a.png", "q", "doubled"),
    ]
    assert Path("out/prepared.csv").read_bytes().startswith(b"image_path,query,annotation\ndata/images/b.jpg,")
    assert rejected() == [["source_csv", "source_line", "reason", "url", "query", "annotation"]]
    assert summary == PrepareSummary(5, 5, 0, 3, 3, {})
    assert str(summary) == "5 rows: 5 prepared (3 samples, 3 images), 0 rejected"


def test_every_reason_stands_with_its_line(project: Path) -> None:
    lines = [
        "images/a.png,q,fine",
        "images/absent.png,q,x",
        'cut.jpg,"two',
        'lines",x',
        "page.jpg,q,x",
        "square.png,q,x",
        "images/a.png,,x",
        "images/a.png,q",
        "images/a.png,q,x,y",
        "https://example.org/p.jpg,q,x",
        "images/b.jpg,q,fine too",
    ]
    path = write(project / "data" / "in.csv", lines)
    summary = prepare(path, max_rejected_fraction=0.9)
    assert [row.annotation for row in read_rows("out/prepared.csv")] == ["fine", "fine too"]
    found = rejected()
    assert [line[:1] + line[3:] for line in found[1:3]] == [
        [str(path), "images/absent.png", "q", "x", ""],
        [str(path), "cut.jpg", "two\nlines", "x", ""],
    ]
    assert [(int(line[1]), line[2].split(": ")[0]) for line in found[1:]] == [
        (3, "image missing"),
        (4, "truncated"),
        (6, "not an image"),
        (7, "not about 2:1"),
        (8, "missing column value"),
        (9, "wrong number of fields"),
        (10, "wrong number of fields"),
        (11, "download failed"),
    ]
    assert found[4][2] == "not about 2:1: 32 x 32 pixels"
    assert found[7][3:] == ["images/a.png", "q", "x", "y"]
    assert summary.num_rejected == 8
    assert summary.reasons["wrong number of fields"] == 2
    assert summary.reasons["not about 2:1"] == 1


def test_several_csvs_with_their_own_headers(project: Path) -> None:
    first = write(project / "data" / "one.csv", ["images/a.png,q,1", "absent.png,q,2"])
    second = write(project / "data" / "two.csv", ["9,3,q,images/b.jpg", "9,4,q,absent.png"], "id,answer,question,image")
    prepare(first, second, max_rejected_fraction=0.5)
    assert [row.annotation for row in read_rows("out/prepared.csv")] == ["1", "3"]
    assert rejected() == [
        ["source_csv", "source_line", "reason", "url", "query", "annotation", "id", "answer", "question", "image"],
        [str(first), "3", "image missing", "absent.png", "q", "2", "", "", "", ""],
        [str(second), "3", "image missing", "", "", "", "9", "4", "q", "absent.png"],
    ]


def test_a_column_that_stands_twice_keeps_both_fields(project: Path) -> None:
    first = write(project / "data" / "one.csv", ["1,absent.png,q,x,2"], "n,url,query,annotation,n")
    second = write(project / "data" / "two.csv", ["images/a.png,q,x", "absent.png,q,y"])
    prepare(first, second, max_rejected_fraction=0.9)
    assert rejected() == [
        ["source_csv", "source_line", "reason", "n", "url", "query", "annotation", "n"],
        [str(first), "2", "image missing", "1", "absent.png", "q", "x", "2"],
        [str(second), "3", "image missing", "", "absent.png", "q", "y", ""],
    ]


@pytest.mark.parametrize(("bad", "fails"), [(5, False), (6, True)])
def test_too_many_rejected_is_an_error(project: Path, bad: int, fails: bool) -> None:
    path = write(project / "data" / "in.csv", ["images/a.png,q,x"] * (100 - bad) + ["absent.png,q,x"] * bad)
    Path("out").mkdir()
    for old in ("prepared.csv", "kept.csv"):
        (Path("out") / old).write_text("of an earlier run")
    if fails:
        with pytest.raises(
            DataError, match=r"6 rejected \(6 image missing\). At most 5.0% may.*out/kept\.csv"
        ) as caught:
            prepare(path, surviving_csv="out/kept.csv")
        assert caught.value.exit_code == 1
        assert not Path("out/prepared.csv").exists()
        assert rejected("out/kept.csv") == rejected()
        assert len(rejected()) == 7
    else:
        prepare(path, surviving_csv="out/kept.csv")
        assert len(read_rows("out/prepared.csv")) == 95
        assert not Path("out/kept.csv").exists()


def test_no_row_left_is_an_error_whatever_is_allowed(project: Path) -> None:
    with pytest.raises(DataError, match="0 prepared"):
        prepare(write(project / "data" / "in.csv", ["absent.png,q,x"]), max_rejected_fraction=1.0)


def test_links_keep_their_name(project: Path, tmp_path: Path) -> None:
    (project / "linked").symlink_to(tmp_path / "elsewhere")
    prepare(write(project / "data" / "in.csv", ["linked/c.png,q,x"]))
    assert [row.image_path for row in read_rows("out/prepared.csv")] == ["linked/c.png"]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no QuIC-360 excerpt in {REAL}")
def test_the_excerpt_of_quic360(tmp_path: Path) -> None:
    summaries = [
        prepare_csv([REAL / f"mini_{split}.csv"], tmp_path / f"{split}.csv", tmp_path / "rejected.csv", progress=False)
        for split in ("train", "valid", "test")
    ]
    assert [(s.num_rows, s.num_rejected) for s in summaries] == [(72, 0), (12, 0), (33, 0)]
    assert [s.num_samples for s in summaries] == [
        len(read_samples(tmp_path / f"{x}.csv")) for x in ("train", "valid", "test")
    ]
