"""Experiments side by side: only the comparable are compared, winners are where the test says so, pages are whole."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panollava.cli.main import main
from panollava.config.schema import EvaluationSettings
from panollava.data.details import Details
from panollava.data.synthetic.captions import questions
from panollava.data.synthetic.scenes import sample_scene
from panollava.errors import EvaluationError
from panollava.evaluation.comparison.query_types import MOST, query_types
from panollava.evaluation.comparison.results import metrics_path, names_of, read_results
from panollava.evaluation.comparison.verdicts import compare_results, matching_samples
from panollava.evaluation.measures.measured import Measured
from panollava.evaluation.metrics import MetricResult
from panollava.evaluation.predictions import Prediction, read_predictions, write_predictions
from panollava.evaluation.protocols import apply_protocol
from panollava.evaluation.score_files import score_csv, score_files
from panollava.reports.comparison import write_comparison
from panollava.reports.comparison_page import SAMPLES
from panollava.reports.comparison_tables import COLUMNS, console_lines

PICTURES, QUERIES = 20, ("what is it?", "where is it?")
REFERENCES = ("a red box is behind you", "there is a red box behind")
EVALUATION: dict[str, Any] = {
    **EvaluationSettings().model_dump(mode="json"),
    "metrics": ["bleu4", "rouge_l"],
    "bootstrap_samples": 50,
}


def evaluated(
    folder: Path, answer: Any = lambda picture, query: REFERENCES[0], prefix: str = "", pictures: int = PICTURES,
    **changes: Any,
) -> Path:  # fmt: skip
    """A finished evaluation: predictions.csv and metrics.json; `answer` is called with the picture's number."""
    write_predictions(
        folder / "predictions.csv",
        [
            Prediction(2 * n + m, f"{prefix}p{n}.png", query, answer(n, query), REFERENCES)
            for n in range(pictures)
            for m, query in enumerate(QUERIES)
        ],
    )
    score_files({"predict": folder / "predictions.csv"}, {**EVALUATION, **changes}, folder / "metrics.json", {})
    return folder / "metrics.json"


def poor(picture: int, query: str) -> str:
    return "a blue cone" if picture % 2 else REFERENCES[0]


def unlucky(picture: int, query: str) -> str:
    """Wrong about two pictures where `luckless` is wrong about two others: no difference to be found."""
    return "a blue cone" if picture in (0, 1) else REFERENCES[0]


def luckless(picture: int, query: str) -> str:
    return "a blue cone" if picture in (2, 3) else REFERENCES[0]


def test_winners_are_where_the_test_says_so(tmp_path: Path) -> None:
    found = read_results([evaluated(tmp_path / "A", unlucky), evaluated(tmp_path / "B", luckless)])
    for line in compare_results(found, 500).lines:
        assert line.verdict in ("baseline", "no difference shown") and line.value is not None
        told = json.loads((tmp_path / line.experiment / "metrics.json").read_text())["metrics"][line.metric]
        assert line.value == pytest.approx(told["value"]) and list(line.interval or ()) == told["interval"]
    found = read_results([evaluated(tmp_path / "C", poor), evaluated(tmp_path / "D"), evaluated(tmp_path / "E", poor)])
    lines = {(line.metric, line.experiment): line for line in compare_results(found, 500).lines}
    for metric in ("bleu4", "rouge_l"):
        assert lines[metric, "C"].verdict == "baseline" and lines[metric, "C"].difference is None
        better, same = lines[metric, "D"], lines[metric, "E"]
        assert better.verdict == "better" and better.p is not None and better.p < 0.05
        assert better.difference_interval is not None and better.difference_interval[0] > 0
        assert (same.verdict, same.difference, same.p) == ("no difference shown", 0.0, 1.0)


