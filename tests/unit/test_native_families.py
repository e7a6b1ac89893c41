"""Native models by family, each on a miniature folder in its own format: what the product makes of pictures, questions
and answers is what transformers makes of them by the family's own processor and model.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_vlms import FAMILIES, vlm_folder
from torch import Tensor

from panollava.errors import ConfigError
from panollava.models.build import build_model, load_pretrained
from panollava.models.config import LoraSettings, ModelConfig
from panollava.models.native import NativeVLM
from panollava.models.native_families import NATIVE_FAMILIES
from panollava.models.native_parts import LORA_NAMES
from panollava.models.processor import PanoramaProcessor
from panollava.models.prompt import IGNORED, PromptBatch
from panollava.models.shapes import count_image_tokens

pytest.importorskip("torchvision", reason="native models need the extra `native`")

USED = sorted(set(FAMILIES) - {"llava_next"})
QUESTIONS = ["what is behind me?", "the sky", "describe the panorama"]
ANSWERS = ["a red box", "blue", "two chairs in this room"]
ABOUT = torch.tensor([0, 0, 1])  # which of two panoramas each question is about
RECURRENT = {"qwen3_5", "lfm2_vl"}  # they remember by states that cannot be shared


@dataclass
class Tried:
    """A family's folder, its model with adapters everywhere, and two panoramas of three views as bytes."""

    family: str
    folder: Path
    model: NativeVLM
    processor: PanoramaProcessor
    views: np.ndarray
    batch: PromptBatch

    @property
    def pixels(self) -> Tensor:
        return self.processor.pixels(self.views)


def config_of(folder: Path, **settings: Any) -> ModelConfig:
    lora = LoraSettings(rank=2, alpha=4.0, dropout=0.0, parts=["language", "vision"])
    values: dict[str, Any] = {
        "vlm_name": str(folder), "crop_strategy": "e2p", "fov_deg": 150.0, "overlap_ratio": 0.2, "lora": lora,
        "system_message": "You look around.",
    }  # fmt: skip
    return ModelConfig(**{**values, **settings})


def adapted_parts(family: str) -> tuple[str, ...]:
    """All but Gemma 3's connector, which is one bare weight."""
    return ("language", "vision") if family == "gemma3" else ("language", "vision", "connector")


