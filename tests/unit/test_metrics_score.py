"""metrics.json: its shape, honest nulls, the blind control, custom metrics and the console's table."""

from __future__ import annotations

import io
import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from panollava.errors import EvaluationError
from panollava.evaluation import score
from panollava.evaluation.console import metric_lines, print_metrics, summary_lines
from panollava.evaluation.metrics import METRICS, MetricResult
from panollava.evaluation.score import compute_text_metrics, score_predictions, write_metrics_json

LIGHT = ["bleu4", "rouge_l"]  # need neither Java nor WordNet
KEYS = {"value", "scale", "library", "version", "signature", "reason"}


def rows(predictions: list[str], image: str = "i{}") -> list[dict[str, str]]:
    return [
        {"image_path": image.format(n), "original_query": "q", "prediction": text, "reference": reference, "error": ""}
        for n, text in enumerate(predictions)
        for reference in (f"a red box number {n} is behind you", "there is a box behind")
    ]


GOOD = rows(["a red box number 0 is behind you", "a blue box number 1 is there"])
BLIND = rows(["a blue cone is above", "the sky"])
SIX = rows([text for n in range(3) for text in (f"a red box number {2 * n} is behind you", "a blue box is there")])


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_document_has_the_contracts_shape(tmp_path: Path) -> None:
    report = score_predictions(GOOD, metrics=LIGHT, blind_rows=BLIND)
    document = write_metrics_json(tmp_path / "metrics.json", report, {"config": "abc", "csv": "def"})
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == document
    assert list(document["metrics"]) == LIGHT
    assert all(set(one) == KEYS for one in document["metrics"].values())
    assert (document["protocol"], document["num_samples"], document["num_references"]) == ("grouped", 2, 4)
    assert (document["num_empty"], document["num_errors"]) == (0, 0)
    assert set(document["controls"]["blind"]) == set(LIGHT)
    assert document["controls"]["blind"]["rouge_l"] < document["metrics"]["rouge_l"]["value"]
    assert document["provenance"]["config"] == "abc"
    assert {"panollava", "torch", "transformers", "sacrebleu", "nltk", "java"} <= set(
        document["provenance"]["versions"]
    )


def test_without_a_blind_control_it_is_null() -> None:
    assert score_predictions(GOOD, metrics=LIGHT).to_json()["controls"] == {"blind": None}


def test_auto_gives_every_key_and_reasons_where_parts_are_missing(no_java: None) -> None:
    report = score_predictions(GOOD, blind_rows=BLIND)
    assert list(report.metrics) == list(METRICS)
    for name in ("meteor", "cider", "spice"):
        assert report.metrics[name].value is None
        assert report.blind is not None and report.blind[name] is None
    assert "Java not installed" in (report.metrics["cider"].reason or "")
    assert "check-env" in (report.metrics["cider"].reason or "")
    assert report.metrics["bleu4"].value and report.metrics["rouge_l"].value
    json.dumps(report.to_json(), allow_nan=False)


def test_a_listed_metric_must_run(no_java: None) -> None:
    with pytest.raises(EvaluationError, match="lists cider, which cannot run: Java not installed"):
        score_predictions(GOOD, metrics=["bleu4", "cider"])


@pytest.mark.parametrize(
    ("metrics", "protocol", "message"),
    [
        (
            ["bleu4", "cider", "spice"],
            "grouped",
            "lists CIDEr, SPICE, which cannot run: Java is not installed. apt-get",
        ),
        (["spice"], "original", "lists SPICE, which cannot run"),
        (["rouge_l", "cider"], "original", None),
        (["bleu4"], None, None),
        ("auto", "grouped", None),
    ],
)
def test_listed_metrics_are_checked_before_anything_is_predicted(
    no_java: None, metrics: list[str] | str, protocol: str | None, message: str | None
) -> None:
    with pytest.raises(EvaluationError, match=message) if message else nullcontext():
        score.require_metrics(metrics, protocol)


def test_a_metric_that_breaks_says_so_and_no_other_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object, **options: object) -> MetricResult:
        raise EvaluationError("the scorer fell over\nbadly")

    monkeypatch.setitem(score.METRICS, "spice", replace(METRICS["spice"], compute=broken))
    report = score_predictions(GOOD)
    assert report.metrics["spice"].value is None
    assert report.metrics["spice"].reason == "the scorer fell over badly"
    with pytest.raises(EvaluationError, match="fell over"):
        score_predictions(GOOD, metrics=["spice"])