def test_accuracy_is_tested_by_panorama_and_stands_by_category(tmp_path: Path) -> None:
    def evaluated_on(folder: Path, wrong: set[int]) -> Path:
        found = []
        for n in range(PICTURES):
            for kind, true, false in (("yes_no", "yes", "no"), ("number", "3", "4")):
                details = Details(answer_type=kind, category=f"{kind}s" if kind == "number" else "")
                said = false if n in wrong else true
                found.append(Prediction(len(found), f"p{n}.png", kind, said, (true,), "", details))
        write_predictions(folder / "predictions.csv", found)
        evaluation = {**EVALUATION, "metrics": "auto"}
        score_files({"predict": folder / "predictions.csv"}, evaluation, folder / "metrics.json", {})
        return folder / "metrics.json"

    found = read_results([evaluated_on(tmp_path / "A", set(range(0, 20, 2))), evaluated_on(tmp_path / "B", {0})])
    compared = compare_results(found, 500)
    lines = {(line.metric, line.experiment): line for line in compared.lines}
    better = lines["accuracy", "B"]
    assert better.verdict == "better" and better.difference == pytest.approx(0.45)
    assert ("bleu4", "B") not in lines  # null: no row wants a text
    by_type = {(line.query_type, line.experiment): line.value for line in compared.by_type if line.metric == "accuracy"}
    assert by_type["numbers", "A"] == 0.5 and by_type["(no category)", "B"] == 0.95


def test_the_more_experiments_the_stricter_the_test(tmp_path: Path) -> None:
    def slightly(picture: int, query: str) -> str:
        return "a blue cone" if picture < 6 else REFERENCES[0]  # of 64 exchanges two are as far apart: p = 0.03

    paths = [evaluated(tmp_path / "A", slightly), *(evaluated(tmp_path / name) for name in "BCDE")]
    (alone,) = (line for line in compare_results(read_results(paths[:2]), 5000).lines[2:] if line.experiment == "B")
    assert alone.metric == "rouge_l" and alone.verdict == "better" and alone.p == pytest.approx(2 / 64, abs=0.01)
    for line in compare_results(read_results(paths), 5000).lines:
        assert line.verdict in ("baseline", "no difference shown"), line
        if line.experiment != "A" and line.metric == "rouge_l":
            assert line.p == pytest.approx(4 * alone.p)


