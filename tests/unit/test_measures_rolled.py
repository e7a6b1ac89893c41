"""Yaw-equivariance: rolled pictures, turned words, and what two answers have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from panollava.data.samples import Sample
from panollava.data.synthetic.captions import questions
from panollava.data.synthetic.scenes import SECTORS, Scene, render, sample_scene
from panollava.errors import EvaluationError
from panollava.evaluation.measures.places import are_synthetic, statements, turned_answer, turned_query
from panollava.evaluation.measures.rolled import (
    RolledPictures,
    equivariance,
    picture_turns,
    read_rolled,
    rolled_samples,
    rolled_views,
    turns_of,
)
from panollava.views.geometry import view_rays
from panollava.views.render import render_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import GLOBAL_VIEW, plan_views

SCENES = [sample_scene(np.random.default_rng(seed)) for seed in range(12)]


@pytest.mark.parametrize(
    ("strategy", "settings", "all_turns", "quarters"),
    [
        ("anyres_e2p", {}, [45, 90, 135, 180, 225, 270, 315], [90, 180, 270]),
        ("e2p", {"overlap_ratio": 0.2}, [72, 144, 216, 288], []),
        ("sliding_window", {"overlap_ratio": 0.3}, [60, 120, 180, 240, 300], [180]),
        ("cubemap", {}, [90, 180, 270], [90, 180, 270]),
        ("anyres_max", {}, [90, 180, 270], [90, 180, 270]),
        ("resize", {}, [90, 180, 270], [90, 180, 270]),
    ],
)
def test_turns_map_the_views_onto_themselves(
    strategy: str, settings: Any, all_turns: list[float], quarters: Any
) -> None:
    views = plan_views(strategy, **settings)
    assert turns_of(views, quarters=False) == pytest.approx(all_turns)
    assert turns_of(views, quarters=True) == pytest.approx(quarters)
    if strategy == "resize":
        return
    for turn in all_turns:
        rolled = rolled_views(views, turn)
        local = [{(round(v.yaw_deg, 6), v.pitch_deg) for v in vs if v.kind != "global" and abs(v.pitch_deg) < 90}
                 for vs in (views, rolled)]  # fmt: skip
        assert local[0] == local[1] and len(rolled) == len(views)


def test_a_rolled_panorama_shows_each_tile_of_the_ring_elsewhere_to_the_pixel(tmp_path: Path) -> None:
    picture, _ = render(SCENES[0], view_rays(GLOBAL_VIEW, 64, 128).astype(np.float32))
    Image.fromarray(picture).save(tmp_path / "p.png")
    views = plan_views("anyres_e2p")
    plain = render_views(picture, views, (32, 32))
    rolled = RolledPictures(views, (32, 32), Rendering(), {"p.png": 90.0}, tmp_path)["p.png"]
    assert np.array_equal(rolled[1:], np.roll(plain[1:], -2, axis=0))  # what stood to the right stands in the middle
    by_hand = render_views(np.ascontiguousarray(np.roll(picture, -32, axis=1)), views, (32, 32))
    assert np.abs(rolled.astype(int) - by_hand.astype(int)).max() <= 1
    assert not np.array_equal(rolled[0], plain[0])


def turned_scene(scene: Scene, quarter_turns: int) -> Scene:
    """The same world after the camera has turned to the right."""
    names = list(SECTORS)  # front, right, behind, left
    moved = [
        replace(solid, place=names[(names.index(solid.place) - quarter_turns) % 4]) if solid.place in names else solid
        for solid in scene.solids
    ]
    order = [*names, "above"]
    return replace(scene, solids=tuple(sorted(moved, key=lambda solid: order.index(solid.place))))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_words_ask_and_say_of_the_turned_scene_what_they_did_of_the_scene(turns: int) -> None:
    for scene in SCENES:
        after = {question.query: question for question in questions(turned_scene(scene, turns))}
        before = questions(scene)
        assert are_synthetic(question.query for question in before)
        for question in before:
            same = after.pop(turned_query(question.query, turns))
            for reference in question.references:
                assert statements(turned_answer(reference, turns)) == statements(same.references[0])
            assert turned_query(same.query, 4 - turns) == question.query
        assert not after


def test_statements_are_equal_exactly_where_answers_say_the_same() -> None:
    assert statements("here, behind you is a red box.") == statements("as i see it, behind you is a red box.")
    assert statements("behind you, above you: two things.") == statements("above you, behind you: two things")
    assert statements("behind you, above you: two things.") != statements("behind you, above you: three things.")
    assert statements("behind you is a red box.") != statements("behind you is a red cone.")
    assert statements("") != statements("behind you is nothing.")
    assert not are_synthetic(["what is behind me?", "What colour is the car?"])


SAMPLES = [
    Sample(0, "a.png", "what is behind me?", ("x",)),
    Sample(1, "a.png", "where is the red box?", ("x",)),
    Sample(2, "b.png", "what am i standing on?", ("x",)),
]


def row(sample: Sample, prediction: str, error: str = "") -> dict[str, str]:
    return {"sample_id": str(sample.sample_id), "image_path": sample.image_path, "original_query": sample.query,
            "prediction": prediction, "reference": "x", "error": error}  # fmt: skip


def rolled_rows(samples: Sequence[Sample], answers: list[str], **extra: str) -> list[dict[str, str]]:
    turns = picture_turns(samples, plan_views("anyres_e2p"))
    asked = rolled_samples(samples, turns)
    return [
        {**row(one, answer), "turn_deg": str(turns[one.image_path]), "asked": other.query, **extra}
        for one, other, answer in zip(samples, asked, answers, strict=True)
    ]


FIRST = ["behind you is a red box.", "the red box is behind you.", "the ground is covered with sand."]


def test_synthetic_answers_are_compared_after_turning_their_places() -> None:
    # a.png is turned by 90 degrees, b.png by 180
    said = ["to your right is a red box.", "the red box is to your right.", "the ground is covered with grass."]
    rolled = rolled_rows(SAMPLES, said)
    assert [one["asked"] for one in rolled] == ["what is to my right?", *(sample.query for sample in SAMPLES[1:])]
    rows = [row(sample, text) for sample, text in zip(SAMPLES, FIRST, strict=True)]
    blind = [row(sample, "behind you is a red box.") for sample in SAMPLES]
    found = equivariance(rows, rolled, blind)
    assert found.metrics["yaw_equivariance"].value == pytest.approx(2 / 3)
    assert found.blind["yaw_equivariance"] == pytest.approx(1 / 3)
    assert 2 / 3 < (found.metrics["yaw_agreement"].value or 0) < 1
    assert found.details["by_turn"] == [
        {"turn_deg": 90.0, "yaw_equivariance": 1.0, "questions": 2},
        {"turn_deg": 180.0, "yaw_equivariance": 0.0, "questions": 1},
    ]
    assert found.samples[0]["expected"] == "to your right is a red box."
    unturned = equivariance(rows, rolled_rows(SAMPLES, FIRST), None)
    assert unturned.metrics["yaw_equivariance"].value == pytest.approx(1 / 3)  # whoever does not turn is wrong
    assert unturned.blind == {"yaw_equivariance": None, "yaw_agreement": None}


def test_failed_answers_agree_with_nothing_and_other_questions_are_refused() -> None:
    rows = [row(sample, "", "OutOfLuck") for sample in SAMPLES]
    found = equivariance(rows, rolled_rows(SAMPLES, ["", "", ""]), None)
    assert found.metrics["yaw_equivariance"].value == found.metrics["yaw_agreement"].value == 0.0
    assert equivariance([row(s, "y") for s in SAMPLES], rolled_rows(SAMPLES, [""] * 3, error="E"), None).metrics[
        "yaw_agreement"
    ].value == 0.0  # fmt: skip
    with pytest.raises(EvaluationError, match="holds other questions"):
        equivariance(rows[:2], rolled_rows(SAMPLES, ["", "", ""]), None)


def test_other_data_sets_have_plain_agreement_and_equivariance_says_why_not() -> None:
    samples = [Sample(0, "a.png", "What is behind me?", ("x",)), Sample(1, "b.png", "설명해 주세요", ("x",))]
    rolled = rolled_rows(samples, ["a man sits on a chair", "방 안에 의자가 있다"])
    assert [one["asked"] for one in rolled] == [sample.query for sample in samples]
    assert [one["turn_deg"] for one in rolled] == ["45.0", "90.0"]
    rows = [row(samples[0], "a man on a chair"), row(samples[1], "방 안에 의자가 있다")]
    found = equivariance(rows, rolled, [row(one, "a man sits on a chair") for one in samples])
    assert found.metrics["yaw_equivariance"].value is None and found.blind["yaw_equivariance"] is None
    assert "see yaw_agreement" in (found.metrics["yaw_equivariance"].reason or "")
    assert found.metrics["yaw_agreement"].value == pytest.approx((10 / 11 + 1) / 2)  # equal texts of any script: 1
    assert found.blind["yaw_agreement"] == pytest.approx(1 / 2)


def test_questions_with_options_or_earlier_turns_meet_their_own_answers() -> None:
    query = "Which is nearer?"
    samples = [Sample(number, "a.png", query, ("x",)) for number in range(3)] + [Sample(3, "b.png", query, ("x",))]
    further = [{"options": '["cat", "dog"]'}, {"options": '["cat", "cow"]'},
               {"context_turns": '[["user", "hello"], ["assistant", "yes"]]'}, {}]  # fmt: skip
    rows = [{**row(one, f"w{one.sample_id}"), **more} for one, more in zip(samples, further, strict=True)]
    rows.insert(1, {**rows[0], "reference": "y"})  # a second reference of the first
    rolled = rolled_rows(samples, ["w0", "w1", "other", "w3"])
    found = equivariance(rows, rolled, rows)
    assert [one["yaw_agreement"] for one in found.samples] == [1.0, 1.0, 0.0, 1.0]
    with pytest.raises(EvaluationError, match="holds other questions"):
        equivariance(rows[2:], rolled, None)


def test_rings_without_quarter_turns_leave_synthetic_questions_unasked() -> None:
    assert picture_turns(SAMPLES, plan_views("e2p", overlap_ratio=0.2)) == {}
    found = equivariance([row(sample, "x") for sample in SAMPLES], [], None)
    assert found.metrics["yaw_equivariance"].value is found.metrics["yaw_agreement"].value is None
    assert "quarter turn" in (found.metrics["yaw_equivariance"].reason or "")


def test_files_that_are_no_predictions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read"):
        read_rolled(tmp_path / "absent.csv")
    (tmp_path / "p.csv").write_text("prediction,reference\na,b\n")
    with pytest.raises(EvaluationError, match="expected the columns sample_id, image_path"):
        read_rolled(tmp_path / "p.csv")
