"""PanoEnv: its records, and each of its authors' rules at its edges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from panollava.data.formats import format_of, read_source, rule_of
from panollava.data.formats.rows import Table
from panollava.errors import DataError
from panollava.evaluation.score import score_predictions

SAMPLE = Path(__file__).parents[3] / "shared/data/panoenv/val_800.jsonl"
RECORD = {
    "conversations": [
        {"from": "human", "value": "<image>\nIs it near?"},
        {"from": "gpt", "value": "<Reasoning>x</Reasoning><Answer>No</Answer>"},
    ],
    "image": "a/rgb.png",
    "question_type": "true_false",
    "accu_reward_method": "yes_no",
    "expected_answer": "No",
}


def read(tmp_path: Path, *records: object) -> Table:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return read_source(path)


def score(method: str, said: str, truth: str) -> float | None:
    """None where the answer cannot be read."""
    found = rule_of(f"panoenv/{method}")(
        f"<Reasoning>r</Reasoning><Answer>{said}</Answer>", f"<Answer>{truth}</Answer>"
    )
    assert found.accurate == (found.score >= 0.99)
    return found.score if found.readable else None


def test_a_record_becomes_a_row_with_its_rule(tmp_path: Path) -> None:
    (row,) = read(tmp_path, RECORD).rows
    assert (row.source_line, row.image_path, row.query, row.problem) == (1, "a/rgb.png", "Is it near?", None)
    assert row.annotation == "<Reasoning>x</Reasoning><Answer>No</Answer>"
    details = row.details
    assert (details.answer_type, details.category, details.scoring) == ("yes_no", "true_false", "panoenv/yes_no")
    assert details.answer_instruction == "Answer yes or no, inside <Answer></Answer>."
    (bare,) = read(tmp_path, {**RECORD, "conversations": RECORD["conversations"][:1]}).rows  # type: ignore[index]
    assert bare.annotation == "<Answer>No</Answer>"


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"image": ""}, "missing value: image"),
        ({"conversations": []}, "missing value: conversations (human)"),
        ({"expected_answer": None}, "missing value: expected_answer"),
        ({"accu_reward_method": "vibes"}, "accu_reward_method is one of yes_no, mcq, distance"),
        ({"expected_answer": "Yes"}, "expected_answer is 'Yes', and the answer's tag holds 'No'"),
    ],
)
def test_a_record_that_lacks_something_is_named(tmp_path: Path, changed: dict[str, object], problem: str) -> None:
    rows = read(tmp_path, RECORD, {**RECORD, **changed}).rows
    assert rows[0].problem is None and problem in str(rows[1].problem) and rows[1].source_line == 2


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(RECORD) + "\n\n[1]\n")
    with pytest.raises(DataError, match="line 3 is a list, expected an object"):
        read_source(tmp_path / "data.jsonl")
    (tmp_path / "data.jsonl").write_text(json.dumps(RECORD) + "\n{oops\n")
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_source(tmp_path / "data.jsonl")


def test_without_the_tag_a_row_scores_nothing() -> None:
    for method in ("yes_no", "mcq", "distance", "counting", "spatial", "default"):
        found = rule_of(f"panoenv/{method}")("No, 3 meters to the left", "<Answer>No 3 meters left</Answer>")
        assert (found.score, found.readable) == (0.0, False)


@pytest.mark.parametrize(
    ("method", "truth", "scores"),
    [
        ("yes_no", "No", {"no": 1, "NO": 1, "No.": 1, "yes": 0, "no, it is far": 0, "": 0}),
        ("mcq", "The pipe", {
            "pipe": 1, "The Pipe.": 1, "a pipe": 1, "the pipe on the left": 1, "the grass": 0, "pipes": 0,
            "the": None}),
        ("mcq", "Building B", {"building b": 1, "Building A": 1, "Tree B": 0}),  # the authors' rule: the first noun
        ("mcq", "Outdoors", {"outdoors": 1, "indoors": 0}),
        ("distance", "About 10.0 meters", {
            "10 m": 1, "about 11 meters": 1, "9.0 meters": 1, "11.01 m": 0.5, "12 m": 0.5, "8 m": 0.5, "12.01 m": 0,
            "1000 cm": 1, "0.01 km": 1, "10": 1, "32.8 ft": 1, "10 degrees": 1, "far": None, "two meters": 0}),
        ("counting", "2 different views", {"2 different views": 1, "2": 1, "two": 1, "3 views": 0, "some": None}),
        ("spatial", "The z is in front of and to the left of and above the flags.", {
            "in front, left, above": 1, "The z is in front of and to the left of the flags.": 2 / 3,
            "behind and left": 1 / 3,
            "It is behind, to the right and below": 0, "left and right, above": 1 / 3, "near": None}),
        ("spatial", "The chair is in front of the rug.", {"in front and left": 1, "behind it": 0}),
        ("default", "The trashbag is below the pipe.", {
            "trashbag is below pipe": 1, "The trash bag is below a pipe": 1, "It is below": 0, "": None}),
    ],
)  # fmt: skip
def test_each_rule_at_its_edges(method: str, truth: str, scores: dict[str, float | None]) -> None:
    found = {said: score(method, said, truth) for said in scores}
    assert found == pytest.approx(scores)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the PanoEnv sample is not on this machine")
def test_the_sample_is_read_and_its_own_answers_are_right() -> None:
    assert format_of(SAMPLE).name == "panoenv"
    rows = read_source(SAMPLE).rows
    assert len(rows) == 800 and not any(row.problem for row in rows)
    assert Counter(row.details.scoring for row in rows) == {
        "panoenv/mcq": 408, "panoenv/yes_no": 232, "panoenv/distance": 96, "panoenv/counting": 32,
        "panoenv/spatial": 31,
        "panoenv/default": 1,
    }  # fmt: skip
    lines = [
        {
            "image_path": row.image_path, "original_query": row.query, "reference": row.annotation,
            "prediction": "<Answer>yes</Answer>", **row.details.to_fields(),
        }
        for row in rows
    ]  # fmt: skip
    right = score_predictions([{**line, "prediction": line["reference"]} for line in lines], metrics="auto")
    assert right.metrics["accuracy"].value == 1 == right.metrics["accuracy.open_ended"].value
    assert right.num_unreadable == 0 and right.metrics["bleu4"].value is None
    always_yes = score_predictions(lines, metrics="auto")
    assert always_yes.metrics["accuracy.true_false"].value == pytest.approx(118 / 232)
    assert always_yes.metrics["accuracy"].value == pytest.approx(118 / 800)
    assert always_yes.num_unreadable == 96 + 32 + 31
    signature = always_yes.metrics["accuracy"].signature
    assert signature is not None and "rule panoenv/distance" in signature


def test_what_text_alone_gives_is_printed(tmp_path: Path) -> None:
    """Twelve scenes whose questions about views follow from the box, and whose other answers follow the wording."""
    places = {"Front": 1280, "Right": 1920, "Left": 640, "Back": 20}
    lines = []
    for scene in range(12):
        name = list(places)[scene % 4]
        box = f"[{places[name] - 20}, 600, {places[name] + 20}, 680]"
        for question, method, answer in (
            (f"Which view does the pipe (boundingbox: {box}) come from?", "mcq", name),
            (f"Is the pipe (boundingbox: {box}) here?", "yes_no", "Yes" if scene < 9 else "No"),
        ):
            said = [{"from": "human", "value": question}, {"from": "gpt", "value": f"<Answer>{answer}</Answer>"}]
            row = {"conversations": said, "image": f"{scene}.png", "question_type": "a type"}
            lines.append(json.dumps({**row, "accu_reward_method": method, "expected_answer": answer}))
    (tmp_path / "val.jsonl").write_text("\n".join(lines))
    script = Path(__file__).parents[2] / "benchmarks/panoenv_text_only.py"
    done = subprocess.run([sys.executable, script, tmp_path / "val.jsonl"], capture_output=True, text=True, timeout=300)
    assert "24 questions about 12 panoramas" in done.stdout, done.stderr
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in done.stdout.splitlines() if "|" in line}
    kind, boxes = (float(cells["mcq"][place].split()[0]) for place in (2, 6))
    assert boxes == 1.0 and kind <= 0.25
    assert cells["yes_no"][2].startswith("0.750")