@pytest.mark.parametrize("direction", ["'lower_is_better': True", "'scale': '0 or more, lower is better'"])
def test_of_some_scores_less_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direction: str) -> None:
    """By a field; by words in the scale, as metrics of earlier versions say it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "words_of_comparison", raising=False)
    (tmp_path / "words_of_comparison.py").write_text(
        "def words(predictions, references, rows):\n"
        f"    return {{'samples': [len(one.split()) for one in predictions], {direction}}}\n"
    )
    custom = {"custom_metrics": ["words_of_comparison:words"]}
    paths = [evaluated(tmp_path / "A", **custom), evaluated(tmp_path / "B", poor, **custom)]
    found = read_results(paths, custom["custom_metrics"])
    lines = {line.metric: line for line in compare_results(found, 500).lines if line.experiment == "B"}
    assert lines["words"].verdict == "better" and lines["rouge_l"].verdict == "worse"
    told = {line.metric: line for line in compare_results(read_results(paths), 500).lines if line.experiment == "B"}
    assert told["words"].value == lines["words"].value and told["words"].verdict is None
    assert "--custom-metrics words_of_comparison:words" in str(told["words"].note)


def test_a_score_that_cannot_be_computed_again_stands_without_a_test(tmp_path: Path) -> None:
    paths = [evaluated(tmp_path / name) for name in "AB"]
    for path in paths:
        document = json.loads(path.read_text())
        document["metrics"]["perplexity"] = {**document["metrics"]["bleu4"], "value": 3.0, "library": "panollava"}
        path.write_text(json.dumps(document))
    lines = compare_results(read_results(paths), 100).lines
    one, other = (line for line in lines if line.metric == "perplexity")
    assert (one.value, one.verdict, other.verdict, other.p) == (3.0, "baseline", None, None)
    assert other.note == "not tested: its parts are not in predictions.csv"


def test_too_few_pictures_for_a_verdict_are_named(tmp_path: Path) -> None:
    for pictures, said in ((5, "with 5 no p can be smaller than about 0.062"), (6, None)):
        found = read_results(
            [
                evaluated(tmp_path / f"{pictures}A", pictures=pictures),
                evaluated(tmp_path / f"{pictures}B", lambda *_: "a blue cone", pictures=pictures),
            ]
        )
        comparison = compare_results(found, 4000)
        lines = "\n".join(console_lines(comparison))
        assert (said in lines) if said else ("Too few pictures" not in lines)
        assert {line.verdict for line in comparison.lines if line.p} == {
            "worse" if said is None else "no difference shown"
        }


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "per-annotation"}, "protocol per-annotation, not grouped"),
        (
            {"pictures": 5},
            "another test set: 10 of its 10 samples (image, query, references) are among the baseline's 40",
        ),
        ({"prefix": "q"}, "another test set: 0 of its 40"),
    ],
)
def test_only_the_comparable_is_compared(tmp_path: Path, changes: Any, why: str) -> None:
    found = read_results([evaluated(tmp_path / "A"), evaluated(tmp_path / "B", **changes), evaluated(tmp_path / "C")])
    comparison = compare_results(found, 100)
    assert list(comparison.refused) == ["B"] and why in comparison.refused["B"]
    for line in comparison.lines:
        tested = line.experiment == "C"
        assert (line.p is not None) == (line.difference is not None) == tested
        assert line.experiment != "B" or (line.verdict is None and line.value is not None)
    assert not any(line.experiment == "B" for line in comparison.by_type)
    assert any(f"B is not compared: {why}" in line for line in console_lines(comparison))


def test_samples_meet_wherever_they_stand_and_pictures_lie(tmp_path: Path) -> None:
    first = read_predictions(evaluated(tmp_path / "A").with_name("predictions.csv"))
    second = read_predictions(evaluated(tmp_path / "B", prefix="elsewhere/").with_name("predictions.csv"))
    second = [*second[30:], *second[:30]]
    order = matching_samples(apply_protocol(first), apply_protocol(second))
    assert order == [*range(25, 40), *range(25)]
    mixed = [{**row, "image_path": f"{n % 2}/same.png"} for n, row in enumerate(second)]
    with pytest.raises(EvaluationError, match="another test set"):
        matching_samples(apply_protocol(first), apply_protocol(mixed))
    rowwise = [{"prediction": row["prediction"], "reference": "equal"} for row in first]
    assert matching_samples(apply_protocol(rowwise), apply_protocol(rowwise)) == list(range(len(first)))


def test_pictures_of_one_name_are_not_mixed_up() -> None:
    def rows(folders: str) -> list[dict[str, str]]:
        return [
            {"image_path": f"{folder}/p.png", "original_query": f"q{n}", "prediction": "x", "reference": "y"}
            for n, folder in enumerate(folders)
        ]

    assert matching_samples(apply_protocol(rows("abab")), apply_protocol(rows("cdcd"))) == [0, 1, 2, 3]
    with pytest.raises(EvaluationError, match="another test set"):
        matching_samples(apply_protocol(rows("abab")), apply_protocol(rows("ccdd")))


def test_answers_that_are_not_behind_the_scores_are_refused(tmp_path: Path) -> None:
    path = evaluated(tmp_path / "A")
    shutil.copy(evaluated(tmp_path / "B", poor).with_name("predictions.csv"), tmp_path / "A/predictions.csv")
    with pytest.raises(EvaluationError, match=r"is not the file that .* was computed from"):
        read_results([path])
    (tmp_path / "A/predictions.csv").unlink()
    with pytest.raises(EvaluationError, match=r"holds no predictions\.csv"):
        read_results([path])
    path.write_text("{}")
    with pytest.raises(EvaluationError, match=r"cannot be read as a metrics\.json"):
        read_results([path])


def test_names_tell_the_results_apart(tmp_path: Path) -> None:
    def named(*folders: str) -> list[str]:
        return names_of([Path("/x") / folder / "metrics.json" for folder in folders])

    assert named("results/A", "results/B") == ["A", "B"]
    assert named("one/results/A", "two/results/A") == ["one/results/A", "two/results/A"]
    assert named("results/A", "results/A/eval/test") == ["A", "A/eval/test"]
    with pytest.raises(EvaluationError, match="twice"):
        named("results/A", "results/A")
    with pytest.raises(EvaluationError, match="neither a results folder"):
        metrics_path("nothing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match=r"empty holds no metrics\.json"):
        metrics_path("empty", tmp_path)


# --- types of query


def test_the_synthetic_sets_kinds_are_known() -> None:
    asked = [question for seed in range(20) for question in questions(sample_scene(np.random.default_rng(seed)))]
    assert query_types([question.query for question in asked]) == [question.kind for question in asked]
    assert len({question.kind for question in asked}) == 7


def test_few_queries_are_their_own_types_and_many_go_by_their_first_words() -> None:
    assert query_types(["location", "people", " location "]) == ["location", "people", "location"]
    assert query_types([""]) == ["(no query)"] and query_types([]) == []
    many = [f"What is thing {n}?" for n in range(30)] + [f"Where  are things {n}?" for n in range(30)]
    assert set(query_types(many)) == {"what is", "where are"}
    rare = [f"word{n} of query" for n in range(100)] + ["common query"] * 9
    found = query_types(rare)
    assert len(set(found)) == MOST and found[-1] == "common query" and f"({101 - MOST + 1} others)" in found


# --- files


class Tags(HTMLParser):
    """Fails where a tag is closed that was not opened, or never."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_the_table_tidy(tmp_path: Path) -> None:
    for n in range(PICTURES):
        Image.fromarray(np.full((32, 64, 3), 10 * n, np.uint8)).save(tmp_path / f"p{n}.png")
    answers = {"A": lambda n, q: "<b>wrong & red</b>", "B": lambda n, q: REFERENCES[0]}
    results = read_results([evaluated(tmp_path / "results" / name, answer) for name, answer in answers.items()])
    comparison = write_comparison(results, tmp_path / "c.csv", tmp_path / "c.html", 200)
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.open and len(tags.sources) == SAMPLES
    assert all(source.startswith("data:image/jpeg;base64,") for source in tags.sources)
    assert "&lt;b&gt;wrong &amp; red&lt;/b&gt;" in page and "<b>" not in page
    assert page.count("✓ a reference") == SAMPLES
    assert "40 of 40 samples were answered in other words: A is nearer to the references in 0, B in 40" in page

    table = list(csv.DictReader((tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()))
    assert tuple(table[0]) == COLUMNS and len(table) == len(comparison.lines) + len(comparison.by_type)
    (row,) = (r for r in table if (r["metric"], r["query_type"], r["experiment"]) == ("rouge_l", "all", "B"))
    line = next(line for line in comparison.lines if (line.metric, line.experiment) == ("rouge_l", "B"))
    assert float(row["difference"]) == line.difference and float(row["p"]) == line.p and row["verdict"] == "better"
    by_type = {r["query_type"]: r for r in table if (r["metric"], r["experiment"]) == ("rouge_l", "B")}
    assert set(by_type) == {"all", *QUERIES} and by_type[QUERIES[0]]["num_samples"] == "20"
    assert by_type[QUERIES[0]]["p"] == "" and float(by_type[QUERIES[0]]["value"]) == 1.0


def test_one_experiment_alone_makes_a_table_too(tmp_path: Path) -> None:
    write_comparison(read_results([evaluated(tmp_path / "A")]), tmp_path / "c.csv", tmp_path / "c.html", 100)
    assert "baseline" in (tmp_path / "c.csv").read_text() and "<figure" not in (tmp_path / "c.html").read_text()


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    evaluated(tmp_path / "results/A"), evaluated(tmp_path / "results/B", poor)
    evaluated(tmp_path / "results/C", protocol="per-annotation")

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["panollava", "compare", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, told, _ = call("results/A", "results/B/metrics.json", "--draws", "200")
    assert code == 0 and "worse" in told and (tmp_path / "results/compare/A_vs_B/comparison.html").is_file()
    code, told, error = call("results/A", "results/C", "--output-dir", "out")
    assert code == 1 and "nothing could be compared with A" in error and "protocol per-annotation, not grouped" in told
    assert (tmp_path / "out/comparison.csv").is_file()
    assert call("results/A")[0] == 2 and call("results/A", "results/D")[0] == 1


def with_perplexity(folder: Path, nll: float, tokens: str = "m", left_out: int = 0) -> Path:
    """A finished evaluation with a perplexity, and an overlap score that is 0.5 for every picture."""
    predictions = evaluated(folder).parent / "predictions.csv"
    asked = [(n, query) for n in range(PICTURES) for query in QUERIES][left_out:]
    rows = [{"image_path": f"p{n}.png", "original_query": query, "nll": nll + n % 3, "tokens": 2} for n, query in asked]
    scale = "1 or more, lower is better"
    result = MetricResult(None, scale, "panollava", "0", f"tokens:{tokens}")
    told = Measured({"perplexity": result}, {"perplexity": None}, rows)
    told.metrics["perplexity"] = replace(result, value=told.sums("perplexity").total())
    told.write(folder / "measures/perplexity.json", {})
    pictures = [{"image_path": f"p{n}.png", "overlap_consistency": 0.5} for n in range(PICTURES)]
    views = Measured({"overlap_consistency": MetricResult(0.5, "s", "panollava", "0")}, {"overlap_consistency": None},
                     pictures)  # fmt: skip
    views.write(folder / "measures/overlap.json", {})
    files = {f"measure_{name}": folder / f"measures/{name}.json" for name in ("perplexity", "overlap")}
    evaluation = {**EVALUATION, "extra": ["perplexity", "overlap_consistency"]}
    score_files({"predict": predictions, **files}, evaluation, folder / "metrics.json", {})
    return folder / "metrics.json"


def test_measured_scores_are_tested_from_the_files_beside_metrics_json(tmp_path: Path) -> None:
    paths = [with_perplexity(tmp_path / "A", 2.0), with_perplexity(tmp_path / "B", 1.0)]
    paths += [with_perplexity(tmp_path / "C", 1.0, tokens="other"), with_perplexity(tmp_path / "D", 1.0)]
    (tmp_path / "D/measures/perplexity.json").write_text("{}")  # no longer the file behind metrics.json
    compared = compare_results(read_results(paths), 500)
    lines = {(line.metric, line.experiment): line for line in compared.lines}
    better = lines["perplexity", "B"]
    assert better.verdict == "better" and better.difference is not None and better.difference < 0
    assert better.difference == pytest.approx((better.value or 0) - (lines["perplexity", "A"].value or 0))
    assert lines["perplexity", "C"].verdict is None
    assert "measured otherwise than the baseline's (tokens:other)" in (lines["perplexity", "C"].note or "")
    assert lines["perplexity", "D"].verdict is None and lines["perplexity", "D"].value == better.value
    assert lines["overlap_consistency", "B"].verdict == "no difference shown"
    assert {line.metric for line in compared.by_type} == {"bleu4", "rouge_l", "perplexity"}


def test_a_measurement_is_shared_out_among_the_rows_it_is_about(tmp_path: Path) -> None:
    (found,) = read_results([with_perplexity(tmp_path / "A", 2.0, left_out=3)])
    for key in ("perplexity", "overlap_consistency"):
        samples = found.metrics[key].samples
        assert samples is not None and samples.total() == pytest.approx(found.metrics[key].value)
        assert len(samples.per_sample) == PICTURES * len(QUERIES)
    assert found.metrics["perplexity"].samples is not None
    assert not found.metrics["perplexity"].samples.per_sample[:3].any()  # questions without a measurement add nothing


def test_results_of_others_open_no_picture_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions may come from anybody: what lies outside their project and the working folder is not shown."""
    theirs, mine, private = tmp_path / "theirs", tmp_path / "mine", tmp_path / "private"
    for folder in (theirs, mine, private):
        folder.mkdir()
    for n in range(PICTURES):
        Image.new("RGB", (64, 32)).save(private / f"p{n}.png")

    def page(prefix: str) -> str:
        other = {"answer": lambda n, _: "nothing here", "prefix": prefix}
        results = read_results(
            [evaluated(theirs / "results/A", prefix=prefix), evaluated(theirs / "results/B", **other)]
        )
        write_comparison(results, tmp_path / "c.csv", tmp_path / "c.html", 100)
        return (tmp_path / "c.html").read_text(encoding="utf-8")

    monkeypatch.chdir(mine)
    for prefix in (f"{private}/", "../private/", "../../../private/"):
        assert "data:image" not in page(prefix), prefix
    shutil.copytree(private, theirs / "data")
    assert "data:image" in page("data/")
    monkeypatch.chdir(theirs)  # the user's own
    assert "data:image" in page(f"{private}/")


def test_what_text_alone_gives_stands_beside_the_scores(tmp_path: Path) -> None:
    files = [evaluated(tmp_path / "A"), evaluated(tmp_path / "B", poor)]
    plain = compare_results(read_results(files), 100)
    assert "text only" not in console_lines(plain)[0]
    document = json.loads(files[1].read_text())
    document["controls"]["text_only"] = {"bleu4": 0.125, "rouge_l": 0.25}
    files[1].write_text(json.dumps(document))
    write_comparison(read_results(files), tmp_path / "c.csv", tmp_path / "c.html", 100)
    with (tmp_path / "c.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["query_type"] == "all"]
    assert {(row["experiment"], row["metric"]): row["text_only"] for row in rows} == {
        ("A", "bleu4"): "", ("B", "bleu4"): "0.125", ("A", "rouge_l"): "", ("B", "rouge_l"): "0.25",
    }  # fmt: skip
    lines = console_lines(compare_results(read_results(files), 100))
    assert "blind  text only" in lines[0] and "0.1250" in lines[2]
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "text only" in page and "0.1250" in page and "without any picture" in page


def test_scored_predictions_of_others_show_the_pictures_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two CSVs of one test set, scored by `eval --csv-input`; their paths start from the CSVs' folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    Image.new("RGB", (64, 32)).save(tmp_path / "theirs/pano.png")
    for name, said in (("a", "a red box"), ("b", "a blue cone")):
        text = f"image_path,original_query,prediction,reference\npano.png,what?,{said},a red box\n"
        (tmp_path / f"theirs/{name}.csv").write_text(text)
        score_csv(Path(f"theirs/{name}.csv"), "grouped")
    with pytest.raises(EvaluationError, match=r"a.csv is no metrics.json.*panollava eval --csv-input theirs/a.csv"):
        metrics_path("theirs/a.csv")
    results = read_results([metrics_path("theirs/a_eval"), metrics_path("theirs/b_eval")])
    write_comparison(results, tmp_path / "c.csv", tmp_path / "c.html", 100)
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert "data:image" in page and "a blue cone" in page and "1 panorama," in page


@pytest.mark.parametrize("told", [{"scale": "0-1, lower is better"}, {"scale": "0-1", "lower_is_better": True}])
def test_a_score_that_is_only_told_keeps_its_direction(tmp_path: Path, told: dict[str, Any]) -> None:
    """Nobody computes it again here: which way it is good is as metrics.json says."""
    file = evaluated(tmp_path / "A")
    document = json.loads(file.read_text())
    score = {"value": 0.5, "library": "theirs:errors", "version": None, "signature": None, "reason": None}
    document["metrics"]["errors"] = {**score, **told}
    file.write_text(json.dumps(document))
    (result,) = read_results([file])
    assert result.metrics["errors"].samples is None and result.metrics["errors"].lower_is_better
    write_comparison([result], tmp_path / "c.csv", tmp_path / "c.html", 100)
    assert "errors ↓" in (tmp_path / "c.html").read_text(encoding="utf-8")


def test_long_names_fold_in_the_heads_of_tables(tmp_path: Path) -> None:
    long = "A_with_a_much_longer_name_and_lora_rank_64"
    results = read_results([evaluated(tmp_path / "A"), evaluated(tmp_path / long, poor)])
    write_comparison(results, tmp_path / "c.csv", tmp_path / "c.html", 100)
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    assert f'<th class="number long">{long}</th>' in page and '<th class="number">A</th>' in page