@pytest.mark.parametrize("asked", ["bleu", ["bleu4", "clip"], []])
def test_unknown_metrics_are_refused(asked: object) -> None:
    with pytest.raises(EvaluationError, match=r"auto"):
        score_predictions(GOOD, metrics=asked)  # type: ignore[arg-type]


def test_a_blind_control_of_other_samples_is_refused() -> None:
    with pytest.raises(EvaluationError, match="not the same ones"):
        score_predictions(GOOD, metrics=LIGHT, blind_rows=rows(["x", "y"], image="other{}"))


def test_empty_answers_count_as_zero() -> None:
    whole = score_predictions(GOOD, metrics=["rouge_l"]).metrics["rouge_l"].value
    half = score_predictions([*GOOD[:2], *rows(["", ""])[2:]], metrics=["rouge_l"])
    assert half.num_empty == 1 and whole is not None
    assert half.metrics["rouge_l"].value == pytest.approx(0.5)


# --- compute_text_metrics


def test_lists_of_texts_give_metrics_jsons_metrics() -> None:
    one = compute_text_metrics(["a red box", "None"], ["a red box", "None"], metrics=LIGHT)
    assert set(one) == set(LIGHT) and set(one["bleu4"]) == KEYS
    assert one["rouge_l"]["value"] == 1.0
    several = compute_text_metrics(["a red box", "x"], [["a cat", "a red box"], ["y", ""]], metrics=["rouge_l"])
    assert several["rouge_l"]["value"] == pytest.approx(0.5)
    rowwise = compute_text_metrics(
        ["a red box", "x"], [["a cat", "a red box"], ["y"]], protocol="per-annotation", metrics=["rouge_l"]
    )
    assert rowwise["rouge_l"]["value"] == pytest.approx((0.4 + 1 + 0) / 3)