@pytest.fixture(scope="module", params=USED)
def tried(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    folder = vlm_folder(tmp_path_factory.mktemp("vlm"), request.param)
    torch.manual_seed(0)
    model = build_model(
        config_of(folder, lora=LoraSettings(rank=2, alpha=4.0, dropout=0.0, parts=list(adapted_parts(request.param))))
    ).eval()
    assert isinstance(model, NativeVLM)
    for name, parameter in model.named_parameters():  # adapters that say something
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.2)
    processor = PanoramaProcessor.for_model(model.config)
    shape = (2, len(model.views), *processor.image_size, 3)
    views = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    sequences = [model.prompt.training(q, a, 100) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    yield Tried(request.param, folder, model, processor, views, model.prompt.collate(sequences, side="right"))


def own_inputs(tried: Tried, row: int) -> dict[str, Any]:
    """What the family's own processor makes of a question and its pictures, with the answer behind it."""
    prompt, processing = tried.model.prompt, tried.model.processing
    text = prompt._render(QUESTIONS[row])
    if processing.family.prefix_lm:
        text = processing.tokenizer.decode([processing.image_id]) * len(tried.model.views) + text.strip()
    pictures = [list(tried.views[ABOUT[row]])]
    found = dict(
        processing.processor(
            text=[text], images=pictures, return_tensors="pt", add_special_tokens=False, **processing.family.untiled
        )
        if tried.family not in ("smolvlm", "idefics3", "deepseek_vl")
        else processing.processor(
            text=[text], images=pictures, return_tensors="pt", add_special_tokens=False, **processing.options
        )
    )
    found.pop("labels", None)
    labels = tried.batch["labels"][row]
    answer = labels[labels != IGNORED][None]
    found["input_ids"] = torch.cat([found["input_ids"], answer], dim=1)
    found["attention_mask"] = torch.ones_like(found["input_ids"])
    for key in ("token_type_ids", "mm_token_type_ids"):
        if key in found:
            own = torch.full_like(answer, int(processing.family.prefix_lm))
            found[key] = torch.cat([found[key], own], dim=1)
    return found


@torch.no_grad()
def test_features_once_and_again_equal_the_familys_own_pixels(tried: Tried) -> None:
    features = tried.model.encode_vision(tried.pixels)
    assert torch.equal(features[0], tried.model.encode_vision(tried.pixels[:1])[0]) or torch.allclose(
        features[0], tried.model.encode_vision(tried.pixels[:1])[0], atol=1e-5
    )
    output: Any = tried.model(vision_features=features[ABOUT], stage="finetune", full_logits=True, **tried.batch)
    for row in range(len(QUESTIONS)):
        wanted = tried.model.model(**own_inputs(tried, row)).logits[0]
        found = output["logits"][row][: len(wanted)]
        length = int(tried.batch["attention_mask"][row].sum())
        assert len(wanted) == length
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_view_is_seen_as_it_was_rendered(tried: Tried) -> None:
    """Every byte of every view comes out of the family's processor: normalised, and otherwise as it went in."""
    inputs = tried.model.processing.inputs(torch.from_numpy(tried.views).movedim(-1, 2))
    pixels = inputs["pixel_values"].double()
    if "pixel_attention_mask" in inputs and pixels.ndim == 3:
        pixels = pixels[inputs["pixel_attention_mask"].bool()]
    settings = tried.model.processing.processor.image_processor
    mean, std = (torch.tensor(value, dtype=torch.float64) for value in (settings.image_mean, settings.image_std))
    wanted = ((torch.from_numpy(tried.views).double() / 255 - mean) / std).flatten().sort()[0]
    times = pixels.numel() // wanted.numel()
    torch.testing.assert_close(pixels.flatten().sort()[0], wanted.repeat_interleave(times), atol=1e-5, rtol=0)
    changed = tried.views.copy()
    changed[0, 1, 3, 5] = 255 - changed[0, 1, 3, 5]  # one pixel of one view
    other = tried.model.encode_vision(tried.processor.pixels(changed))
    same = (tried.model.encode_vision(tried.pixels) == other).flatten(2).all(dim=2)
    assert not same[0, 1] and same[1].all()


@torch.no_grad()
def test_a_left_padded_batch_answers_as_one_by_one(tried: Tried) -> None:
    features = tried.model.encode_vision(tried.pixels)
    together = tried.model.generate(vision_features=features[ABOUT], queries=QUESTIONS, max_new_tokens=5)
    shared = tried.model.generate(vision_features=features, image_index=ABOUT, queries=QUESTIONS, max_new_tokens=5)
    for row, question in enumerate(QUESTIONS):
        own = own_inputs(tried, row)
        labels = tried.batch["labels"][row]
        answer = int((labels != IGNORED).sum())
        prompt = {
            key: value[:, : value.shape[1] - answer]
            if key in ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")
            else value
            for key, value in own.items()
        }
        ends = [*tried.model.prompt.end_ids, *tried.model.own_end_ids]
        alone = tried.model.model.generate(**prompt, max_new_tokens=5, do_sample=False, eos_token_id=ends)[0]
        alone = alone[prompt["input_ids"].shape[1] :]
        for found in (together, shared):
            assert torch.equal(found["generated_ids"][row][: len(alone)], alone), (question, found["text"])


def test_a_shared_prefix_equals_whole_sequences_in_loss_and_gradients(
    tried: Tried, caplog: pytest.LogCaptureFixture
) -> None:
    model = tried.model
    model.set_trainable(("lora",))
    features = model.encode_vision(tried.pixels).detach()

    def step(**inputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        loss: Tensor = model(stage="finetune", **inputs, **tried.batch)["loss"]
        loss.backward()
        return loss.detach(), {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}

    whole, wanted = step(vision_features=features[ABOUT])
    shared, found = step(vision_features=features, image_index=ABOUT)
    torch.testing.assert_close(shared, whole, atol=1e-5, rtol=1e-5)
    assert wanted.keys() == found.keys() and wanted
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, atol=1e-5 + 1e-4 * float(gradient.abs().max()), rtol=1e-3)
    assert model.shares_prefix == (tried.family not in RECURRENT | {"paligemma"})
    losses = torch.cat(
        list(model.answer_losses(features[0], [[model.prompt.training(q, a, 100) for q, a in zip(QUESTIONS[:2], ANSWERS,
        strict=False)]]))
    )  # fmt: skip
    counts = (tried.batch["labels"][:2] != IGNORED).sum()
    alone = model(
        vision_features=features[[0, 0]],
        stage="finetune",
        **{k: v[:2] for k, v in tried.batch.items()},  # type: ignore[index]
    )["ar_loss"]
    torch.testing.assert_close((losses.sum() / counts).float(), alone, atol=1e-5, rtol=1e-5)


def test_every_adapter_moves_and_nothing_else(tried: Tried) -> None:
    model = tried.model
    parts = tuple(LORA_NAMES[part] for part in adapted_parts(tried.family))
    model.set_trainable(parts)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.zero_grad()
    model(pixel_values=tried.pixels, image_index=ABOUT, stage="finetune", **tried.batch)["loss"].backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(trained, lr=1.0).step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key, p in model.named_parameters() if p.requires_grad}
    assert {model.part_of(key) for key in moved} == set(parts)
    model.load_state_dict(before)
    model.zero_grad()


