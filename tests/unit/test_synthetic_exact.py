"""Synthetic questions with right answers: true to the scene, balanced, read back as what they say."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from panollava.answers.grading import Question, grade, read_truth
from panollava.config import WorkflowConfig
from panollava.config.embedded import SyntheticSettings
from panollava.data.details import Details
from panollava.data.formats import read_source
from panollava.data.prepare import prepare_csv
from panollava.data.samples import read_rows
from panollava.data.synthetic.captions import from_here
from panollava.data.synthetic.draw import draw_synthetic
from panollava.data.synthetic.exact import EXACT_TYPES, as_prompted, draw_typed, exact_questions
from panollava.data.synthetic.scenes import PLACES, SECTORS, Scene, sample_scene
from panollava.miniature.language import Writer
from panollava.miniature.tokenizer import build_tokenizer

ALL = ["text", *EXACT_TYPES]


def scenes(count: int) -> list[tuple[np.random.Generator, Scene]]:
    rng = np.random.default_rng(5)
    return [(rng, sample_scene(rng)) for _ in range(count)]


def question_of(details: Details) -> Question:
    return Question(details.answer_type, details.options)


def test_every_reference_says_what_is_in_the_scene() -> None:
    for rng, scene in scenes(60):
        for question in exact_questions(rng, scene, "yes_no"):
            place = next(one for one in PLACES if question.references[0].startswith(_words(one)))
            assert question.query == f"is there anything {from_here(_words(place))}?"
            truths = [read_truth(text, question_of(question.details)) for text in question.references]
            assert truths == [scene.at(place) is not None] * 3
        for question in exact_questions(rng, scene, "choice"):
            place = read_truth(question.references[0], question_of(question.details))
            about = next(one for one in scene.solids if question.references[0].startswith(_words(one.place)))
            assert question.details.options[place] == f"{about.colour} {about.shape}"
            colours = [option.split()[0] for option in question.details.options]
            assert len(set(colours)) == 4
        (count,) = exact_questions(rng, scene, "number")
        assert {read_truth(text, question_of(count.details)).value for text in count.references} == {len(scene.solids)}
        for question in exact_questions(rng, scene, "direction"):
            found = read_truth(question.references[2], question_of(question.details))
            about = next(one for one in scene.solids if f"the {one.colour} {one.shape}" in question.query)
            assert found.pitch_deg == 90 if about.place == "above" else found.yaw_deg == SECTORS[about.place]


def _words(place: str) -> str:
    from panollava.data.synthetic.captions import PLACE_WORDS

    return PLACE_WORDS[place]


def test_answers_are_balanced_so_that_guessing_is_not_learnt() -> None:
    truths: dict[str, Counter[str]] = {kind: Counter() for kind in ("yes_no", "choice")}
    for rng, scene in scenes(300):
        for kind, counted in truths.items():
            for question in exact_questions(rng, scene, kind):
                counted[grade("", question.references, question_of(question.details)).truth] += 1
    assert max(truths["yes_no"].values()) < 0.55 * truths["yes_no"].total()
    assert sorted(truths["choice"]) == ["A", "B", "C", "D"]
    assert max(truths["choice"].values()) < 0.3 * truths["choice"].total()


def test_a_kind_that_a_scene_cannot_settle_is_drawn_from_another() -> None:
    rng, scene = scenes(1)[0]
    twins = Scene(scene.sky, scene.ground, scene.offset, (scene.solids[0], scene.solids[0]))
    assert exact_questions(rng, twins, "direction") == []
    assert len(draw_typed(rng, twins, ["direction", "number"], 5)) == 5


@pytest.mark.timeout(60)
def test_a_scene_that_settles_none_of_a_kind_ends_the_drawing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rng, scene = scenes(1)[0]
    twins = Scene(scene.sky, scene.ground, scene.offset, (scene.solids[0], scene.solids[0]))
    assert draw_typed(rng, twins, ["direction"], 2) == []
    monkeypatch.setattr("panollava.data.synthetic.draw.sample_scene", lambda rng: twins)
    settings = SyntheticSettings(
        question_types=["yes_no", "direction"], train_scenes=2, val_scenes=1, test_scenes=1, image_height=32
    )  # type: ignore[arg-type]
    draw_synthetic(settings, tmp_path, progress=False, workers=1)
    with (tmp_path / "train.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["answer_type"] for row in csv.DictReader(stream)] == ["yes_no"] * 2 * settings.train_queries

    drawn = iter([twins, twins, *(scene for _, scene in scenes(20))])
    monkeypatch.setattr("panollava.miniature.language.sample_scene", lambda rng: next(drawn))
    writer = Writer(build_tokenizer(640, ["direction"]), most_copies=1, turns=2, types=["direction"])
    assert any(writer.training_document(rng).settled)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    settings = SyntheticSettings(
        question_types=ALL, train_scenes=6, val_scenes=1, test_scenes=2, image_height=32, train_queries=6
    )  # type: ignore[arg-type]
    draw_synthetic(settings, folder, progress=False, workers=1)
    return folder


def test_the_drawn_set_asks_all_kinds_and_prepares_without_a_loss(drawn: Path, tmp_path: Path) -> None:
    with (drawn / "test.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert header == ["image_path", "query", "annotation", "answer_type", "options", "category"]
    assert {row[3] for row in rows} == {"", *EXACT_TYPES}
    for split in ("train", "test"):
        assert not any(row.problem for row in read_source(drawn / f"{split}.csv").rows)
    prepare_csv([drawn / "train.csv"], tmp_path / "p.csv", tmp_path / "r.csv", root=drawn, progress=False)
    prepared = read_rows(tmp_path / "p.csv")
    assert len(prepared) == 36
    assert any(
        row.prompt.endswith("Answer yes or no.") and row.target.endswith((": yes.", ": no.")) for row in prepared
    )


def test_kinds_are_part_of_what_is_drawn_and_of_what_the_language_model_learns() -> None:
    plain = WorkflowConfig.from_dict({"experiment": {"name": "E"}})
    typed = plain.with_values({"data.synthetic.question_types": ["yes_no"]})
    for node in ("synthetic", "miniature_language"):
        assert plain.digest(node) != typed.digest(node)
    assert plain.digest("miniature_vision") == typed.digest("miniature_vision")


def test_the_language_model_reads_the_prompts_that_prediction_uses() -> None:
    tokenizer = build_tokenizer(640, EXACT_TYPES)
    writer = Writer(tokenizer, 1, 1, EXACT_TYPES)
    rng = np.random.default_rng(0)
    scene = sample_scene(rng)
    question = as_prompted(exact_questions(rng, scene, "choice")[0])
    text = tokenizer.decode(writer.document(rng, scene, [question], [0]).text)
    assert "\nA. " in text and "\nAnswer with the letter." in text and question.references[0] in text
    assert len(tokenizer) > len(build_tokenizer()) and writer.training_document(rng).labels
