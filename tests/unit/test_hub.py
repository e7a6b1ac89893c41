"""Exported models in transformers: Auto classes, pipelines, the callable processor, huggingface_hub."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from directions import direction_panorama, packet, photo
from PIL import Image
from tiny_models import language_folder, tiny_config, vision_folder

from panollava import PanoramaProcessor, PanoramaVLM
from panollava.errors import ConfigError, DataError
from panollava.models.model_card import model_card

QUESTION = "what is behind me?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    vision_folder(root, "siglip")
    language_folder(root, "qwen3")
    torch.manual_seed(3)
    model = PanoramaVLM(tiny_config(root, "siglip", "qwen3", use_lora=True))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("language.") or ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(root / "model")
    (root / "model/panorama.png").write_bytes(photo(direction_panorama(128), "PNG"))
    return root / "model"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, Any]:
    """What panollava's own classes answer."""
    model, processor = PanoramaVLM.from_pretrained(folder), PanoramaProcessor.from_pretrained(folder)
    pixels = processor.pixels(processor.open(folder / "panorama.png"))[None]
    return {"pixels": pixels, **model.generate(pixels, [QUESTION], max_new_tokens=6)}


def test_the_pipeline_answers_as_panollava_does(
    folder: Path, expected: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import pipeline

    ask = pipeline("image-text-to-text", model=str(folder))
    path, options = str(folder / "panorama.png"), {"max_new_tokens": 6, "return_full_text": False}
    talk = [{"role": "user", "content": [{"type": "image", "path": path}, {"type": "text", "text": QUESTION}]}]
    for answered in (ask(images=path, text=QUESTION, **options), ask(text=talk, **options)):
        assert answered[0]["generated_text"] == expected["text"][0]
    ids = ask(images=Image.open(path), text=QUESTION, max_new_tokens=6, return_tensors=True)[0]["generated_token_ids"]
    assert torch.equal(ids, expected["generated_ids"][0])
    assert "not supported" not in caplog.text


def test_transformers_may_be_imported_first(folder: Path) -> None:
    load = f"AutoConfig.from_pretrained({str(folder)!r})"
    code = f"from transformers import AutoConfig; import panollava; print({load}.model_type)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "panollava", done.stderr


def test_auto_classes(folder: Path, expected: dict[str, Any]) -> None:
    from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor

    config = AutoConfig.from_pretrained(folder)
    assert config.model_type == "panollava" and config.model["resampler_type"] == "mlp"
    processor = AutoProcessor.from_pretrained(folder)
    assert isinstance(processor, PanoramaProcessor)
    assert processor.to_json() == PanoramaProcessor.from_pretrained(folder).to_json()
    inputs = processor(images=folder / "panorama.png", text=QUESTION)
    assert torch.equal(inputs["pixel_values"], expected["pixels"])
    for kind in (AutoModel, AutoModelForImageTextToText):
        model = kind.from_pretrained(folder)
        ids = model.generate(**inputs, max_new_tokens=6, do_sample=False)
        assert torch.equal(ids, expected["generated_ids"])
        assert processor.post_process_image_text_to_text(ids) == expected["text"]
    labels = inputs["input_ids"].masked_fill(inputs["image_token_mask"], -100)
    output = model(**inputs, labels=labels)
    assert output.logits.shape[:2] == inputs["input_ids"].shape and output.loss > 0
    with pytest.raises(ValueError, match="generation options that are not read: num_beams"):
        model.generate(**inputs, num_beams=2)


def test_the_processor_takes_paths_pictures_and_arrays(folder: Path) -> None:
    processor = PanoramaProcessor.from_pretrained(folder)
    path = folder / "panorama.png"
    array = direction_panorama(128)
    for same in (path, str(path), Image.open(path), Image.fromarray(array), array):
        np.testing.assert_array_equal(processor.open(same), processor.open(path))
    inputs = processor([path, array], ["what?", "what is this, and where?"])
    assert inputs["pixel_values"].shape[0] == 2 and inputs["attention_mask"][0, 0] == 0  # padded left
    assert set(processor(images=[path])) == {"pixel_values"}
    assert torch.equal(processor([[path]], ["<image>\nwhat?"])["input_ids"], processor(path, "what?")["input_ids"])
    for wrong, error in (
        (lambda: processor([path], ["a", "b"]), "2 questions about 1 panoramas"),
        (lambda: processor(array.astype(float)), r"uint8 \[H, W, 3\], got float64"),
        (lambda: processor(array[..., 0]), r"uint8 \[H, W, 3\]"),
    ):
        with pytest.raises(ValueError, match=error):
            wrong()
    with pytest.raises(DataError, match="not about 2:1"):
        processor(Image.fromarray(array[:, :64]))
    with pytest.raises(ConfigError, match="knows no tokenizer"):
        PanoramaProcessor.for_model(PanoramaVLM.from_pretrained(folder).config)(path, "what?")


def test_a_picture_of_pillow_keeps_what_its_file_says(folder: Path, tmp_path: Path) -> None:
    processor = PanoramaProcessor.from_pretrained(folder)
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        said = packet({"PosePitchDegrees": 20})
        (tmp_path / "a").write_bytes(photo(direction_panorama(128), form, said))
        opened = Image.open(tmp_path / "a")
        difference = processor.open(opened).astype(int) - processor.open(tmp_path / "a")
        assert np.abs(difference).mean() < 1.5, form
        level = processor.open(Image.fromarray(np.asarray(opened)))
        assert np.abs(processor.open(opened).astype(int) - level).mean() > 3


def test_conversations(folder: Path) -> None:
    processor = PanoramaProcessor.from_pretrained(folder)
    picture = {"type": "image", "image": Image.fromarray(direction_panorama(128))}
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [picture, {"type": "text", "text": "what is left?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "a door <|im_end|>"}]},
        {"role": "user", "content": QUESTION},
    ]
    text = processor.apply_chat_template(talk, tokenize=False)
    places = [text.index(part) for part in ("Be brief.", "⟦picture⟧", "what is left?", "a door", QUESTION)]
    assert places == sorted(places)
    inputs = processor.apply_chat_template(talk, tokenize=True)
    assert int(inputs["image_token_mask"].sum()) == processor.text_side.prompt.num_image_tokens
    assert inputs["pixel_values"].shape[0] == 1
    ends = processor.text_side.prompt.end_ids[0]
    turns = (inputs["input_ids"] == ends).sum()
    plain = [*talk[:2], {"role": "assistant", "content": "a door"}, talk[3]]
    assert (
        turns == (processor.apply_chat_template(plain, tokenize=True)["input_ids"] == ends).sum()
    )  # its words are text
    for wrong, error in (
        ([*talk, {"role": "assistant", "content": "I"}], "ends with the user's question"),
        ([{"role": "user", "content": "no picture"}], "about one panorama, got 0"),
        (
            [{"role": "user", "content": [picture, picture, {"type": "text", "text": "two"}]}],
            "about one panorama, got 2",
        ),
        ([{"role": "user", "content": [{"type": "video", "video": "x"}]}], "a part of type 'video'"),
    ):
        with pytest.raises(ValueError, match=error):
            processor.apply_chat_template(wrong, tokenize=True)


def test_push_to_hub_is_huggingface_hubs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    calls: list[Any] = []

    class Api:
        def __init__(self, token: Any = None) -> None:
            calls.append(("token", token))

        def create_repo(self, repo_id: str, **options: Any) -> Any:
            calls.append(("create", repo_id, options["private"]))
            return type("Made", (), {"repo_id": repo_id})()

        def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> str:
            calls.append(("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))
            return "done"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    model = PanoramaVLM.from_pretrained(folder)
    assert model.push_to_hub("me/model", private=True, token="secret") == "done"
    assert calls[:2] == [("token", "secret"), ("create", "me/model", True)]
    assert {"README.md", "config.json", "language_model", "processor_config.json"} <= set(calls[2][2])
    PanoramaProcessor.from_pretrained(folder).push_to_hub("me/model")
    assert calls[-1] == ("upload", "me/model", ["processor_config.json"])


def test_importing_panollava_imports_no_transformers() -> None:
    code = "import panollava, sys; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_model_card_has_what_the_hub_reads(folder: Path) -> None:
    from huggingface_hub import ModelCard

    settings = PanoramaVLM.from_pretrained(folder).config.to_json()
    settings |= {"vision_name": "google/siglip2-so400m-patch16-256", "language_model_name": "Qwen/Qwen3-0.6B"}
    metric = {"value": 0.31, "interval": [0.28, 0.34], "scale": "0 to 1", "library": "sacrebleu"}
    origin = {
        "experiment": "MINE", "stage": "finetune", "dataset": {"dataset_name": "quic360", "train_csv": "train.csv"},
        "epochs": None, "training": {"lr": 1e-4}, "versions": {},
        "evaluation": {"metrics": {"bleu4": metric, "spice": {"value": None, "reason": "no Java"}},
                       "blind": {"bleu4": 0.2}, "protocol": "grouped", "num_samples": 9},
    }  # fmt: skip
    origin["evaluation"]["metrics"]["spice"] |= {"scale": "", "library": ""}  # type: ignore[index]
    card = ModelCard(model_card(settings, origin))
    data = card.data
    assert data.base_model == ["google/siglip2-so400m-patch16-256", "Qwen/Qwen3-0.6B"] and data.license == "apache-2.0"
    assert data.tags == ["panorama", "360", "equirectangular"] and all(isinstance(tag, str) for tag in data.tags)
    assert data.datasets == ["quic360"] and data.pipeline_tag == "image-text-to-text"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("bleu4", 0.31, "quic360")
    assert result.metric_args["interval_95"] == [0.28, 0.34] and result.metric_args["blind_control"] == 0.2
    assert "| bleu4 | 0.3100 | 0.2800 to 0.3400 | 0.2000 |" in card.text
    assert "* Qwen/Qwen3-0.6B: apache-2.0" in card.text
    for vision, language, expected in (
        ("miniature/siglip", "miniature/qwen3", ("mit", None)),
        ("google/siglip-base-patch16-224", "google/gemma-2-2b-it", ("other", "apache-2.0-and-gemma")),
        ("openai/clip-vit-base-patch16", "somebody/unknown", ("other", "that-of-the-base-models")),
    ):
        told = ModelCard(model_card(settings | {"vision_name": vision, "language_model_name": language}, None)).data
        assert (told.license, told.to_dict().get("license_name")) == expected
    plain = ModelCard(model_card(settings, None)).data
    assert plain.datasets is None and plain.eval_results is None


def test_adapters_load_with_peft_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = PanoramaVLM.from_pretrained(folder).language.model
    base = AutoModelForCausalLM.from_pretrained(folder / "language_model")
    ids = AutoTokenizer.from_pretrained(folder / "language_model")("what is this?", return_tensors="pt").input_ids
    plain = base(ids).logits
    monkeypatch.chdir(folder)  # the adapters name their base from here
    for adapted in (
        PeftModel.from_pretrained(base, folder / "lora_weights"),
        AutoPeftModelForCausalLM.from_pretrained("lora_weights"),
    ):
        logits = adapted.eval()(ids).logits
        torch.testing.assert_close(logits, own(input_ids=ids).logits)
        assert not torch.allclose(logits, plain)


def test_every_licence_of_the_zoo_has_its_identifier() -> None:
    from panollava.models.model_card import _IDENTIFIERS
    from panollava.zoo import zoo

    assert {row.licence for row in zoo()} == set(_IDENTIFIERS)
