"""A model as a Hugging Face folder: complete, equal after the way there and back, strict about its keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file, save_file
from tiny_models import language_folder, tiny_config, vision_folder
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

from panollava import PanoramaProcessor, PanoramaVLM
from panollava.errors import CheckpointError, ConfigError

FAMILIES = [("siglip", "qwen3"), ("dinov2-registers", "gemma2"), ("clip-full", "llama")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("backbones")
    for vision, language in FAMILIES:
        vision_folder(root, vision)
        language_folder(root, language)
    return root


def trained(root: Path, vision: str = "siglip", language: str = "qwen3", **settings: object) -> PanoramaVLM:
    """A model whose adapters, connectors and encoder differ from what the backbones' folders give."""
    torch.manual_seed(3)
    model = PanoramaVLM(tiny_config(root, vision, language, use_lora=True, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("language.") or ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def batch(model: PanoramaVLM) -> dict[str, Tensor]:
    assert model.prompt is not None
    sequences = [model.prompt.training(query, "a red box", 64) for query in ("what is behind?", "where?")]
    generator = torch.Generator().manual_seed(1)
    shape = (2, len(model.views), 3, *model.vision.spec.image_size)
    return {"pixel_values": torch.randn(shape, generator=generator), **model.prompt.collate(sequences, "right")}


def logits(model: PanoramaVLM) -> Tensor:
    with torch.no_grad():
        return model(**batch(model), stage="finetune", full_logits=True)["logits"]


@pytest.mark.parametrize(("vision", "language"), FAMILIES)
def test_there_and_back(root: Path, tmp_path: Path, vision: str, language: str) -> None:
    """With adapters beside the language model, and with them merged."""
    model = trained(root, vision, language)
    expected, answers = logits(model), model.generate(batch(model)["pixel_values"], ["what?", "where is it?"])["text"]
    model.save_pretrained(tmp_path / "adapted")
    again = PanoramaVLM.from_pretrained(tmp_path / "adapted")
    assert torch.equal(logits(again), expected) and again.config.use_lora
    assert again.generate(batch(model)["pixel_values"], ["what?", "where is it?"])["text"] == answers
    assert PanoramaProcessor.from_pretrained(tmp_path / "adapted") == PanoramaProcessor.for_model(model.config)
    assert PanoramaProcessor.for_model(again.config) == PanoramaProcessor.for_model(model.config)

    again.save_pretrained(tmp_path / "adapted")  # over itself
    again.merge_lora()
    again.save_pretrained(tmp_path / "merged")
    merged = PanoramaVLM.from_pretrained(tmp_path / "merged")
    assert not merged.config.use_lora and not (tmp_path / "merged/lora_weights").exists()
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits(merged), logits(_without_adapters(again, tmp_path)), atol=1e-3)


def _without_adapters(model: PanoramaVLM, tmp_path: Path) -> PanoramaVLM:
    config = json.loads((tmp_path / "adapted/config.json").read_text())
    config["model"]["use_lora"] = False
    (tmp_path / "adapted/config.json").write_text(json.dumps(config))
    return PanoramaVLM.from_pretrained(tmp_path / "adapted")


def test_each_part_loads_by_itself(root: Path, tmp_path: Path) -> None:
    model = trained(root)
    model.save_pretrained(tmp_path)
    assert model.language is not None
    text = model.language.tokenizer("what is behind?", return_tensors="pt")["input_ids"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "language_model")
    assert torch.equal(tokenizer("what is behind?", return_tensors="pt")["input_ids"], text)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "language_model").eval()
    original = AutoModelForCausalLM.from_pretrained(root / "qwen3").eval()
    adapted = PeftModel.from_pretrained(base, tmp_path / "lora_weights").eval()
    with torch.no_grad():
        expected = model.language.model(input_ids=text).logits
        torch.testing.assert_close(adapted(input_ids=text).logits, expected)
        with adapted.disable_adapter():
            torch.testing.assert_close(adapted(input_ids=text).logits, original(input_ids=text).logits)
    model.merge_lora()
    model.save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged/language_model").eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(input_ids=text).logits, expected)
    assert plain.generation_config.eos_token_id == original.generation_config.eos_token_id
    tower = AutoModel.from_pretrained(tmp_path / "vision_encoder")
    assert torch.equal(tower.encoder.layers[-1].mlp.fc1.weight, model.vision.blocks()[-1].mlp.fc1.weight)
    assert AutoConfig.from_pretrained(tmp_path / "vision_encoder").model_type == "siglip_vision_model"


