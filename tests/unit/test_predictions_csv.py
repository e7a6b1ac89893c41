"""The predictions CSV keeps every character and refuses what it cannot read."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from panollava.errors import DataError, EvaluationError
from panollava.evaluation.of_folder import check_questions
from panollava.evaluation.predictions import (
    COLUMNS,
    Prediction,
    missing_or_doubled,
    read_predictions,
    write_predictions,
)
from panollava.evaluation.score_files import score_csv

NASTY = (
    "None",
    "NA",
    "nan",
    "",
    " 한국어, 쉼표 ",
    'say "hi"',
    "two\nlines",
    "a\r\nb",
    "x\u2028y",
    "|||",
    "'",
    "\ufeffbom",
)


def test_round_trip_keeps_every_character(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "predictions.csv"
    predictions = [
        Prediction(i, f"img {i}, ü.jpg", query, text, (text, "second", query))
        for i, (text, query) in enumerate(zip(NASTY, reversed(NASTY), strict=True))
    ]
    predictions.append(Prediction(99, "x.jpg", "q", "", (), "out of memory"))
    write_predictions(path, predictions)
    rows = read_predictions(path)
    assert len(rows) == 3 * len(NASTY) + 1
    assert tuple(rows[0]) == COLUMNS
    for item, first in zip(predictions, rows[::3], strict=True):
        assert (first["prediction"], first["original_query"], first["image_path"]) == (
            item.text,
            item.query,
            item.image_path,
        )
    assert [row["reference"] for row in rows[:3]] == ["None", "second", NASTY[-1]]
    assert rows[-1]["error"] == "out of memory" and rows[-1]["reference"] == ""
    assert [path] == list(path.parent.iterdir())  # nothing half-written beside it


def answered(samples: int) -> list[Prediction]:
    return [Prediction(n, f"{n}.jpg", "q", f"answer {n}", ("one", "two")) for n in range(samples)]


def test_deleted_and_doubled_rows_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, answered(9))
    whole = path.read_text().splitlines()
    assert missing_or_doubled(read_predictions(path)) == []
    kept = [line for line in whole if line.split(",")[0] not in ("0", "7")]
    path.write_text("\n".join([*kept, kept[3], kept[3]]) + "\n")
    score_csv(path)
    assert "2 of 9 sample_ids are missing (0, 7): were rows deleted? Scores are those of the rest" in caplog.text
    assert "2 of 16 rows repeat another one in every column and count again; the first of them: " in caplog.text
    strangers = [{"sample_id": text, "prediction": "a", "reference": text} for text in ("1", "2", "3")]
    assert missing_or_doubled(strangers) == []
    assert missing_or_doubled([{**row, "sample_id": row["sample_id"] + "04711"} for row in strangers]) == []
    assert missing_or_doubled([{**row, "sample_id": "x"} for row in strangers]) == []


def test_columns_lengths_and_newlines_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, [Prediction(0, "a.jpg", "q", "a red  box", ("one two", "한국어"))])
    assert path.read_bytes().decode() == (
        "sample_id,image_path,original_query,prediction,reference,prediction_length,reference_length,error\n"
        "0,a.jpg,q,a red  box,one two,3,2,\n"
        "0,a.jpg,q,a red  box,한국어,3,1,\n"
    )


def test_a_killed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, [Prediction(0, "a", "q", "old", ("r",))])

    def dying() -> object:
        yield Prediction(0, "a", "q", "new", ("r",))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(path, dying())  # type: ignore[arg-type]
    assert read_predictions(path)[0]["prediction"] == "old"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_any_csv_with_the_two_columns_is_read(tmp_path: Path, newline: str, bom: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(newline.join([f"{bom} reference ,extra,prediction", "None,1,NA", "", 'b,2,"x, y"']).encode())
    assert read_predictions(path) == [
        {"reference": "None", "extra": "1", "prediction": "NA"},
        {"reference": "b", "extra": "2", "prediction": "x, y"},
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"url,caption\na,b\n", "lacks prediction, reference. Found: url, caption. Expected: prediction, reference"),
        (b"prediction;reference\na;b\n", "Found: prediction;reference"),
        (b"prediction,reference,prediction\na,b,c\n", "has prediction twice"),
        (b"", "no header"),
        (b"prediction,reference\n", "no rows"),
        (b"prediction,reference\na,b,c\n", "line 2: 3 fields, expected 2"),
        ("prediction,reference\né,b\n".encode("latin-1"), "not UTF-8"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    with pytest.raises(EvaluationError) as caught:
        read_predictions(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_missing_file_is_an_evaluation_error(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such file"):
        read_predictions(tmp_path / "none.csv")


def test_a_runaway_answer_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_predictions(path, [Prediction(0, "a", "q", "x " * 200_000, ("r",))])
    assert len(read_predictions(path)[0]["prediction"]) == 400_000
    with path.open(newline="", encoding="utf-8") as stream:
        assert len(next(csv.DictReader(stream))["prediction"]) == 400_000


@pytest.mark.parametrize("text", ["a\rb", "a\r\nb", "\r", "a\nb", "a\u2028b", 'say "a\rb", then c'])
def test_every_line_break_survives(text: str, tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", [Prediction(0, "a.png", text, text, (text, "none"))])
    rows = read_predictions(tmp_path / "p.csv")
    assert [row["reference"] for row in rows] == [text, "none"]
    assert {row["prediction"] for row in rows} == {row["original_query"] for row in rows} == {text}


def test_predictions_where_questions_are_wanted_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    write_predictions(path, [Prediction(0, "a.jpg", "where?", "here", ("there",))])
    with pytest.raises(DataError, match=r"no column for query.* It holds predictions: --csv-input without"):
        check_questions(path, {}, "auto")
    path.write_text("url,annotation\na.jpg,here\n", encoding="utf-8")
    with pytest.raises(DataError, match="no column for query") as caught:
        check_questions(path, {}, "auto")
    assert "It holds predictions" not in str(caught.value)
