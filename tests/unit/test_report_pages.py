"""Pages of the report: honest marks, text that cannot break the page, pictures that may have gone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
    assert page.count("<figure>") == page.count('src="data:image/jpeg;base64,') == 3
    assert page.count("✓ right") == page.count("✗ wrong") == 1 and "generation failed: RuntimeError: no" in page
    assert "left &lt;b&gt;" in page and "<b>" not in page and "blindly" in page
    assert "All 3 samples" in page


def test_free_text_gets_no_wrong_marks(tmp_path: Path, panorama: str) -> None:
    page = samples(tmp_path, [row(panorama, "q", "a cone", "a box"), row(panorama, "r", "a", "a")], exact=False)
    assert "wrong" not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL) and page.count("✓ a reference") == 1


def test_a_picture_that_has_gone_is_said_and_hinders_nothing(tmp_path: Path, panorama: str) -> None:
    page = samples(tmp_path, [row("gone.png", "q", "x", "y"), row(panorama, "q", "x", "y")])
    assert "picture not shown" in page and "gone.png: image missing" in page and page.count("<img ") == 1


def test_samples_are_few_and_always_the_same(tmp_path: Path, panorama: str) -> None:
    rows = [row(panorama, f"question {n}", "x", "y") for n in range(200)]
    first, second = samples(tmp_path, rows), samples(tmp_path, rows)
    assert first == second and first.count("<figure>") == SAMPLES and f"{SAMPLES} of 200 samples" in first
    asked = [int(n) for n in re.findall(r"<dd>question (\d+)</dd>", first)]
    assert asked == sorted(asked) and max(asked) - min(asked) > 100


def document(blind: Any) -> dict[str, Any]:
    lost = {**SCORE, "value": None, "reason": "no <Java>"}
    down = {**SCORE, "value": 7.0, "scale": "1 or more, lower is better"}
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


def test_without_a_blind_control_the_page_says_so(tmp_path: Path) -> None:
    write_metrics_page(document(None), tmp_path / "m.html", "E")
    assert "No blind control was made" in (tmp_path / "m.html").read_text(encoding="utf-8")