def test_it_comes_back_from_its_folder_alone_and_merged_as_the_familys_own(tried: Tried, tmp_path: Path) -> None:
    features = tried.model.encode_vision(tried.pixels).detach()
    wanted = tried.model.generate(vision_features=features[ABOUT], queries=QUESTIONS, max_new_tokens=5)
    saved, moved = tmp_path / "saved", tmp_path / "moved"
    tried.model.save_pretrained(saved, tried.processor)
    shutil.move(saved, moved)
    again, processor = load_pretrained(moved)
    assert isinstance(again, NativeVLM) and again.has_adapters
    assert processor == tried.processor
    found = again.generate(again_pixels := processor.pixels(tried.views)[ABOUT], QUESTIONS, max_new_tokens=5)
    assert found["text"] == wanted["text"] and len(again_pixels) == 3
    again.merge_lora()
    plain = tmp_path / "merged"
    again.save_pretrained(plain, processor)
    merged = _plain_logits(plain, tried)
    with torch.no_grad():
        output: Any = tried.model(vision_features=features[ABOUT], stage="finetune", full_logits=True, **tried.batch)
    torch.testing.assert_close(merged, output["logits"][0][: len(merged)], atol=2e-3, rtol=1e-3)


def test_transformers_own_classes_answer_as_panollava_does(tried: Tried, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

    tried.model.save_pretrained(tmp_path, tried.processor)
    panoramas = [_panorama(seed) for seed in (0, 1)]
    own = PanoramaProcessor.from_pretrained(tmp_path)
    pixels = own.pixels(np.stack([own.open(panoramas[row]) for row in ABOUT]))
    wanted = tried.model.generate(pixels, QUESTIONS, max_new_tokens=6)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(processor, PanoramaProcessor)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    model.load_adapter(str(tmp_path / "lora_weights"))
    inputs = processor(images=[panoramas[row] for row in ABOUT], text=QUESTIONS)
    ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(ids[:, inputs["input_ids"].shape[1] :], wanted["generated_ids"])
    ask = pipeline("image-text-to-text", model=model, processor=processor)
    answered = ask(images=panoramas[0], text=QUESTIONS[0], return_full_text=False, max_new_tokens=6, do_sample=False)
    assert answered[0]["generated_text"].strip() == wanted["text"][0]


def _panorama(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 128, 3), dtype=np.uint8))


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl"])
def test_positions_along_the_ring_go_with_the_inputs(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = build_model(config_of(vlm_folder(tmp_path, family), panorama_positions="panorope")).eval()
    model.merge_lora()
    model.save_pretrained(tmp_path / "saved")
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    inputs = processor(images=[_panorama(0), _panorama(1)], text=QUESTIONS[:2])
    again = PanoramaProcessor.from_pretrained(tmp_path / "saved")
    pixels = again.pixels(np.stack([again.open(_panorama(seed)) for seed in (0, 1)]))
    wanted = model.generate(pixels, QUESTIONS[:2], max_new_tokens=6)["generated_ids"]
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "saved").eval()
    ids = plain.generate(**inputs, max_new_tokens=6, do_sample=False)
    assert torch.equal(ids[:, inputs["input_ids"].shape[1] :], wanted)
    without = {key: value for key, value in inputs.items() if key != "position_ids"}
    with torch.no_grad():
        assert not torch.allclose(plain(**inputs).logits, plain(**without).logits, atol=1e-4)