@pytest.mark.parametrize(
    ("predictions", "references", "error"),
    [
        ("text", ["text"], TypeError),
        (["a"], "a", TypeError),
        (["a"], [None], TypeError),
        ([float("nan")], ["a"], TypeError),
        (["a"], [["b", 3]], TypeError),
        (["a", "b"], ["a"], ValueError),
        ([], [], ValueError),
        (["a"], [[]], ValueError),
    ],
)
def test_what_is_not_text_is_refused(predictions: object, references: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        compute_text_metrics(predictions, references, metrics=LIGHT)  # type: ignore[arg-type]


# --- custom metrics


@pytest.fixture
def custom_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "my_scores", raising=False)
    (tmp_path / "my_scores.py").write_text(
        "def length(predictions, references, rows):\n"
        "    assert len(predictions) == len(references) == len(rows) and rows[0]['image_path'] == 'i0'\n"
        "    return sum(map(len, predictions))\n"
        "def share(predictions, references, rows):\n"
        "    return {'value': 0.5, 'scale': '0-1, lower is better', 'interval': [0.4, 0.6]}\n"
        "def pair(predictions, references, rows):\n"
        "    return {'left': 1, 'right': {'value': None, 'reason': 'no right'}}\n"
        "def broken(predictions, references, rows):\n"
        "    raise KeyError('colour')\n"
        "def endless(predictions, references, rows):\n"
        "    return float('inf')\n"
        "def hits(predictions, references, rows):\n"
        "    return {'samples': [float('red' in one) for one in predictions], 'scale': '0-1'}\n"
        "def pairs(predictions, references, rows):\n"
        "    return {'samples': [(1, 2), (0, 3)] * (len(predictions) // 2)}\n"
        "def short(predictions, references, rows):\n"
        "    return {'value': 1.0, 'samples': [1.0]}\n"
        "def nothing(predictions, references, rows):\n"
        "    pass\n"
        "def leaves(predictions, references, rows):\n"
        "    import sys\n"
        "    sys.exit('I have had enough')\n"
        "def talks(predictions, references, rows):\n"
        "    return 'very\\ngood ' * 100\n"
        "def other_arguments(predictions):\n"
        "    return 1.0\n"
        "def odd_key(predictions, references, rows):\n"
        "    return {3: 1.0}\n"
        "def huge(predictions, references, rows):\n"
        "    return 10 ** 400\n"
        "def undecided(predictions, references, rows):\n"
        "    return {'value': 1.0, 'reason': 'none'}\n"
        "def long_interval(predictions, references, rows):\n"
        "    return {'value': 1.0, 'interval': [1, 2, 3]}\n"
        "def empty_interval(predictions, references, rows):\n"
        "    return {'value': 1.0, 'interval': [2, 1]}\n"
        "def contradiction(predictions, references, rows):\n"
        "    return {'value': 0.9, 'samples': [0.0, 1.0]}\n"
        "def few(predictions, references, rows):\n"
        "    return {'samples': [0.0]}\n"
        "def no_list(predictions, references, rows):\n"
        "    return {'samples': 0.5}\n"
        "def array(predictions, references, rows):\n"
        "    import numpy\n"
        "    return {'samples': numpy.array([[1, 2], [1, 4]] * (len(predictions) // 2)), 'scale': None}\n"
        "def left(predictions, references, rows):\n"
        "    raise ValueError\n"
        "def thief(predictions, references, rows):\n"
        "    return {'bleu4': 1.0}\n"
    )
    (tmp_path / "leaves_at_once.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "half_a_module.py").write_text("def f(predictions,\n")
    return "my_scores"


def test_custom_metrics_stand_under_their_own_names(custom_module: str) -> None:
    names = [f"{custom_module}:{name}" for name in ("length", "share", "pair")]
    document = score_predictions(GOOD, metrics=["bleu4"], custom_metrics=names, blind_rows=BLIND).to_json()
    found = document["metrics"]
    assert list(found) == ["bleu4", "length", "share", "left", "right"]
    assert found["length"] == {
        "value": 60.0,
        "scale": "unknown",
        "library": "my_scores:length",
        "version": None,
        "signature": "protocol:grouped|version:None",
        "reason": None,
    }
    assert found["share"]["interval"] == [0.4, 0.6]
    assert found["right"]["reason"] == "no right"
    assert document["controls"]["blind"] == {
        "bleu4": document["controls"]["blind"]["bleu4"],
        "length": 27.0,
        "share": 0.5,
        "left": 1.0,
        "right": None,
    }


def test_custom_metrics_with_samples_have_intervals(custom_module: str) -> None:
    names = [f"{custom_module}:{name}" for name in ("length", "share", "hits", "pairs")]
    found = score_predictions(SIX, metrics=["bleu4"], custom_metrics=names, bootstrap_samples=100).to_json()["metrics"]
    for name, value in (("hits", 0.5), ("pairs", 0.2)):
        low, high = found[name]["interval"]
        assert found[name]["value"] == value and 0 <= low < value < high <= 1
    assert "interval" not in found["length"] and found["share"]["interval"] == [0.4, 0.6]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("my_scores:broken", "my_scores:broken raised KeyError: 'colour'"),
        ("my_scores:endless", "my_scores:endless returned inf instead of a finite number"),
        ("my_scores:short", "my_scores:short returned 1 samples for 2 predictions"),
        ("my_scores:thief", "my_scores:thief returned the key 'bleu4', which another metric has"),
        ("my_scores:nothing", "my_scores:nothing returned neither a value nor a reason"),
        ("my_scores:leaves", "my_scores:leaves raised SystemExit: I have had enough"),
        ("my_scores:talks", "my_scores:talks returned 'very\\ngood very\\ngood"),
        (
            "my_scores:other_arguments",
            "my_scores:other_arguments raised TypeError: other_arguments() takes 1 positional",
        ),
        ("my_scores:odd_key", "my_scores:odd_key returned the key 3 instead of a name"),
        ("my_scores:huge", "my_scores:huge returned int too large"),
        ("my_scores:undecided", "my_scores:undecided returned both a value and a reason"),
        ("my_scores:long_interval", "my_scores:long_interval returned the interval [1, 2, 3] instead of [low, high]"),
        ("my_scores:empty_interval", "my_scores:empty_interval returned the interval [2, 1] instead of [low, high]"),
        ("my_scores:contradiction", "my_scores:contradiction returned the value 0.9 with samples that make 0.5"),
        ("my_scores:few", "my_scores:few returned 1 samples for 2 predictions"),
        ("my_scores:no_list", "my_scores:no_list returned samples of type float instead of a list"),
        ("leaves_at_once:f", "leaves_at_once:f raised SystemExit: 3"),
        ("half_a_module:f", "half_a_module:f raised SyntaxError"),
        ("my_scores:absent", "my_scores:absent raised AttributeError"),
        ("no_such_module:f", "no_such_module:f raised ModuleNotFoundError"),
    ],
)
def test_a_custom_metrics_failure_is_its_own(custom_module: str, name: str, reason: str) -> None:
    report = score_predictions(GOOD, metrics=["bleu4"], custom_metrics=[name], blind_rows=BLIND)
    result = report.metrics[name.split(":")[1]]
    assert result.value is None and (result.reason or "").startswith(reason) and result.library == name
    assert len(result.reason or "") <= 300 and "\n" not in (result.reason or "")
    assert report.metrics["bleu4"].value is not None


