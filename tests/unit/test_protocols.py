"""Which prediction meets which references under each protocol."""

from __future__ import annotations

import pytest

from panollava.errors import ConfigError, EvaluationError
from panollava.evaluation.console import summary_lines
from panollava.evaluation.protocols import apply_protocol, collapse
from panollava.evaluation.score import score_predictions


def row(image: str, query: str, prediction: str, reference: str, error: str = "") -> dict[str, str]:
    return {
        "image_path": image,
        "original_query": query,
        "prediction": prediction,
        "reference": reference,
        "error": error,
    }


ROWS = [
    row("a.jpg", "q", "first", "r1"),
    row("b.jpg", "q", "", "r2", error="RuntimeError: x"),
    row("a.jpg", "q", "second", "r3"),
    row("a.jpg", "p", "third", "r4"),
    row("a.jpg", "q", "none of this", " \u2028 "),
]


def test_white_space_of_every_kind_collapses() -> None:
    assert collapse("\ufeff a\r\n\tb\u2028c\u00a0d\x85e\x0b ") == "\ufeff a b c d e"
    assert collapse("None") == "None" and collapse("\n") == ""


def test_grouped_takes_the_first_prediction_and_all_references() -> None:
    found = apply_protocol(ROWS, "grouped")
    assert found.predictions == ["first", "", "third"]
    assert found.references == [["r1", "r3"], ["r2"], ["r4"]]
    assert [one["original_query"] for one in found.rows] == ["q", "q", "p"]
    counts = (found.num_samples, found.num_references, found.num_empty, found.num_errors, found.num_without_reference)
    assert counts == (3, 4, 1, 1, 1)


@pytest.mark.parametrize("protocol", ["per-annotation", "original"])
def test_every_row_alone(protocol: str) -> None:
    found = apply_protocol(ROWS, protocol)
    assert found.predictions == ["first", "", "second", "third"]
    assert found.references == [["r1"], ["r2"], ["r3"], ["r4"]]
    assert (found.num_samples, found.num_empty, found.num_errors, found.num_without_reference) == (4, 1, 1, 1)


def folders(differing: int, samples: int = 6) -> list[dict[str, str]]:
    """Rows of two folders whose pictures have the same base names; the first few have other answers there."""
    return [
        row(f"{n}.jpg", "q", f"{'other' if folder and n < differing else 'an'} answer {n}", f"r{folder}")
        for folder in range(2)
        for n in range(samples)
    ]


@pytest.mark.parametrize("protocol", [None, "grouped"])
def test_differing_predictions_are_counted_and_refused_where_most_differ(protocol: str | None) -> None:
    assert apply_protocol(ROWS, protocol).num_differing == 1
    assert apply_protocol(folders(0), protocol).num_differing == 0
    assert apply_protocol(folders(3), protocol).num_differing == 3
    told = (
        r"4 of 6 samples \(image, query\) of several rows have different predictions.*0\.jpg, query 'q': 'an answer 0' "
        r"and 'other answer 0'.*full image paths.*--protocol per-annotation"
    )
    with pytest.raises(ConfigError, match=told):
        apply_protocol(folders(4), protocol)
    alone = [row(f"z{n}.jpg", "q", "x", "r") for n in range(100)]
    with pytest.raises(EvaluationError, match="4 of 6 samples"):
        apply_protocol([*folders(4), *alone], protocol)
    with pytest.raises(ConfigError, match="1 of 1 samples"):
        apply_protocol(folders(1, samples=1), protocol)
    assert apply_protocol(folders(6), "per-annotation").num_differing == 0


def test_white_space_makes_no_other_prediction() -> None:
    rows = [row("a", "q", "an  answer", "r1"), row("a", "q", " an answer", "r2")]
    assert apply_protocol(rows).num_differing == 0


def test_differing_predictions_are_told(caplog: pytest.LogCaptureFixture) -> None:
    report = score_predictions(folders(2), metrics=["rouge_l"])
    assert "2 of 6 samples have rows with different predictions: the first of each is scored" in caplog.text
    assert report.to_json()["num_differing"] == 2
    assert summary_lines(report.to_json())[-1].endswith(", 2 with different predictions, the first of which is scored")


def test_rows_without_a_reference_leave_before_the_first_prediction_is_taken() -> None:
    found = apply_protocol([row("a", "q", "dropped", ""), row("a", "q", "kept", "r")], "grouped")
    assert found.predictions == ["kept"] and found.num_without_reference == 1


def test_default_is_grouped_where_the_columns_allow_it() -> None:
    bare = [{"prediction": "a", "reference": "b"}, {"prediction": "a", "reference": "c"}]
    assert apply_protocol(ROWS).protocol == "grouped"
    assert apply_protocol(bare).protocol == "per-annotation"
    with pytest.raises(EvaluationError, match="needs the columns image_path, original_query; found: prediction, ref"):
        apply_protocol(bare, "grouped")


def test_words_that_look_missing_are_references() -> None:
    assert apply_protocol([row("a", "q", "x", text) for text in ("None", "NA", "nan")]).num_references == 3


def test_unknown_protocol_and_nothing_to_score_are_errors() -> None:
    with pytest.raises(EvaluationError, match="one of grouped, per-annotation, original, got 'coco'"):
        apply_protocol(ROWS, "coco")
    with pytest.raises(EvaluationError, match="None of the 1 rows has a reference"):
        apply_protocol(ROWS[-1:])
