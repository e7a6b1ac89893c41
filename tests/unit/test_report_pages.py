"""Pages of the report: honest marks, text that cannot break the page, pictures that may have gone."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panollava.answers.grading import Tolerances
from panollava.reports.metrics_page import write_metrics_page
from panollava.reports.samples_page import SAMPLES, write_samples_page

SCORE = {"value": 0.5, "scale": "0-1", "library": "lib", "version": "1", "signature": None, "reason": None}


@pytest.fixture
def panorama(tmp_path: Path) -> str:
    Image.fromarray(np.full((64, 128, 3), 120, np.uint8)).save(tmp_path / "p.png")
    return "p.png"


def row(image: str, query: str, answer: str, reference: str, error: str = "") -> dict[str, str]:
    return {
        "image_path": image, "original_query": query, "prediction": answer, "reference": reference, "error": error,
    }  # fmt: skip


def samples(tmp_path: Path, rows: list[dict[str, str]], blind: Any = None, exact: bool = True) -> str:
    write_samples_page(rows, blind, exact, tmp_path / "s.html", "E", tmp_path)
    return (tmp_path / "s.html").read_text(encoding="utf-8")


def test_answers_stand_beside_their_references(tmp_path: Path, panorama: str) -> None:
    rows = [
        row(panorama, "where?", "left  <b>", "left <b>"),
        row(panorama, "where?", "left  <b>", "right"),
        row(panorama, "what?", "a cone", "a box"),
        row(panorama, "why?", "", "because", "RuntimeError: no"),
    ]
    page = samples(tmp_path, rows, [{**rows[0], "prediction": "blindly"}])
    assert page.count("<figure ") == page.count('src="data:image/jpeg;base64,') == 3
    assert page.count("✓ right") == page.count("✗ wrong") == 1 and "generation failed: RuntimeError: no" in page
    assert "left &lt;b&gt;" in page and "<b>" not in page and "blindly" in page
    assert "All 3 samples" in page
    assert "kind-1" not in samples(tmp_path, rows[:2])  # one type: nothing to filter


def test_the_turns_before_a_question_stand_beside_it(tmp_path: Path, panorama: str) -> None:
    turns = [["user", "what is <ahead>?"], ["assistant", "a door"]]
    rows = [{**row(panorama, "and behind?", "a wall", "a box"), "context_turns": json.dumps(turns)}]
    page = samples(tmp_path, rows)
    assert "asked: what is &lt;ahead&gt;?<br>answered: a door" in page
    assert "earlier turns" in page and "earlier turns" not in samples(tmp_path, [row(panorama, "q", "a", "b")])


def test_free_text_gets_no_wrong_marks(tmp_path: Path, panorama: str) -> None:
    page = samples(tmp_path, [row(panorama, "q", "a cone", "a box"), row(panorama, "r", "a", "a")], exact=False)
    assert "wrong" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL) and page.count("✓ a reference") == 1


def test_wrong_answers_come_first_and_each_type_can_be_shown_alone(tmp_path: Path, panorama: str) -> None:
    rows = [
        row(panorama, "where is it?", "left", "left"),
        row(panorama, "what is it?", "a cone", "a box"),
        row(panorama, "where was it?", "", "here", "RuntimeError: no"),
    ]
    rows = [{**one, "category": one["original_query"].split()[0]} for one in rows]
    page = samples(tmp_path, rows)
    assert [page.index(f"<dd>{query}") for query in ("what is it?", "where was it?", "where is it?")] == sorted(
        page.index(f"<dd>{one['original_query']}") for one in rows
    )
    assert "Wrong answers come first." in page
    assert 'id="kind-1">where 2</label>' in page and 'id="kind-2">what 1</label>' in page
    assert page.count('<figure data-kind="1">') == 2 and page.count('<figure data-kind="2">') == 1
    assert '#kind-2:checked) figure:not([data-kind="2"])' in page


def test_of_free_texts_those_that_share_least_come_first(tmp_path: Path, panorama: str) -> None:
    rows = [row(panorama, "q", "a red box behind", "a red box"), row(panorama, "r", "nothing", "a tall tree")]
    page = samples(tmp_path, rows, exact=False)
    assert page.index("<dd>r</dd>") < page.index("<dd>q</dd>") and "share least with a reference" in page


def test_a_panorama_has_a_compass_and_directions_are_marked_on_it(tmp_path: Path, panorama: str) -> None:
    asked = {**row(panorama, "where is the door?", "to the left", "behind"), "answer_type": "direction"}
    page = samples(tmp_path, [asked])
    compass = page[page.index('<div class="compass"') :]
    assert re.findall(r"<span>(\w+)</span>", compass)[:5] == ["behind", "left", "ahead", "right", "behind"]
    marks = re.findall(r'class="mark (\w+)" style="left: ([\d.]+)%; top: ([\d.]+)%" title="([^"]+)"', page)
    assert marks == [("right", "100.0", "50.0", "true: behind"), ("wrong", "25.0", "50.0", "answered: to the left")]


def test_answers_are_marked_by_the_tolerances_of_the_scores(tmp_path: Path, panorama: str) -> None:
    asked = {**row(panorama, "where is the door?", "60°", "to the right"), "answer_type": "direction"}
    for angle_deg, mark in ((22.5, "✗ wrong"), (31.0, "✓ right")):
        write_samples_page([asked], None, False, tmp_path / "s.html", "E", tmp_path, Tolerances(angle_deg=angle_deg))
        assert mark in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_the_options_of_a_question_are_shown_as_the_model_saw_them(tmp_path: Path, panorama: str) -> None:
    asked = {**row(panorama, "which?", "A", "B"), "answer_type": "choice", "options": '["<cat>", "dog"]'}
    assert "which?<br>A. &lt;cat&gt;<br>B. dog</dd>" in samples(tmp_path, [asked])
    shown = {**asked, "options_shown": '["dog", "<cat>"]'}
    page = samples(tmp_path, [shown])
    assert "which?<br>A. dog<br>B. &lt;cat&gt;</dd>" in page and "✓ right" in page


def test_a_picture_that_has_gone_is_said_and_hinders_nothing(tmp_path: Path, panorama: str) -> None:
    page = samples(tmp_path, [row("gone.png", "q", "x", "y"), row(panorama, "q", "x", "y")])
    assert "picture not shown" in page and "gone.png: image missing" in page and page.count("<img ") == 1


def test_samples_are_few_and_always_the_same(tmp_path: Path, panorama: str) -> None:
    rows = [row(panorama, f"question {n}", "x", "y") for n in range(200)]
    first, second = samples(tmp_path, rows), samples(tmp_path, rows)
    assert first == second and first.count("<figure ") == SAMPLES and f"{SAMPLES} of 200 samples" in first
    asked = [int(n) for n in re.findall(r"<dd>question (\d+)</dd>", first)]
    assert asked == sorted(asked) and max(asked) - min(asked) > 100


def document(blind: Any) -> dict[str, Any]:
    lost = {**SCORE, "value": None, "reason": "no <Java>"}
    down = {**SCORE, "value": 7.0, "scale": "1 or more", "lower_is_better": True}
    return {
        "metrics": {"bleu4": SCORE, "spice": lost, "perplexity": down},
        "protocol": "grouped", "num_samples": 3, "num_references": 9, "num_empty": 0, "num_errors": 1,
        "controls": {"blind": blind},
        "provenance": {"checkpoint": {"folder": "runs/E", "file": "x.ckpt", "epoch": 2}},
    }  # fmt: skip


def test_scores_stand_beside_their_blind_control(tmp_path: Path) -> None:
    write_metrics_page(document({"bleu4": 0.125, "spice": None, "perplexity": 9.0}), tmp_path / "m.html", "E")
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    for text in ("BLEU-4 ↑", "0.5000", "0.1250", "+0.3750", "perplexity ↓", "-2.0000", "not computed: no &lt;Java&gt;"):
        assert text in page, text
    assert "grouped: 3 samples, 9 references, 0 empty, 1 errors" in page and "runs/E/x.ckpt (epoch 2)" in page


def test_a_distance_has_an_interval_and_few_panoramas_a_warning(tmp_path: Path) -> None:
    told = document({"bleu4": 0.125, "spice": None, "perplexity": 9.0})
    told["controls"]["distance_interval"] = {"bleu4": [0.25, 0.5], "perplexity": [-5.0, 1.0]}
    told["intervals"] = {"note": "no intervals: the test set has 3 panoramas, they need at least 6", "units": 3,
                         "confidence": 0.95, "draws": 10, "resampled": "images"}  # fmt: skip
    write_metrics_page(told, tmp_path / "m.html", "E")
    page = (tmp_path / "m.html").read_text(encoding="utf-8")
    assert "+0.2500 to +0.5000<" in page and "-5.0000 to +1.0000, holds 0<" in page
    assert re.search(r'<p class="warning" role="note">No intervals: the test set has 3 panoramas', page)


def test_without_a_blind_control_the_page_says_so(tmp_path: Path) -> None:
    write_metrics_page(document(None), tmp_path / "m.html", "E")
    assert "No blind control was made" in (tmp_path / "m.html").read_text(encoding="utf-8")
