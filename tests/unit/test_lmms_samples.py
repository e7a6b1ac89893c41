"""`eval --csv-input` on the samples file that lmms-eval writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panollava.errors import EvaluationError
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.score_files import score_csv


def sample(number: int, said: str, target: Any, **doc: Any) -> dict[str, Any]:
    return {
        "doc_id": number, "doc": {"image": f"p{number}.png", "question": f"q{number}", **doc}, "target": target,
        "arguments": [["prompt"]], "resps": [[f"raw {said}"]], "filtered_resps": [said], "doc_hash": "x", "score": 1,
    }  # fmt: skip


def written(folder: Path, *samples: object) -> Path:
    path = folder / "20261130_samples_task.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in samples), encoding="utf-8")
    return path


def test_samples_are_scored_by_their_kind(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        sample(0, "(B)", "B", choices=["cat", "dog"]),
        sample(1, "a dog", "A", A="cat", B="dog"),
        sample(2, "about 3 m", "3 m", answer_type="number", category="far"),
        sample(3, "a red box", "a red box"),
    )
    rows = read_predictions(path)
    assert [row["prediction"] for row in rows] == ["(B)", "a dog", "about 3 m", "a red box"]
    assert rows[0]["image_path"] == "p0.png" and rows[0]["original_query"] == "q0" and rows[0]["sample_id"] == "0"
    _, document = score_csv(path)
    assert document["protocol"] == "grouped" and document["num_samples"] == 4
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert document["metrics"]["accuracy.far"]["value"] == 1


def now(number: int, said: str, target: str, asked: str, **more: Any) -> dict[str, Any]:
    """A line as lmms-eval 0.7.3 writes it, without the task's own fields."""
    return {
        "doc_id": number, "target": target, "filtered_resps": said, "token_counts": [None], "doc_hash": "same",
        "input_media": [f"p{number % 2}.png"], "right": 1.0, "input": f"<image> {asked}", **more,
    }  # fmt: skip


def test_the_kind_is_told_by_question_and_target_where_no_field_says_it(tmp_path: Path) -> None:
    asked = "Which is nearer?\nA. cat\nB. dog\nAnswer with the letter."
    rows = read_predictions(
        written(
            tmp_path,
            now(0, "(B)", "B", asked),
            now(1, "a dog", "dog", asked.replace("A. ", "(A) ").replace("B. ", "(B) ")),
            now(2, "No, it is not.", "no", "Is it day?"),
            now(3, "three", "3", "How many?"),
            now(4, "a red box", "a red box", "What is it?"),
            now(5, "3 m", "3.0 m", "How far?", answer_type="number", category="far"),
        )
    )
    assert [row["answer_type"] for row in rows] == ["choice", "choice", "yes_no", "number", "", "number"]
    assert rows[0]["options"] == rows[1]["options"] == '["cat", "dog"]' and rows[0]["image_path"] == "p0.png"
    assert rows[0]["original_query"] == asked
    _, document = score_csv(tmp_path / "20261130_samples_task.jsonl")
    assert document["metrics"]["accuracy"]["value"] == 1 and document["num_samples"] == 6


def test_rows_without_a_name_of_their_picture_are_not_taken_for_one(tmp_path: Path) -> None:
    lines = [now(number, said, "yes", "Is it day?") for number, said in enumerate(("yes", "no", "yes"))]
    for line in lines:
        del line["input_media"]  # a data set that holds its pictures itself
    _, document = score_csv(written(tmp_path, *lines))
    assert document["protocol"] == "per-annotation" and document["num_samples"] == 3
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)


def test_without_image_and_question_rows_are_scored_one_by_one(tmp_path: Path) -> None:
    path = written(tmp_path, {"target": "yes", "filtered_resps": ["Yes"], "doc": {"answer_type": "yes_no"}})
    _, document = score_csv(path)
    assert document["protocol"] == "per-annotation" and document["metrics"]["accuracy"]["value"] == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"doc_id": 0, "doc": {}}, "line 1: found doc_id, doc; expected target and filtered_resps"),
        (sample(0, "B", "B"), "line 1: the answer 'B' is a letter, and the row has no options"),
        ({**sample(0, "x", "y"), "filtered_resps": ["a", "b"]}, "line 1: 2 responses, expected one"),
        (sample(0, "x", "y", answer_type="mcq"), "line 1: answer_type is one of"),
        (1, "line 1 is a int, expected an object"),
    ],
)
def test_other_lines_are_refused_by_name(tmp_path: Path, record: object, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_predictions(written(tmp_path, record))