def test_arrays_of_samples_and_keys_that_another_custom_metric_returned(custom_module: str) -> None:
    names = [f"{custom_module}:{name}" for name in ("array", "pair", "left")]
    found = score_predictions(SIX, metrics=["bleu4"], custom_metrics=names, bootstrap_samples=20).metrics
    assert (found["array"].value, found["array"].scale) == (pytest.approx(2 / 6), "unknown")
    assert found["array"].interval is not None
    assert found["left"].value == 1.0  # pair's: a failure of the function `left` does not take its place
    assert (found["my_scores:left"].reason or "").startswith("my_scores:left raised ValueError")


@pytest.mark.parametrize("name", ["my_scores", "my_scores:", ":f", "my scores:f", "x:bleu4", "x:perplexity"])
def test_custom_metric_names_are_checked_before_anything_runs(name: str) -> None:
    with pytest.raises(EvaluationError, match="custom_metrics"):
        score_predictions(GOOD, metrics=["bleu4"], custom_metrics=[name])


# --- console


def test_console_lines() -> None:
    document: dict[str, Any] = {
        "metrics": {
            "bleu4": MetricResult(0.0078384, "0-1", "sacrebleu", "2").to_json(),
            "spice": MetricResult(None, "0-1", "pycocoevalcap", "1", reason="CoreNLP 3.6.0 not installed").to_json(),
            "perplexity": MetricResult(3.5, "1 or more, lower is better", "panollava", "0").to_json(),
        },
        "controls": {"blind": {"bleu4": 0.006, "spice": None, "perplexity": None}},
        "protocol": "grouped",
        "num_samples": 2,
        "num_references": 4,
        "num_empty": 0,
        "num_errors": 1,
        "num_without_reference": 3,
    }
    assert metric_lines(document) == [
        "✓ BLEU-4 (↑): 0.007838 | sacrebleu",
        "✗ SPICE: null | CoreNLP 3.6.0 not installed",
        "✓ perplexity (↓): 3.500000 | panollava",
    ]
    table, (head, shuffled, scored) = metric_lines(document), summary_lines(document)
    assert [head, shuffled] == ["        pictures shuffled", "BLEU-4  0.006000"]
    assert scored == "grouped: 2 samples, 4 references, 0 empty, 1 errors, 3 rows without a reference left out"
    assert summary_lines({**document, "controls": {"blind": None}}) == [scored]
    plain = io.StringIO()
    print_metrics(document, plain)
    assert plain.getvalue().splitlines() == [*table, head, shuffled, scored]
    document["metrics"]["bleu4"]["interval"], document["intervals"] = [0.0071, 0.0082], {"confidence": 0.95}
    assert metric_lines(document) == table
    assert summary_lines(document) == [
        "        95 % interval         pictures shuffled",
        "BLEU-4  0.007100 to 0.008200  0.006000",
        scored,
    ]
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_metrics(document, narrow)  # LC_ALL=C must not lose the scores


def test_the_distance_to_the_blind_control_has_an_interval_of_paired_draws() -> None:
    """Against the same answers it is 0 in every draw; against answers worth nothing it is the score's own."""
    references = ["a red box", "a tree", "a cone by the wall", "grass", "a red ball", "a house", "a lamp", "a dog"]
    scored = [
        {"image_path": f"i{n}", "original_query": "q", "prediction": text if n % 2 else "nothing", "reference": text}
        for n, text in enumerate(references)
    ]
    report = score_predictions(scored, metrics=["rouge_l"], blind_rows=scored, bootstrap_samples=200)
    assert report.distance == {"rouge_l": (0.0, 0.0)}
    blind = [{**row, "prediction": "something else"} for row in scored]
    report = score_predictions(scored, metrics=["rouge_l"], blind_rows=blind, bootstrap_samples=200)
    told = report.to_json()
    low, high = report.metrics["rouge_l"].interval or (0.0, 0.0)
    assert 0 < low < 0.5 < high < 1 and told["controls"]["blind"]["rouge_l"] == 0.0
    assert told["controls"]["distance_interval"] == {"rouge_l": [low, high]}
    few = score_predictions(scored[:3], metrics=["rouge_l"], blind_rows=blind[:3], bootstrap_samples=200)
    assert not few.distance and "distance_interval" not in few.to_json()["controls"]
