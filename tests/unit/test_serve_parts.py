"""What the page is made of, without a browser: uploads with a time limit, answers that grow, what a visitor is told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.checkpoints.folder import ChosenCheckpoint
from panollava.checkpoints.loading import LoadedStage
from panollava.errors import DataError
from panollava.evaluation.answer import Answer
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.serve import answering, upload
from panollava.serve.answering import Answering, Sampling
from panollava.serve.notice import trained_on
from panollava.serve.upload import open_panorama, open_upload
from panollava.views.panorama import PanoramaError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedStage:
    root = tmp_path_factory.mktemp("backbones")
    vision_folder(root, "siglip")
    language_folder(root, "llama", seed=3)
    torch.manual_seed(5)
    model = PanoramaVLM(tiny_config(root, language="llama")).eval()
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    return LoadedStage(model, processor, {}, ChosenCheckpoint(root, root / "best.ckpt", "best.ckpt"), root)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def about(loaded: LoadedStage) -> tuple[Any, ...]:
    processor = loaded.processor
    return processor.views, processor.image_size, processor.rendering, 64


def test_an_upload_is_opened_as_any_other_picture(loaded: LoadedStage, picture: Path) -> None:
    here, apart = open_panorama(picture, *about(loaded)), open_upload(picture, *about(loaded))
    np.testing.assert_array_equal(here.views, apart.views)
    np.testing.assert_array_equal(here.panorama, apart.panorama)
    np.testing.assert_array_equal(here.views, loaded.processor.open(picture))
    assert here.unstitched is apart.unstitched is False
    (picture.parent / "words.jpg").write_text("words")
    with pytest.raises(PanoramaError) as error:
        open_upload(picture.parent / "words.jpg", *about(loaded))
    assert error.value.reason == "not an image"


def test_opening_an_upload_ends_when_its_time_is_over(
    loaded: LoadedStage, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match="could not be opened within 0 seconds"):
        open_upload(picture, *about(loaded), limit_s=0.01)
    assert time.monotonic() - started < 20
    monkeypatch.setattr(answering, "OPENING_S", 0.01)
    with pytest.raises(DataError, match="Make it smaller, or save it as JPEG"):
        Answering(loaded, CPU).open(picture, uploaded=True)
    assert Answering(loaded, CPU).open(picture).size == (128, 64)  # the server's own examples have all the time


def test_a_process_that_dies_without_a_word_is_told(
    loaded: LoadedStage, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload.sys, "executable", "/bin/true")
    with pytest.raises(DataError, match="more memory than there is"):
        open_upload(picture, *about(loaded))


def views_of(loaded: LoadedStage) -> Any:
    shape = (len(loaded.processor.views), *loaded.processor.image_size, 3)
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def test_answers_grow_and_end_as_the_whole_one(loaded: LoadedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    page, views = Answering(loaded, CPU), views_of(loaded)
    expected = loaded.model.generate(loaded.processor.pixels(views)[None], ["what?"], max_new_tokens=8)["text"][0]
    grown = list(page.stream(views, "what?", 8))
    assert grown[-1].text == expected and grown[-1].num_tokens > 0
    assert all(expected.startswith(one.text) for one in grown)
    said: list[str] = []

    def writes(
        model: Any, processor: Any, views: Any, question: str, device: Any, *, streamer: Any, **_: Any
    ) -> Answer:
        for piece in ("a red ", "box is ", "behind"):
            streamer.on_finalized_text(piece)
        said.append(question)
        return Answer("a red box is behind", 5)

    monkeypatch.setattr(answering, "ask", writes)
    grown = list(page.stream(views, " where? ", 8))
    assert list(dict.fromkeys(one.text for one in grown)) == ["a red", "a red box is", "a red box is behind"]
    stopped = page.stream(views, "what?", 8)
    next(stopped)
    stopped.close()  # the visitor has gone: the next one is answered
    assert page.answer(views, "and now?", 8).num_tokens == 5 and said == ["where?", "what?", "and now?"]


def test_a_failure_while_answering_is_raised_and_the_next_one_is_answered(
    loaded: LoadedStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, views = Answering(loaded, CPU), views_of(loaded)
    with monkeypatch.context() as patch:
        patch.setattr(loaded.model, "generate", Mock(side_effect=RuntimeError("a bug")))
        with pytest.raises(RuntimeError, match="a bug"):
            page.answer(views, "what?", 8)
    assert page.answer(views, "what?", 8).num_tokens > 0


def test_words_are_drawn_where_it_is_asked_for(loaded: LoadedStage) -> None:
    page, views = Answering(loaded, CPU), views_of(loaded)
    drawn = [page.answer(views, "what?", 8, sampling=Sampling(1.0, 1.0, seed)).text for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1


def test_earlier_questions_are_part_of_the_prompt(loaded: LoadedStage) -> None:
    page, views = Answering(loaded, CPU), views_of(loaded)
    turns = [[("user", "where?"), ("assistant", "here")]]
    pixels = loaded.processor.pixels(views)[None]
    expected = loaded.model.generate(pixels, ["what?"], max_new_tokens=8, contexts=turns)["text"][0]
    assert page.answer(views, "what?", 8, earlier=[("where?", "here")]).text == expected


def test_what_a_visitor_is_told() -> None:
    metadata = {
        "dataset": {"num_train_samples": 1200, "train_csv": "data/rooms.csv"},
        "model_config": {"vision_name": "google/siglip2-base-patch16-256", "language_model_name": "Qwen/Qwen3-0.6B"},
    }
    scores = {"metrics": {"bleu4": {"value": 0.1}, "cider": {"value": 0.52}}, "blind": {"cider": 0.31}}
    told = trained_on(metadata, {"evaluation": scores})
    assert told[0] == "Trained on 1,200 questions and answers of rooms.csv."
    assert told[1] == "On its test set: cider 0.52, 0.31 with other pictures." and len(told) == 3
    assert trained_on({**metadata, "stage": None, "dataset": {}}, None) == [
        "Nothing was trained on panoramas here: the model answers as it comes.",
        "About panoramas it may be wrong, in any words.",
    ]
    drawn = {**metadata, "model_config": {"vision_name": "miniature/siglip"}, "dataset": {}}
    assert "of photographs means nothing" in trained_on(drawn, None)[0]
