"""A picture is what it shows, not where it lies: blind controls, leakage between splits, comparisons."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panollava.data.gather import gather_prepared, shared_panoramas
from panollava.data.prepared_images import digests_of_pictures, write_images
from panollava.data.samples import Sample
from panollava.errors import EvaluationError
from panollava.evaluation.comparison.results import read_results
from panollava.evaluation.comparison.verdicts import compare_results, refuse_other_pictures
from panollava.evaluation.metrics_shape import complaints
from panollava.evaluation.predict import shuffled_pictures
from panollava.evaluation.predictions import Prediction, write_predictions
from panollava.evaluation.score_files import score_files


def samples(contents: dict[str, str]) -> list[Sample]:
    return [Sample(number, path, "q", ("r",)) for number, path in enumerate(contents)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("groups", [(1,) * 7, (2,) * 10, (3, 3), (4, 1, 2, 1), (5, 1, 1), (9, 1), (1, 1)])
def test_no_picture_stands_in_for_itself_under_another_path(groups: tuple[int, ...], seed: int) -> None:
    contents = {f"{n}/{copy}.jpg": str(n) for n, size in enumerate(groups) for copy in range(size)}
    stand_ins = shuffled_pictures(samples(contents), seed, contents)
    assert stand_ins is not None and stand_ins.keys() == contents.keys() >= set(stand_ins.values())
    assert all(contents[path] != contents[shown] for path, shown in stand_ins.items())
    if 2 * max(groups) <= sum(groups):
        assert len(set(stand_ins.values())) == len(contents)


def test_without_doubles_each_gets_the_next_one_of_a_drawn_order() -> None:
    paths = [f"{n}.jpg" for n in range(9)]
    order = [paths[place] for place in np.random.default_rng(3).permutation(9)]
    expected = dict(zip(order, [*order[1:], order[0]], strict=True))
    assert shuffled_pictures(samples(dict.fromkeys(paths, "")), 3) == expected
    assert shuffled_pictures(samples(dict.fromkeys(paths, "")), 3, {path: path[0] for path in paths}) == expected


def test_one_picture_under_two_paths_has_nothing_to_be_shuffled_with() -> None:
    assert shuffled_pictures(samples({"a": "1", "b": "1"}), 0, {"a": "1", "b": "1"}) is None
    assert shuffled_pictures(samples({"a": "1", "b": "1"}), 0) == {"a": "b", "b": "a"}


def prepared(folder: Path, contents: dict[str, str]) -> str:
    folder.mkdir()
    rows = [f"{path},q,a" for path in contents]
    (folder / "prepared.csv").write_text("\n".join(["image_path,query,annotation", *rows, ""]))
    (folder / "rejected.csv").write_text("source_csv,source_line,reason\n")
    write_images(folder / "prepared.csv", contents)
    return str(folder)


def test_splits_that_share_panoramas_are_named_by_content(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = {f"train/{n}.jpg": f"content {n}" for n in range(8)}
    val = {f"train/{n}.jpg": f"another {n}" for n in range(3)}  # equal paths, other pictures
    test = {f"test/{n}.jpg": f"content {n}" if n in (5, 7) else f"own {n}" for n in range(4, 10)}
    folders = {
        name: prepared(tmp_path / name, contents) for name, contents in (("train", train), ("val", val), ("test", test))
    }
    with caplog.at_level(logging.WARNING, "panollava"):
        gather_prepared(folders, tmp_path / "out")
    assert caplog.messages == [
        "2 of the 6 panoramas of the test set are in the training set too, by their content (for instance "
        "test/5.jpg, there train/5.jpg): its numbers say little about panoramas that were never seen"
    ]
    same_csv = shared_panoramas({**folders, "val": folders["test"]})
    assert [line.split(" are in")[0] for line in same_csv] == [
        f"2 of the 6 panoramas of the {name} set" for name in ("validation", "test")
    ]
    (other := tmp_path / "copy").mkdir()
    again = prepared(other / "test", test)
    assert len(shared_panoramas({**folders, "val": again})) == 3


def evaluated(folder: Path, prefix: str = "", **provenance: Any) -> Path:
    answers = [Prediction(n, f"{prefix}{n}.jpg", "q", f"answer {n}", (f"answer {n % 5}",)) for n in range(12)]
    write_predictions(folder / "predictions.csv", answers)
    evaluation = {"protocol": None, "metrics": ["rouge_l"], "custom_metrics": [], "bootstrap_samples": 20, "extra": [],
                  "spice_heap": "1g", "number_tolerance": 0.1, "angle_tolerance_deg": 22.5}  # fmt: skip
    score_files({"predict": folder / "predictions.csv"}, evaluation, folder / "metrics.json", provenance)
    return folder / "metrics.json"


def shown(prefix: str = "", **other: str) -> dict[str, Any]:
    contents = {f"{prefix}{n}.jpg": other.get(f"n{n}", f"content {n}") for n in range(12)}
    return {"pictures": digests_of_pictures(contents, contents)}


def csvs(sha256: str, images: str | None) -> dict[str, Any]:
    return {"inputs": {"csvs": [{"path": "test.csv", "sha256": sha256, "images": images}]}}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (shown(), shown(), True),
        (shown(), shown(n3="edited"), False),
        (shown(), shown(n3="content 4", n4="content 3"), False),  # two that changed places
        (csvs("a", "1"), csvs("a", "1"), True),
        (csvs("a", "1"), csvs("a", "2"), False),
        (csvs("a", "1"), csvs("b", "2"), True),  # another CSV may name more pictures
        (csvs("a", None), csvs("a", None), True),
        (csvs("a", "1"), shown(), True),  # nothing to compare
        ({}, shown(), True),
    ],
)
def test_other_pictures_of_equal_paths_are_not_compared(
    first: dict[str, Any], second: dict[str, Any], same: bool, tmp_path: Path
) -> None:
    found = read_results([evaluated(tmp_path / "A", **first), evaluated(tmp_path / "B", **second)])
    assert not any(complaints(result.document) for result in found)
    comparison = compare_results(found, 20)
    assert comparison.refused.keys() == (set() if same else {"B"})
    if not same:
        assert comparison.refused["B"].startswith("other panoramas: the pictures behind its paths are not the basel")
        assert all(line.p is None for line in comparison.lines)


def test_renamed_pictures_are_compared_by_what_they_show(tmp_path: Path) -> None:
    found = read_results(
        [
            evaluated(tmp_path / "A", **shown()),
            evaluated(tmp_path / "B", prefix="data/", **shown("data/")),
            evaluated(tmp_path / "C", prefix="data/", **shown("data/", n2="another")),
        ]
    )
    assert compare_results(found, 20).refused.keys() == {"C"}
    refuse_other_pictures(found[0], found[1])
    with pytest.raises(EvaluationError, match="other panoramas"):
        refuse_other_pictures(found[1], found[2])


def test_pictures_of_unknown_content_are_not_told() -> None:
    assert digests_of_pictures({"a": "1"}, ["a", "b"]) is None
    told = digests_of_pictures({"a": "1", "b": "1", "c": "2"}, ["b", "b"])
    assert told == digests_of_pictures({"b": "1"}, ["b"])
