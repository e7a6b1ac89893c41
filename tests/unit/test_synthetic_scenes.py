"""The synthetic world: geometry of the picture, its questions, and files that are the same bytes for a seed."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panollava.config.embedded import SyntheticSettings
from panollava.data.synthetic.captions import (
    DESCRIBE_QUERY,
    OPENINGS,
    PLACE_WORDS,
    draw_questions,
    places_and_things,
    questions,
)
from panollava.data.synthetic.draw import draw_synthetic
from panollava.data.synthetic.scenes import SHAPES, Scene, Solid, render, sample_scene
from panollava.errors import DataError
from panollava.evaluation.metrics.synthetic import exact_match, place_thing_f1
from panollava.views.geometry import project, view_rays
from panollava.views.strategies import GLOBAL_VIEW, View

SMALL = SyntheticSettings(seed=3, train_scenes=4, val_scenes=2, test_scenes=3, image_height=32, train_queries=3)


def lone(shape: str, place: str, centre: tuple[float, float, float], radius: float = 1.0) -> Scene:
    return Scene("day", "sand", (0.0, 0.0), (Solid(place, "red", shape, radius, 30.0, centre),))


def panorama(scene: Scene, height: int = 64) -> tuple[np.ndarray, np.ndarray]:
    return render(scene, view_rays(GLOBAL_VIEW, height, 2 * height))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_solid_is_seen_where_it_stands_and_of_its_size(shape: str) -> None:
    _, met = panorama(lone(shape, "right", (3.0, 0.0, 0.0)), 180)  # one pixel a degree
    rows, columns = np.nonzero(met == 0)
    assert columns.mean() == pytest.approx(270, abs=2)  # yaw 90 degrees
    assert 89.5 - 27 < rows.min() < rows.max() < 89.5 + 27
    assert 34 < np.ptp(columns) < 45


def test_a_sphere_covers_its_exact_angle() -> None:
    _, met = panorama(lone("sphere", "front", (0.0, 0.0, 4.0)), 360)
    assert (met[179:181] == 0).sum(axis=1) / 2 == pytest.approx(2 * np.rad2deg(np.arcsin(1 / 4)), abs=1)


def test_behind_straddles_the_seam_and_above_reaches_the_zenith() -> None:
    _, behind = panorama(lone("box", "behind", (0.1, 0.0, -3.0)))
    assert (behind[:, 0] == 0).any() and (behind[:, -1] == 0).any() and not (behind[:, 64] == 0).any()
    _, above = panorama(lone("sphere", "above", (0.2, 3.0, 0.0)))
    assert (above[0] == 0).all() and not (above[40:] == 0).any()


def test_a_view_shows_what_the_panorama_shows() -> None:
    scene = sample_scene(np.random.default_rng(5))
    whole, _ = panorama(scene, 512)
    view = View("perspective", 170.0, 10.0, 90.0, 90.0)
    rays = view_rays(view, 32, 32)
    direct, _ = render(scene, rays)
    uv, _ = project(GLOBAL_VIEW, rays)
    column = np.clip((uv[..., 0] + 1) / 2 * 1024, 0, 1023).astype(int)
    row = np.clip((uv[..., 1] + 1) / 2 * 512, 0, 511).astype(int)
    same = np.abs(whole[row, column].astype(int) - direct).max(axis=-1) < 16
    assert same.mean() > 0.93  # they differ where a pixel falls beside an edge


def test_nearer_solids_hide_farther_ones() -> None:
    near, far = lone("sphere", "front", (0.0, 0.0, 2.0), 0.5).solids[0], lone("box", "front", (0.0, 0.0, 5.0)).solids[0]
    for solids in ((near, far), (far, near)):
        _, met = panorama(Scene("day", "sand", (0.0, 0.0), solids))
        assert solids[met[32, 64]] is near


def test_scenes_stay_inside_their_places_and_make_a_round_trip() -> None:
    rng = np.random.default_rng(1)
    seam = 0
    for _ in range(60):
        scene = sample_scene(rng)
        assert 1 <= len(scene.solids) == len({solid.place for solid in scene.solids})
        assert Scene.from_json(json.loads(json.dumps(scene.to_json()))) == scene
        if scene.at("behind"):
            _, met = panorama(Scene(scene.sky, scene.ground, scene.offset, (scene.at("behind"),)))
            seam += bool((met[:, 0] == 0).any() and (met[:, -1] == 0).any())
    assert seam >= 5


def test_unknown_words_are_refused() -> None:
    scene = replace(sample_scene(np.random.default_rng(0)), sky="green")
    with pytest.raises(DataError, match=r"no sky 'green'.*day, dusk, night"):
        panorama(scene)


def test_answers_name_the_place_first_and_differ_in_their_opening() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        scene = sample_scene(rng)
        asked = questions(scene)
        assert Counter(question.query for question in asked).most_common(1)[0][1] == 1
        for question in asked:
            assert len(question.references) == len(OPENINGS) == len(set(question.references))
            assert len({one.removeprefix(o) for one, o in zip(question.references, OPENINGS, strict=True)}) == 1
            if question.kind in ("look", "count"):
                assert question.references[0].startswith(tuple(PLACE_WORDS.values()))
        described = next(question for question in asked if question.kind == "describe")
        assert described.query == DESCRIBE_QUERY
        truth = {(solid.place, f"{solid.colour} {solid.shape}") for solid in scene.solids}
        assert all(places_and_things(reference) == truth for reference in described.references)


def test_training_questions_come_in_thirds() -> None:
    rng = np.random.default_rng(3)
    kinds = Counter(q.kind for _ in range(60) for q in draw_questions(rng, sample_scene(rng), 20))
    assert kinds["describe"] / 1200 == pytest.approx(1 / 3, abs=0.05)
    assert (kinds["colour"] + kinds["where"]) / 1200 == pytest.approx(1 / 3, abs=0.06)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_seed_gives_the_same_bytes_in_any_number_of_processes(tmp_path, monkeypatch) -> None:
    draw_synthetic(SMALL, tmp_path / "one", progress=False, workers=1)
    monkeypatch.setattr("panollava.data.synthetic.draw._FEWEST_FOR_PROCESSES", 1)
    draw_synthetic(SMALL, tmp_path / "two", progress=False, workers=2)
    draw_synthetic(SMALL.model_copy(update={"seed": 4}), tmp_path / "other", progress=False, workers=1)
    one, two, other = (digests(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert all(one[name] != other[name] for name in one)


def test_the_folder_holds_questions_about_scenes_that_no_split_shares(tmp_path) -> None:
    draw_synthetic(SMALL, tmp_path, progress=False)
    scenes = json.loads((tmp_path / "scenes.json").read_text())
    assert len({json.dumps(scene) for scene in scenes.values()}) == 9
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        with (tmp_path / f"{split}.csv").open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        assert list(rows[0]) == ["image_path", "query", "annotation"]
        assert len({row["image_path"] for row in rows}) == count
        for row in rows:
            with Image.open(tmp_path / row["image_path"]) as picture:
                assert picture.size == (64, 32)
            asked = {q.query: q.references for q in questions(Scene.from_json(scenes[row["image_path"]]))}
            assert row["annotation"] in asked[row["query"]]
        if split == "train":
            assert len(rows) == 4 * 3
        else:
            every = sum(len(questions(Scene.from_json(scenes[path]))) for path in scenes if f"/{split}_" in path)
            assert len(rows) == len(OPENINGS) * every
    with Image.open(tmp_path / "contact_sheet.png") as sheet:
        assert sheet.size[0] > 1000


def test_exact_match_and_pairs() -> None:
    rows = [{"query": DESCRIBE_QUERY}, {"query": "what is behind me?"}]
    truth = [
        ["the sky is dark at night, behind you is a red box, above you is a blue cone."],
        ["behind you is a red box.", "here, behind you is a red box."],
    ]
    said = ["behind you is a red box, above you is a red cone.", " here,  behind you is a red box."]
    assert exact_match(said, truth, rows) == {"value": 0.5, "scale": "0-1", "samples": [0.0, 1.0]}
    assert place_thing_f1(said, truth, rows) == {"value": 0.5, "scale": "0-1", "samples": [(2, 4), (0, 0)]}
    assert place_thing_f1([truth[0][0], ""], truth, rows)["value"] == 1.0
    other_data = place_thing_f1(said[1:], truth[1:], rows[1:])
    assert other_data["value"] is None and "no sample asks" in other_data["reason"]
    with pytest.raises(ValueError, match="no predictions"):
        exact_match([], [], [])
