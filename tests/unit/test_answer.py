"""One question, one answer: the same for a script, for `infer` and for the page."""

from __future__ import annotations

import os
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
from panollava.checkpoints.metadata import whole_origin
from panollava.errors import CheckpointError, DataError, EvaluationError
from panollava.evaluation.answer import InferRequest, answer, ask, refuse_without_language
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.serve import answering
from panollava.serve.answering import Answering

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


@pytest.fixture(scope="module")
def views(loaded: LoadedStage) -> Any:
    shape = (len(loaded.processor.views), *loaded.processor.image_size, 3)
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def test_the_page_answers_as_the_model_does(loaded: LoadedStage, views: Any) -> None:
    expected = loaded.model.generate(loaded.processor.pixels(views)[None], ["what?"], max_new_tokens=6)
    asked = ask(loaded.model, loaded.processor, views, "what?", CPU, max_new_tokens=6)
    shown = Answering(loaded, CPU).answer(views, " what? ", 6)
    assert asked.text == shown.text == expected["text"][0] != ""
    assert asked.num_tokens == shown.num_tokens == expected["generated_ids"].shape[1]


@pytest.mark.parametrize(("question", "said"), [(" ", "Type a question"), ("x" * 2001, "2001 characters")])
def test_a_visitor_is_told_what_cannot_be_asked(loaded: LoadedStage, views: Any, question: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Answering(loaded, CPU).answer(views, question, 6)


def test_half_a_character_is_no_question(loaded: LoadedStage, views: Any) -> None:
    with pytest.raises(DataError, match="the question is not text: its character 3 is half of one"):
        ask(loaded.model, loaded.processor, views, "a \udcff", CPU, max_new_tokens=6)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"generation": {"max_new_tokens": "x"}}, r"origin\.generation\.max_new_tokens: .*got 'x'"),
        ({"generation": 5}, r"origin\.generation: .*got 5"),
        ({"remembered": {"training": {"seed": "x"}}}, r"origin\.remembered\.training\.seed: .*got 'x'"),
    ],
)
def test_a_saved_model_that_remembers_nonsense_is_refused(tmp_path: Path, changes: Any, said: str) -> None:
    file = tmp_path / "config.json"
    assert whole_origin(file, {})["remembered"]["generation"]["max_new_tokens"] == 128
    with pytest.raises(CheckpointError, match=f"config.json: {said}"):
        whole_origin(file, changes)


def test_an_older_export_that_remembers_generation_alone_is_understood(tmp_path: Path) -> None:
    told = {"experiment": "E", "generation": {"max_new_tokens": 3}, "dataset": {"num_train_samples": 7}}
    told = whole_origin(tmp_path / "config.json", told)
    assert told["dataset"] == {"num_train_samples": 7, "train_csv": None, "val_csv": None, "test_csv": None}
    assert told["remembered"]["generation"]["max_new_tokens"] == 3
    assert told["remembered"]["evaluation"]["protocol"] and told["config_digest"] is None


def test_want_of_memory_says_what_helps_and_other_failures_stay(
    loaded: LoadedStage, views: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, expected, said in (
        (torch.OutOfMemoryError("CUDA out of memory\nmore"), EvaluationError, r"CUDA out of memory\. .*max_new_tokens"),
        (MemoryError(), EvaluationError, r"while answering\. .*max_new_tokens"),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
    ):
        monkeypatch.setattr(loaded.model, "generate", Mock(side_effect=error))
        with pytest.raises(expected, match=said):
            ask(loaded.model, loaded.processor, views, "what?", CPU)


def test_a_folder_without_a_language_model_is_refused(loaded: LoadedStage) -> None:
    refuse_without_language(loaded.model, Path("runs/EXP1"))
    silent = PanoramaVLM(loaded.model.config, with_language=False)
    with pytest.raises(EvaluationError, match=r"runs/EXP1 holds the vision stage.*Pass the folder"):
        refuse_without_language(silent, Path("runs/EXP1"))


@pytest.mark.parametrize(
    ("wanted", "told"), [({"temperature": 0.5, "top_p": None}, True), ({"do_sample": None}, False)]
)
def test_what_a_greedy_answer_does_not_read_is_told(
    loaded: LoadedStage, tmp_path: Path, caplog: pytest.LogCaptureFixture, wanted: dict[str, Any], told: bool
) -> None:
    loaded.model.save_pretrained(tmp_path / "saved")
    Image.new("RGB", (64, 32)).save(tmp_path / "pano.png")
    asked = InferRequest(tmp_path / "pano.png", "what?", tmp_path / "saved")
    document = answer(asked, {"max_new_tokens": 2, **wanted})
    assert document["generation"] == {"max_new_tokens": 2, "do_sample": False}
    assert ("temperature: no effect, the answer is decoded greedily" in caplog.text) == told


@pytest.mark.parametrize(
    ("question", "tokens", "said"),
    [(5, 6, "must be text, got int"), (["a"], 6, "must be text, got list"), ("a", "x", "must be a whole number"),
     ("a", 0, "must be a whole number"), ("a", True, "must be a whole number")],
)  # fmt: skip
def test_what_is_no_question_is_told(loaded: LoadedStage, views: Any, question: Any, tokens: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Answering(loaded, CPU).answer(views, question, tokens)


def test_a_small_file_of_many_pixels_is_refused_by_its_header(loaded: LoadedStage, tmp_path: Path) -> None:
    wide = answering.MOST_PIXELS // 2048 + 2
    Image.new("1", (wide, 2048)).save(tmp_path / "wide.png")
    with pytest.raises(DataError, match=rf"has {wide} x 2048 pixels; as PNG at most 34 million"):
        Answering(loaded, CPU).open(tmp_path / "wide.png", uploaded=True)


def test_who_waits_too_long_is_told(loaded: LoadedStage, views: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "WAIT_S", 0.01)
    busy = Answering(loaded, CPU)
    with busy._turn, pytest.raises(DataError, match="busy with other questions"):
        busy.answer(views, "what?", 2)
    assert busy.answer(views, "what?", 2).num_tokens  # and the turn is free again


def test_uploads_are_gone_when_the_page_ends(loaded: LoadedStage, monkeypatch: pytest.MonkeyPatch) -> None:
    page = pytest.importorskip("panollava.serve.page", reason="no gradio: pip install -e '.[serve]'")
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/elsewhere")
    with page.uploads_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "upload.png").touch()
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == "/elsewhere"
