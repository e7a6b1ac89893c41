"""PanoramaVLM on random miniatures: losses, generation, what trains, what is kept, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import AutoPeftModelForCausalLM, PeftModel
from tiny_models import language_folder, tiny_config, vision_folder
from transformers import AutoModelForCausalLM

from panollava.errors import CheckpointError, ConfigError
from panollava.models.parts import PARTS
from panollava.models.processor import PanoramaProcessor
from panollava.models.shapes import count_image_tokens
from panollava.models.vlm import PanoramaVLM
from panollava.views.strategies import CROP_STRATEGIES, plan_views

SIDES: tuple[Any, ...] = ("right", "left")
QUERIES = ["what is it?", "where is the blue sphere behind you?"]
ANSWERS = ["a red box on your left", "behind you"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    vision_folder(folder, "siglip")
    vision_folder(folder, "dinov2")
    for family in ("qwen3", "gemma2", "llama-base"):
        language_folder(folder, family)
    return folder


@pytest.fixture(scope="module")
def build(root: Path) -> Callable[..., PanoramaVLM]:
    def made(vision: str = "siglip", language: str = "qwen3", options: Any = None, **settings: object) -> PanoramaVLM:
        torch.manual_seed(0)
        return PanoramaVLM(tiny_config(root, vision, language, **settings), **(options or {}))

    return made


@pytest.fixture(scope="module")
def model(build: Callable[..., PanoramaVLM]) -> PanoramaVLM:
    return build().eval()


def pictures(count: int = 2, views: int = 9) -> torch.Tensor:
    return torch.randn(count, views, 3, 16, 16, generator=torch.Generator().manual_seed(3))


def text_batch(model: PanoramaVLM, room: int = 64) -> dict[str, Any]:
    assert model.prompt is not None
    rows = [model.prompt.training(q, a, room) for q, a in zip(QUERIES, ANSWERS, strict=True)]
    return dict(model.prompt.collate(rows, "right"))


@pytest.mark.parametrize("language", ["qwen3", "gemma2", "llama-base"])
def test_ar_loss_equals_the_plain_full_logits_loss(build: Callable[..., PanoramaVLM], language: str) -> None:
    """The reference hands the language model whole sequences one by one and lets it shift the labels itself."""
    model = build(language=language).eval()
    assert model.language is not None and model.projection is not None and model.positional is not None
    batch, pixels = text_batch(model), pictures()
    out = model(pixels, **batch, stage="resampler")
    full = model(pixels, **batch, stage="resampler", full_logits=True)
    summed, tokens = torch.zeros(()), 0
    for row in range(2):
        length = int(batch["attention_mask"][row].sum())
        ids, places = batch["input_ids"][row, :length], batch["image_token_mask"][row, :length]
        seen = model.vision(pixels[row])
        latents = model.resampler(seen[None], model.positional())
        embeds = model.language.model.get_input_embeddings()(ids).clone()
        embeds[places] = model.projection(latents[0].flatten(0, 1))
        labels = batch["labels"][row, :length]
        logits = model.language.model(inputs_embeds=embeds[None]).logits[0]
        summed = summed + F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
        tokens += int((labels != -100).sum())
    assert torch.allclose(out["loss"], summed / tokens, atol=1e-5)
    assert torch.allclose(full["ar_loss"], out["ar_loss"], atol=1e-6)
    assert out["logits"].shape == (tokens, full["logits"].shape[-1])
    assert full["logits"].shape[:2] == batch["input_ids"].shape


def test_padding_behind_needs_no_mask_and_padding_before_does(
    build: Callable[..., PanoramaVLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build().eval()
    assert model.prompt is not None and model.language is not None
    rows = [model.prompt.training(q, a, 64) for q, a in zip(QUERIES, ANSWERS, strict=True)]
    masks: list[Any] = []
    forward = model.language.model.forward
    monkeypatch.setattr(
        model.language.model, "forward", lambda **given: masks.append(given["attention_mask"]) or forward(**given)
    )
    right, left = (model(pictures(), **model.prompt.collate(rows, side), stage="resampler")["loss"] for side in SIDES)
    assert torch.allclose(right, left, atol=1e-5)
    assert masks[0] is None and masks[1] is not None


@pytest.mark.parametrize("stage", ["vision", "resampler", "finetune"])
def test_cached_features_give_the_same_loss(model: PanoramaVLM, stage: Any) -> None:
    batch = {} if stage == "vision" else text_batch(model)
    pixels = pictures()
    features = model.encode_vision(pixels)
    assert features.shape == (2, 9, 16, 16)
    assert torch.equal(
        model(pixels, **batch, stage=stage)["loss"], model(vision_features=features, **batch, stage=stage)["loss"]
    )


@pytest.mark.parametrize("language", ["qwen3", "gemma2", "llama-base"])
def test_left_padded_batch_equals_one_by_one(build: Callable[..., PanoramaVLM], language: str) -> None:
    model = build(language=language)
    pixels = pictures()
    together = model.generate(pixels, QUERIES, max_new_tokens=6)
    for row, query in enumerate(QUERIES):
        alone = model.generate(pixels[row : row + 1], [query], max_new_tokens=6)
        ids = alone["generated_ids"][0]
        assert torch.equal(together["generated_ids"][row, : len(ids)], ids)
        assert together["text"][row] == alone["text"][0]
    features = model.encode_vision(pixels)
    assert model.generate(vision_features=features, queries=QUERIES, max_new_tokens=6)["text"] == together["text"]
    assert model.training  # generation leaves the mode as it was


def test_generation_is_the_greedy_continuation_of_the_training_prompt(model: PanoramaVLM) -> None:
    """Each generated token is the arg max of the training forward's logits at its place: one path for both."""
    assert model.prompt is not None
    pixels = pictures(1)
    ids = model.generate(pixels, QUERIES[:1], max_new_tokens=4)["generated_ids"][0].tolist()
    asked = model.prompt.generation(QUERIES[0])
    taught = model.prompt.collate([model.prompt.training(QUERIES[0], "x", 64)], "right")
    start, known = len(asked.input_ids), asked.input_ids + ids
    batch = {
        "input_ids": torch.tensor([known]),
        "attention_mask": torch.ones(1, len(known), dtype=torch.long),
        "image_token_mask": torch.tensor([asked.image_token_mask + [False] * len(ids)]),
        "labels": torch.tensor([[-100] * start + ids]),
    }
    assert taught["input_ids"][0, :start].tolist() == asked.input_ids
    assert model(pixels, **batch, stage="finetune")["logits"].argmax(-1).tolist() == ids