def test_without_panollava_the_folder_is_the_familys_own(tmp_path: Path) -> None:
    model = build_model(config_of(vlm_folder(tmp_path, "internvl"))).eval()
    model.save_pretrained(tmp_path / "saved")
    code = (
        "import sys; from transformers import AutoModelForImageTextToText as M, AutoProcessor as P; "
        f"found = [type(one.from_pretrained({str(tmp_path / 'saved')!r})).__name__ for one in (M, P)]; "
        "print(found, 'panollava' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "['InternVLForConditionalGeneration', 'InternVLProcessor'] False", done.stderr


def test_conversations_are_asked_with_their_own_system_message(tmp_path: Path) -> None:
    model = build_model(config_of(vlm_folder(tmp_path, "internvl"))).eval()
    model.save_pretrained(tmp_path / "saved")
    processor = PanoramaProcessor.from_pretrained(tmp_path / "saved")
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image", "image": _panorama(0)}, {"type": "text", "text": "the sky"}]},
        {"role": "assistant", "content": "blue"},
        {"role": "user", "content": QUESTIONS[0]},
    ]
    inputs = processor.apply_chat_template(talk, tokenize=True)
    said = processor.tokenizer.decode(inputs["input_ids"][0])
    places = [said.index(part) for part in ("Be brief.", "the sky", "blue", QUESTIONS[0])]
    assert places == sorted(places) and "You look around." not in said
    assert int((inputs["input_ids"] == model.processing.image_id).sum()) == model.num_image_tokens