@pytest.mark.parametrize(
    "file", ["model.safetensors", "vision_encoder/model.safetensors", "language_model/model.safetensors",
             "lora_weights/adapter_model.safetensors"],
)  # fmt: skip
def test_keys_that_do_not_fit_are_named(root: Path, tmp_path: Path, file: str) -> None:
    trained(root).save_pretrained(tmp_path)
    whole = load_file(tmp_path / file)
    name = next(key for key in sorted(whole) if "norm" not in key and "embed" not in key)
    prefix = name.rpartition(".")[0] or name
    for change, tensors in (
        ("missing", {key: tensor for key, tensor in whole.items() if key != name}),
        ("unexpected", {**whole, f"{prefix}.more": torch.zeros(1)}),
        ("shape", {**whole, name: torch.zeros(*whole[name].shape, 2)}),
    ):
        save_file(tensors, tmp_path / file, {"format": "pt"})
        with pytest.raises(CheckpointError, match=name if change != "unexpected" else "more") as told:
            PanoramaVLM.from_pretrained(tmp_path)
        assert change in str(told.value)
    (tmp_path / file).write_bytes(b"not a file of weights")
    with pytest.raises(Exception, match=r"safetensors|header|read"):
        PanoramaVLM.from_pretrained(tmp_path)


def test_the_vision_stage_alone(root: Path, tmp_path: Path) -> None:
    model = PanoramaVLM(tiny_config(root), with_language=False).eval()
    model.save_pretrained(tmp_path)
    again = PanoramaVLM.from_pretrained(tmp_path)
    pixels = batch(trained(root))["pixel_values"]
    with torch.no_grad():
        assert torch.equal(again(pixels, stage="vision")["loss"], model(pixels, stage="vision")["loss"])
    assert again.language is None and not (tmp_path / "language_model").exists()


def test_no_other_files_are_written_over(root: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        PanoramaVLM(tiny_config(root), with_language=False).save_pretrained(tmp_path)
    for text in (None, "{", "[]", '{"model_type": "llama"}'):
        if text is not None:
            (tmp_path / "config.json").write_text(text)
        with pytest.raises(CheckpointError, match="panollava export"):
            PanoramaVLM.from_pretrained(tmp_path)
    for text in ("{", "[]", "{}", '{"views": [], "image_size": 3}'):
        (tmp_path / "processor_config.json").write_text(text)
        with pytest.raises(CheckpointError, match="no processor"):
            PanoramaProcessor.from_pretrained(tmp_path)


def test_settings_that_no_model_has_are_named(root: Path, tmp_path: Path) -> None:
    PanoramaVLM(tiny_config(root)).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved/config.json"
    whole = json.loads(path.read_text())
    for changes, said in (
        ({"model": {**whole["model"], "fov_deg": None}}, "model: fov_deg must be a number in .*, got null"),
        ({"model": {**whole["model"], "resampler_type": "x"}}, "model: resampler_type must be one of"),
        ({"model": [1]}, "expected mappings under model and origin"),
        ({"origin": 3.5}, "expected mappings under model and origin"),
    ):
        path.write_text(json.dumps({**whole, **changes}))
        with pytest.raises(CheckpointError, match=f"config.json: {said}.*export the model again"):
            PanoramaVLM.from_pretrained(tmp_path / "saved")


def test_exported_adapters_find_their_base(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = PanoramaVLM(tiny_config(root, "siglip", "qwen3", use_lora=True)).eval()
    model.save_pretrained(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    AutoPeftModelForCausalLM.from_pretrained("lora_weights")