def test_generation_stops_at_the_templates_end_of_turn(model: PanoramaVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.language is not None and model.prompt is not None
    first = model.generate(pictures(1), QUERIES[:1], max_new_tokens=3)["generated_ids"][0]
    assert len(first) == 3
    monkeypatch.setattr(model.prompt, "end_ids", (int(first[0]),))
    assert len(model.generate(pictures(1), QUERIES[:1], max_new_tokens=3)["generated_ids"][0]) == 1


def test_temperature_is_clamped_with_a_warning(model: PanoramaVLM) -> None:
    with pytest.warns(UserWarning, match=r"temperature 1.7 is outside \[0.1, 1.0\]; using 1.0"):
        model.generate(pictures(1), QUERIES[:1], max_new_tokens=1, do_sample=True, temperature=1.7, top_p=0.9)


def test_vision_stage_output(build: Callable[..., PanoramaVLM]) -> None:
    model = build(options={"with_language": False}, vicreg_loss_weight=0.5)
    out = model(pictures(), stage="vision")
    assert set(out) == {"loss", "vicreg_loss", "vicreg_raw", "vicreg_weight", "vicreg_dim"}
    assert torch.equal(out["loss"], 0.5 * out["vicreg_raw"]) and torch.equal(out["loss"], out["vicreg_loss"])
    assert (out["vicreg_weight"], out["vicreg_dim"]) == (0.5, 20)
    assert set(model.parts()) == {"vision_encoder", "resampler", "vicreg_projector"}
    with pytest.raises(ConfigError, match="without a language model"):
        model(pictures(), stage="resampler")


def test_one_view_each(build: Callable[..., PanoramaVLM]) -> None:
    model = build(crop_strategy="resize").eval()
    pixels, batch = pictures(2, 1), text_batch(model)
    whole = model(pixels, **batch, stage="resampler")["loss"]
    assert torch.equal(whole, model(pixels[:, 0], **batch, stage="resampler")["loss"])
    with pytest.raises(ConfigError, match=r"training.stages: \[resampler, finetune\]"):
        model(pixels, stage="vision")


@pytest.mark.parametrize("strategy", CROP_STRATEGIES)
def test_the_model_looks_at_the_views_of_its_strategy(build: Callable[..., PanoramaVLM], strategy: str) -> None:
    settings = {"fov_deg": 80.0, "overlap_ratio": 0.3, "anyres_max_patches": 6}
    views = plan_views(strategy, **settings)  # type: ignore[arg-type]
    model = build(crop_strategy=strategy, options={"with_language": False}, **settings).eval()
    assert model.views == views == PanoramaProcessor.for_model(model.config).views
    features = model.encode_vision(pictures(1, len(views)))
    assert features.shape[:2] == (1, len(views))
    assert count_image_tokens(model.config) == len(views) * 16
    with pytest.raises(ValueError, match=rf"{len(views)}"):
        model(pictures(1, len(views) + 1), stage="vision")


@pytest.mark.parametrize("vision", ["siglip", "dinov2"])
@pytest.mark.parametrize("stage", ["vision", "resampler", "finetune"])
def test_exactly_what_trains_gets_gradients(build: Callable[..., PanoramaVLM], vision: str, stage: Any) -> None:
    trains = {
        "vision": ("resampler", "vicreg_projector"),
        "resampler": ("resampler", "positional", "projection"),
        "finetune": ("resampler", "positional", "projection", "lora"),
    }[stage]
    model = build(vision=vision, use_lora=True)
    model.set_trainable(trains, vision_blocks=1 if stage == "vision" else 0)
    assert model.vision.training == (stage == "vision")
    for adapter in model.named_part_parameters()["lora"].values():
        adapter.data.normal_(std=0.1)  # B starts at zero, which hides A's gradient
    model(pictures(), **({} if stage == "vision" else text_batch(model)), stage=stage)["loss"].backward()
    for part, parameters in model.named_part_parameters().items():
        for name, parameter in parameters.items():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            if part not in ("vision_encoder", "vicreg_projector"):
                assert parameter.requires_grad == (part in trains), name
            if parameter.requires_grad and not name.endswith("k_proj.bias"):
                assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_parts_divide_the_model(build: Callable[..., PanoramaVLM]) -> None:
    model = build(use_lora=True)
    divided = model.named_part_parameters()
    assert tuple(divided) == PARTS == tuple(model.parts())
    names = [name for parameters in divided.values() for name in parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert {id(p) for p in model.parts()["lora"].parameters()} == {id(p) for p in divided["lora"].values()}
    assert len(divided["lora"]) == 2 * 2 * 7  # A and B, two layers, seven linear layers each
    with pytest.raises(ValueError, match="vision_blocks for the encoder"):
        model.set_trainable(["vision_encoder"])


def test_the_trained_state_goes_on_from_stage_to_stage(build: Callable[..., PanoramaVLM], root: Path) -> None:
    first = build(options={"with_language": False})
    first.set_trainable(["resampler", "vicreg_projector"], vision_blocks=1)
    for parameter in first.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.5)
    state = first.trained_state_dict()
    blocks = {key for key in state if key.startswith("vision.")}
    assert blocks and all("layers.2." in key or "post_layernorm" in key for key in blocks)

    second = build(use_lora=True)
    second.load_trained(state, required=["resampler"], without=["vicreg_projector"])
    second.set_trainable(["resampler", "positional", "projection", "lora"])
    later = second.trained_state_dict()
    assert blocks < set(later) and not any(key.startswith("vicreg") for key in later)
    assert not any("base_layer" in key for key in later)
    third = build(use_lora=True)
    third.load_trained(later, required=["projection", "lora"])
    for key, tensor in later.items():
        assert torch.equal(third.state_dict()[key], tensor), key
    assert torch.equal(third.eval().encode_vision(pictures()), first.eval().encode_vision(pictures()))
    only = second.trained_state_dict(["projection"])
    assert {key.partition(".")[0] for key in only} == {"projection"}


def test_keys_that_do_not_fit_are_listed(build: Callable[..., PanoramaVLM]) -> None:
    model = build()
    state = model.trained_state_dict(["projection", "resampler"])
    state["resampler.extra"] = torch.zeros(1)
    state["projection.linear.bias"] = torch.zeros(3)
    del state["projection.norm.weight"]
    with pytest.raises(CheckpointError) as caught:
        model.load_trained(state, required=["positional"])
    text = str(caught.value)
    for words in ("missing (3)", "projection.norm.weight", "positional.linear.weight", "unexpected (1)"):
        assert words in text
    assert "resampler.extra" in text and "projection.linear.bias: [3] instead of [32]" in text


def test_the_adapter_folder_is_plain_peft(build: Callable[..., PanoramaVLM], root: Path, tmp_path: Path) -> None:
    model = build(use_lora=True).eval()
    for adapter in model.named_part_parameters()["lora"].values():
        adapter.data.normal_(std=0.2)
    model.save_adapter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    base = AutoModelForCausalLM.from_pretrained(root / "qwen3")
    ids = torch.tensor([[5, 6, 7]])
    before = base(ids).logits
    again = PeftModel.from_pretrained(base, tmp_path).eval()
    assert again.peft_config["default"].base_model_name_or_path == str(root / "qwen3")
    assert model.language is not None
    mine = model.language.model(input_ids=ids).logits
    assert torch.allclose(again(input_ids=ids).logits, mine) and not torch.allclose(mine, before)
    by_itself = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()  # finds its base by the name
    assert torch.allclose(by_itself(input_ids=ids).logits, mine)


def test_untrained_adapters_change_nothing(build: Callable[..., PanoramaVLM]) -> None:
    plain, adapted = build().eval(), build(use_lora=True).eval()
    batch = text_batch(plain)
    assert torch.equal(
        plain(pictures(), **batch, stage="finetune")["loss"], adapted(pictures(), **batch, stage="finetune")["loss"]
    )


def test_gradient_checkpointing_gives_the_same_gradients(build: Callable[..., PanoramaVLM]) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build(use_lora=True)
        model.set_trainable(["projection", "lora"], vision_blocks=1)
        if checkpointing:
            model.enable_gradient_checkpointing()
            assert model.language is not None and model.language.model.is_gradient_checkpointing
        model.train()
        model(pictures(), **text_batch(model), stage="finetune")["loss"].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_visual_tokens_have_the_size_of_embeddings(build: Callable[..., PanoramaVLM]) -> None:
    """Gemma scales its embeddings inside the embedding module; the projection starts at the scaled size."""
    for language in ("qwen3", "gemma2"):
        model = build(language=language)
        assert model.language is not None
        size = model.language.embed(torch.arange(300)[None]).std()
        tokens = model.encode_panorama(model.encode_vision(pictures()))
        assert 0.7 < float(tokens.detach().std() / size.detach()) < 1.4
        weight = model.language.model.get_input_embeddings().weight.std()
        assert float((size / weight).detach()) == pytest.approx(32**0.5 if language == "gemma2" else 1.0, rel=0.01)


@pytest.mark.parametrize("mode", ["concat", "drop_overlap", "stride_views", "resample"])
def test_stitched_models_run_and_their_length_is_known(
    build: Callable[..., PanoramaVLM], root: Path, mode: str
) -> None:
    model = build(stitching_mode=mode)
    assert model.num_image_tokens == count_image_tokens(model.config)
    assert model(pictures(), **text_batch(model), stage="resampler")["loss"].isfinite()


def test_wrong_inputs_say_what_was_expected(model: PanoramaVLM) -> None:
    batch, pixels = text_batch(model), pictures()

    def refused(error: type[Exception], words: str, *, stage: Any = "resampler", **changed: Any) -> None:
        with pytest.raises(error, match=words):
            model(**{"pixel_values": pixels, **batch, **changed}, stage=stage)

    refused(ValueError, "stage must be one of vision, resampler, finetune, got 'train'", stage="train")
    refused(ValueError, r"must be \[B, 9, 3, 16, 16\].*got \[2, 9, 3, 8, 16\]", pixel_values=pixels[..., :8, :])
    refused(ValueError, r"must be \[B, 9, 3, 16, 16\], got \[2, 4, 3, 16, 16\]", pixel_values=pixels[:, :4])
    refused(TypeError, "floating point", pixel_values=pixels.to(torch.uint8))
    refused(TypeError, "pixel_values must be a tensor, got list", pixel_values=[1])
    refused(ValueError, "either pixel_values or vision_features", pixel_values=None)
    refused(ValueError, "and not both", vision_features=torch.zeros(2, 9, 16, 16))
    refused(ValueError, r"vision_features must be \[B, 9, 16, 16\]", pixel_values=None, vision_features=pixels[..., 0])
    refused(TypeError, "labels must be a tensor", labels=None)
    refused(TypeError, "int64", input_ids=batch["input_ids"].float())
    refused(TypeError, "image_token_mask must be bool", image_token_mask=batch["attention_mask"])
    refused(ValueError, r"attention_mask must be \[B, L\]", attention_mask=batch["attention_mask"][:, :-1])
    refused(ValueError, "input_ids has 2 rows, the pictures 1", pixel_values=pixels[:1])
    refused(ValueError, "mark 144 places in every row, got", image_token_mask=~batch["image_token_mask"])
    refused(ValueError, "supervise no token", labels=torch.full_like(batch["labels"], -100))
    for queries, error, words in (("what?", TypeError, "a list of text"), (["a"], ValueError, "1 queries for 2"),
                                  ([1, 2], TypeError, "must be text")):  # fmt: skip
        with pytest.raises(error, match=words):
            model.generate(pixels, queries)  # type: ignore[arg-type]
    for options, error in (({"max_new_tokens": 0}, ValueError), ({"max_new_tokens": 1.5}, TypeError),
                           ({"top_p": 0.0}, ValueError), ({"temperature": "hot"}, TypeError),
                           ({"temperature": float("nan")}, ValueError)):  # fmt: skip
        with pytest.raises(error):
            model.generate(pixels, QUERIES, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="config must be a ModelConfig"):
        PanoramaVLM({"vision_name": "x"})  # type: ignore[arg-type]
