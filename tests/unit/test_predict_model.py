"""Predicting with a real (tiny) model: batches give the answers of one by one, sampling goes on where a kill cut it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.data.samples import Sample
from panollava.errors import EvaluationError
from panollava.evaluation.predict import FinishedAnswers, PredictionSettings, predict, predictions_of
from panollava.evaluation.shards import joined
from panollava.files import write_json
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM

GREEDY = PredictionSettings(6, False, 1.0, 1.0, batch_size=3, seed=1)
SAMPLED = replace(GREEDY, do_sample=True, top_p=0.95)
QUERIES = ["what?", "a red box", "where is the blue sphere? is it behind you?", "describe it: xyz"]
SAMPLES = [Sample(n, f"p{n % 2}.png", QUERIES[n // 2], ("reference",)) for n in range(8)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backbones")
    vision_folder(root, "siglip")
    language_folder(root, "llama", seed=3)
    return root


@pytest.fixture(scope="module")
def parts(folders: Path) -> tuple[PanoramaVLM, PanoramaProcessor, dict[str, Any]]:
    torch.manual_seed(5)
    model = PanoramaVLM(tiny_config(folders, language="llama"))
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    shape = (len(model.views), *processor.image_size, 3)
    noise = np.random.default_rng(0)
    return model, processor, {f"p{n}.png": noise.integers(0, 255, shape, dtype=np.uint8) for n in range(2)}


def texts(parts: Any, settings: PredictionSettings, **options: Any) -> list[str]:
    model, processor, pictures = parts
    return [
        one.text
        for one in predict(model, processor, SAMPLES, pictures, settings, device=torch.device("cpu"), **options)
    ]


def test_batches_give_the_answers_of_one_by_one(parts: Any) -> None:
    together = texts(parts, GREEDY)
    assert together == texts(parts, replace(GREEDY, batch_size=1)) and len(set(together)) > 1


def test_sampling_is_a_matter_of_the_seed(parts: Any) -> None:
    once = texts(parts, SAMPLED)
    torch.manual_seed(99)
    assert once == texts(parts, SAMPLED) != texts(parts, replace(SAMPLED, seed=2))
    assert once != texts(parts, GREEDY)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_parts_together_are_the_whole(parts: Any, tmp_path: Path, count: int) -> None:
    """Sampled, so that an answer depends on its batch and on the batch's seed; more parts than batches among them."""
    model, processor, pictures = parts
    files = []
    for number in range(1, count + 1):
        found = predict(model, processor, SAMPLES, pictures, SAMPLED, device=torch.device("cpu"), part=(number, count))
        files.append(tmp_path / f"{number}.json")
        answers = [[one.sample_id, one.text, one.error] for one in found]
        write_json(files[-1], {"key": "k", "made": {"device": "cpu"}, "answers": answers})
    made, answers = joined(files, "k")
    assert made == {"device": "cpu"} and sorted(answers) == list(range(8))
    assert [one.text for one in predictions_of(SAMPLES, answers)] == texts(parts, SAMPLED)
    with pytest.raises(EvaluationError, match=r"1\.json is a part of other answers"):
        joined(files, "other")


def test_parts_of_unlike_devices_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, device in (("a", "cpu"), ("b", "cuda (H200)")):
        write_json(tmp_path / name, {"key": "k", "made": {"device": device}, "answers": []})
    joined([tmp_path / "a", tmp_path / "b"], "k")
    assert "answered on unlike devices (cpu, cuda (H200))" in caplog.text


def test_a_killed_prediction_samples_the_same_answers(
    parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, generate, asked = parts[0], parts[0].generate, []

    def killed(*arguments: Any, **options: Any) -> Any:
        asked.append(options["queries"])
        if len(asked) == 2:
            raise KeyboardInterrupt
        return generate(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(model, "generate", killed)
        texts(parts, SAMPLED, finished=FinishedAnswers(tmp_path / "answers.jsonl"))
    kept = FinishedAnswers(tmp_path / "answers.jsonl")
    assert len(kept.texts) == 3
    assert texts(parts, SAMPLED, finished=kept) == texts(parts, SAMPLED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoder_and_projection_compute_as_in_training(folders: Path, dtype: torch.dtype) -> None:
    """In bfloat16 where the language model is held in it: rounded, and the answer of features is that of pixels."""
    torch.manual_seed(5)
    model = PanoramaVLM(tiny_config(folders, language="llama"), dtype=dtype).eval()
    pixels = torch.randn(2, 9, 3, 16, 16)
    exact = model.encode_vision(pixels)
    with model.autocast():
        features = model.encode_vision(pixels)
    assert torch.equal(features, exact) is (dtype == torch.float32)
    assert torch.allclose(features.float(), exact, atol=0.1)
    answers = model.generate(pixels, QUERIES[:2], max_new_tokens=4)["text"]
    assert answers == model.generate(vision_features=features, queries=QUERIES[:2], max_new_tokens=4)["text"]


def test_the_text_only_control_has_no_image_token_and_asks_whatever_the_picture(parts: Any) -> None:
    model, processor, _ = parts
    prompt = model.prompt.without_picture("a red box")
    assert not any(prompt.image_token_mask) and model.prompt.pad_id not in prompt.input_ids
    whole = model.prompt.generation("a red box")
    assert len(whole.input_ids) - len(prompt.input_ids) >= model.num_image_tokens
    answers = texts(parts, GREEDY, text_only=True)
    assert answers == texts(parts, replace(GREEDY, batch_size=1), text_only=True)
    assert answers[0::2] == answers[1::2] and len(set(answers)) > 1  # two pictures, one answer to each query
    ids = torch.tensor([prompt.input_ids])
    ends = list(dict.fromkeys([*model.prompt.end_ids, *model.language.own_end_ids]))
    plain = model.language.model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=ends,
        pad_token_id=model.prompt.pad_id,
    )  # fmt: skip
    said = model.language.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True).strip()
    assert answers[QUERIES.index("a red box") * 2] == said
    gone = predict(
        model, processor, SAMPLES, {}, GREEDY, device=torch.device("cpu"), text_only=True
    )  # a picture that is gone hinders no question without one
    assert [one.text for one in gone] == answers