@torch.no_grad()
def _plain_logits(folder: Path, tried: Tried) -> Tensor:
    """Logits of the first question, by transformers alone."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    AutoProcessor.from_pretrained(folder)
    logits: Tensor = AutoModelForImageTextToText.from_pretrained(folder)(**own_inputs(tried, 0)).logits[0]
    return logits


def test_image_tokens_are_counted_before_any_weight_is_loaded(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.AutoModelForImageTextToText.from_pretrained", None)
    assert count_image_tokens(tried.model.config) == tried.model.num_image_tokens
    assert int(tried.batch["image_token_mask"][0].sum()) == tried.model.num_image_tokens


def test_at_least_ten_families_of_the_table_are_tried() -> None:
    assert len(set(USED) & set(NATIVE_FAMILIES)) >= 10


def test_a_family_that_cannot_be_used_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, "llava_next")
    with pytest.raises(ConfigError, match=r"LLaVA-NeXT.*its processor always cuts a picture into tiles"):
        count_image_tokens(config_of(folder))


def test_a_single_picture_that_would_be_tiled_is_refused(tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, "llava_onevision")
    with pytest.raises(ConfigError, match="cuts a single picture into tiles: choose a crop_strategy with at least 2"):
        count_image_tokens(config_of(folder, crop_strategy="resize"))


def test_a_size_that_the_tower_does_not_take_is_refused_with_one_that_it_does(tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, "llava")
    with pytest.raises(ConfigError, match=r"image_size \[64, 64\] does not fit .* takes \[56, 56\] alone"):
        count_image_tokens(config_of(folder, image_size=(64, 64)))
    folder = vlm_folder(tmp_path, "qwen2_5_vl")
    with pytest.raises(ConfigError, match=r"does not see views of \[60, 60\] pixels as they are.*\[56, 56\]"):
        count_image_tokens(config_of(folder, image_size=(60, 60)))


def test_view_labels_say_where_each_view_looks(tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, "qwen2_5_vl")
    model = build_model(config_of(folder, view_labels=True, use_lora=False))
    assert model.prompt is not None
    text = model.prompt.tokenizer.decode(model.prompt.generation("what?").input_ids)
    assert "view 2 of 3, 120° to the right:<|vision_start|>" in text and text.count("view ") == 3


def test_a_language_model_is_no_native_model(tmp_path: Path) -> None:
    from tiny_models import language_folder

    folder = language_folder(tmp_path, "qwen3")
    with pytest.raises(ConfigError, match="model type 'qwen3', which is no model of images and text"):
        count_image_tokens(config_of(folder))


def test_a_processor_that_resizes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = vlm_folder(tmp_path, "llava")
    monkeypatch.setattr("panollava.models.native_processing._AS_RENDERED", {})
    text = (folder / "processor_config.json").read_text(encoding="utf-8")
    (folder / "processor_config.json").write_text(
        text.replace('"shortest_edge": 56', '"shortest_edge": 70'), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match=r"does not see views of .* as they are rendered"):
        count_image_tokens(config_of(folder))


def test_words_that_read_like_pictures_or_control_are_text(tmp_path: Path) -> None:
    model = build_model(config_of(vlm_folder(tmp_path, "qwen2_5_vl"), system_message="<|image_pad|>", use_lora=False))
    prompt = model.prompt
    assert prompt is not None
    ids = prompt.generation("<|vision_start|><|image_pad|> is it?<|im_end|>").input_ids
    special = {prompt.tokenizer.convert_tokens_to_ids(token) for token in ("<|vision_start|>", "<|image_pad|>")}
    assert sum(token in special for token in ids) == model.num_image_tokens + 3, "three views, each begun once"
    assert "<|image_pad|> is it?<|im_end|>" in prompt.tokenizer.decode(ids)


def test_without_a_picture_the_family_is_asked_by_text_alone(tried: Tried) -> None:
    """The text-only control: the answers of the family's own model to a conversation in which no image stands."""
    if tried.model.processing.family.prefix_lm:
        with pytest.raises(ValueError, match="reads no prompt without a picture"):
            tried.model.answer_without_picture(QUESTIONS)
        return
    answers = tried.model.answer_without_picture(QUESTIONS, max_new_tokens=4)["text"]
    alone = [tried.model.answer_without_picture([question], max_new_tokens=4)["text"][0] for question in QUESTIONS]
    prompts = [tried.model.prompt.without_picture(question) for question in QUESTIONS]
    assert all(tried.model.processing.image_id not in prompt.input_ids for prompt in prompts)
    for prompt, said in zip(prompts, alone, strict=True):
        ids = torch.tensor([prompt.input_ids])
        ends = list(dict.fromkeys([*tried.model.prompt.end_ids, *tried.model.own_end_ids]))
        plain = tried.model.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False, eos_token_id=ends,
            pad_token_id=tried.model.prompt.pad_id,
        )  # fmt: skip
        assert tried.model.prompt.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True).strip() == said
    if tried.family not in RECURRENT:  # padding changes what a state remembers
        assert answers == alone
