"""Right or wrong in metrics.json: accuracy by row and category, controls, intervals, what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from panollava.answers.grading import Tolerances
from panollava.errors import EvaluationError
from panollava.evaluation.accuracy import confusion, grade_samples
from panollava.evaluation.console import summary_lines
from panollava.evaluation.protocols import apply_protocol
from panollava.evaluation.score import ScoreReport, score_predictions
from panollava.evaluation.score_files import score_csv
from panollava.evaluation.verify import verify
from panollava.reports.metrics_page import write_metrics_page

OPTIONS = json.dumps(["cat", "dog", "car"])


def row(n: int, kind: str, prediction: str, reference: str, category: str = "", **more: str) -> dict[str, str]:
    return {
        "sample_id": f"r{n}", "image_path": f"p{n % 7}.png", "original_query": f"q{n}", "prediction": prediction,
        "reference": reference, "answer_type": kind, "category": category, "options": "", "width": "",
        "height": "", **more,
    }  # fmt: skip


ROWS = [
    row(0, "yes_no", "Yes.", "yes", "seen"),
    row(1, "yes_no", "No", "yes", "seen"),
    row(2, "choice", "(b)", "B", "kind", options=OPTIONS),
    row(3, "choice", "the cat", "B", "kind", options=OPTIONS),
    row(4, "choice", "who knows", "B", "kind", options=OPTIONS),
    row(5, "direction", "to your left", "-80°", "where"),
    row(6, "direction", "somewhere", "behind", "where"),
    row(7, "number", "about 100 m", "95 m", "far"),
    row(8, "box", "[0, 0, 10, 20]", "[0, 0, 20, 20]", "box", width="64", height="32"),
]
CAPTIONS = [row(9, "text", "a red box", "a red box"), row(10, "", "a blue ball", "a red box")]


def scores(rows: list[dict[str, str]], **options: Any) -> ScoreReport:
    return score_predictions(rows, metrics=options.pop("metrics", ["rouge_l"]), lenient=True, **options)


def test_accuracy_by_row_and_by_category() -> None:
    report = scores(ROWS)
    values = {key: result.value for key, result in report.metrics.items()}
    assert values["accuracy"] == pytest.approx(5 / 9)
    assert values["accuracy_macro"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 + 1) / 5)
    assert values["accuracy.seen"] == 0.5 and values["accuracy.kind"] == pytest.approx(1 / 3)
    assert values["mean_angular_error_deg"] == pytest.approx(10)
    assert values["mean_spherical_iou"] == pytest.approx(0.5)
    assert report.num_unreadable == 2 and report.to_json()["num_unreadable"] == 2
    signature = report.metrics["accuracy"].signature
    assert signature is not None and "number within 0.1 of it, counts equal" in signature


def test_caption_metrics_score_the_texts_alone() -> None:
    mixed, alone = scores(ROWS + CAPTIONS, bootstrap_samples=50), scores(CAPTIONS, bootstrap_samples=50)
    assert mixed.metrics["rouge_l"].value == alone.metrics["rouge_l"].value
    assert "accuracy" not in alone.metrics and alone.num_unreadable is None
    assert "num_unreadable" not in alone.to_json() and "text_only" not in alone.to_json()["controls"]
    assert mixed.metrics["accuracy"].value == pytest.approx(5 / 9)
    none = scores(ROWS).metrics["rouge_l"]
    assert none.value is None and none.reason == "no row wants a text: every answer is right or wrong"
    listed = score_predictions(ROWS, metrics=["rouge_l"])  # though it is listed: there is nothing for it to score
    assert listed.metrics["rouge_l"].value is None and listed.metrics["accuracy"].value is not None


def test_without_categories_there_is_no_macro_accuracy() -> None:
    report = scores([{**one, "category": ""} for one in ROWS])
    assert report.metrics["accuracy_macro"].value is None
    assert report.metrics["accuracy_macro"].reason == "no row names a category"
    assert not any(key.startswith("accuracy.") for key in report.metrics)


def test_intervals_are_by_panorama_and_controls_stand_beside() -> None:
    wrong = [{**one, "prediction": "unknown"} for one in ROWS]
    report = scores(ROWS, blind_rows=wrong, text_only_rows=ROWS, bootstrap_samples=200)
    document = report.to_json()
    assert document["intervals"]["units"] == 7 and document["intervals"]["resampled"] == "images"
    low, high = document["metrics"]["accuracy"]["interval"]
    assert low < 5 / 9 < high and document["metrics"]["accuracy_macro"]["interval"][0] <= 0.667
    assert (
        document["controls"]["blind"]["accuracy"] == 0
        and document["controls"]["blind"]["mean_angular_error_deg"] is None
    )
    assert document["controls"]["text_only"].keys() == document["metrics"].keys()
    assert document["controls"]["text_only"]["accuracy.far"] == 1
    with pytest.raises(EvaluationError, match="The text-only control holds 8 samples"):
        scores(ROWS, text_only_rows=ROWS[:-1])


def test_the_best_reference_counts_and_other_options_are_another_question() -> None:
    one = row(0, "direction", "left", "front")
    assert scores([one, {**one, "reference": "left"}]).metrics["accuracy"].value == 1
    first = row(0, "choice", "B", "B", options=OPTIONS)
    other = {**first, "options": json.dumps(["dog", "cat", "car"]), "prediction": "A"}
    report = scores([first, other])
    assert report.num_samples == 2 and report.metrics["accuracy"].value == 0.5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"reference": "banana"}, "row sample_id r7, image_path p0.png: the answer 'banana' cannot be read"),
        ({"answer_type": "numeral"}, "row sample_id r7, image_path p0.png: answer_type is one of text, yes_no"),
        ({"scoring": "nobody/mine"}, "scoring is a rule that a format knows"),
        ({"answer_type": "box", "reference": "[1, 2, 3, 4]"}, "the row needs both columns"),
        ({"answer_type": "choice", "reference": "B", "options": "x|y"}, "options is a JSON list"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_scored_is_named(changed: dict[str, str], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        scores([*ROWS[:7], {**ROWS[7], **changed}])


def test_confusion_of_choices() -> None:
    graded = grade_samples(apply_protocol(ROWS), Tolerances())
    assert confusion(graded) == {
        "yes_no": {"yes": {"yes": 1, "no": 1}},
        "choice": {"B": {"B": 1, "A": 1, "unreadable": 1}},
    }


def test_the_report_shows_controls_confusion_and_what_cannot_be_read(tmp_path: Path) -> None:
    report = scores(ROWS, blind_rows=ROWS, text_only_rows=ROWS)
    checkpoint = {"folder": "f", "file": "c.ckpt", "epoch": 0}
    graded = grade_samples(apply_protocol(ROWS), Tolerances())
    write_metrics_page(report.to_json({"checkpoint": checkpoint}), tmp_path / "m.html", "E", graded)
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    for shown in (
        "text only",
        "Answers where each is true: choice",
        "unreadable",
        "direction",
        "1 of 2",
        "2 answers that",
    ):
        assert shown in page, shown
    lines = summary_lines(report.to_json())
    assert lines[0].endswith("pictures shuffled  text only") and lines[-1].endswith("2 answers that cannot be read")
    write_metrics_page(scores(CAPTIONS).to_json({"checkpoint": checkpoint}), tmp_path / "c.html", "E")
    plain = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "text only" not in plain and "Answers where" not in plain


def test_a_csv_with_kinds_of_answers_is_scored_and_verified(tmp_path: Path) -> None:
    """Any CSV with prediction, reference and the further columns, as `eval --csv-input` takes it."""
    lines = ["prediction,reference,answer_type,category", "Yes,yes,yes_no,a", "3 m,2 m,number,b", "?,2 m,number,b"]
    (tmp_path / "p.csv").write_text("\n".join(lines) + "\n")
    path, document = score_csv(tmp_path / "p.csv")
    assert document["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3) and document["num_unreadable"] == 1
    assert (
        document["metrics"]["bleu4"]["value"] is None
        and "no row wants a text" in document["metrics"]["bleu4"]["reason"]
    )
    assert document["provenance"]["evaluation"]["number_tolerance"] == 0.1
    states = {check.what: check.state for check in verify(path)}
    assert states["accuracy"] == states["accuracy.b"] == "holds"
