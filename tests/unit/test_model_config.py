"""ModelConfig: what is refused, with which words, and the JSON round trip."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from panollava.config.effective import effective_settings
from panollava.config.schema import Settings
from panollava.evaluation.config_mismatches import _setting
from panollava.models import stage_config
from panollava.models.choices import STAGES, ResamplerName
from panollava.models.config import LoraSettings, ModelConfig
from panollava.settings.model import model_key


def test_overlap_ratio_says_what_helps() -> None:
    with pytest.raises(ValueError) as caught:
        ModelConfig(overlap_ratio=1.5)
    assert str(caught.value) == "overlap_ratio must be in (0, 1), got 1.5. Typical range: [0.3, 0.7]"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"resampler_type": "mpl"}, f"{', '.join(get_args(ResamplerName))}, got 'mpl'"),
        ({"stitching_mode": "glue"}, "stitching_mode must be one of"),
        ({"latent_dimension": "768"}, "latent_dimension must be a whole number in"),
        ({"latent_dimension": 0}, r"latent_dimension must be in \[1, 65536\], got 0"),
        ({"fov_deg": 180}, r"fov_deg must be in \(0, 180\)"),
        ({"fov_deg": float("nan")}, "fov_deg must be a finite number"),
        ({"use_lora": 1}, "use_lora must be true or false"),
        ({"image_size": [1, 2, 3]}, r"image_size must be a whole number or \[height"),
        ({"vicreg_variance_weight": -1.0}, "vicreg_variance_weight must be at least 0"),
        ({"vision_name": ""}, "vision_name must not be empty"),
        ({"lora": 3}, "lora must be LoraSettings or a mapping of its keys, got 3"),
        ({"lora": {"dropout": 1.0}}, r"lora.dropout must be in \[0, 1\), got 1.0"),
        ({"lora": {"rank": 0}, "fov_deg": 0}, r"(?s)fov_deg must be .*lora\.rank must be in \[1, 4096\], got 0"),
        ({"fovdeg": 90}, r"fovdeg is no setting of a model, got 90\. Did you mean fov_deg\?$"),
        ({"lora": {"rnak": 4}}, r"lora\.rnak is no setting of a model, got 4\. Did you mean lora\.rank\?$"),
        ({"qformer": {"newer": 4}}, r"qformer\.newer is no setting of a model, got 4$"),
    ],
)
def test_wrong_values_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(**settings)


def test_tuples_are_lists() -> None:
    """As Python's callers may write them; JSON and YAML have lists alone."""
    given = LoraSettings(parts=("language", "vision"), target_modules=("q_proj",))  # type: ignore[arg-type]
    assert given == LoraSettings(parts=["language", "vision"], target_modules=["q_proj"])
    assert ModelConfig.from_json(ModelConfig(image_size=(16, 32), lora=given).to_json()).lora == given


def test_json_keeps_everything() -> None:
    config = ModelConfig(image_size=256, lora=LoraSettings(rank=4, target_modules=["q_proj"]), vision_path="a/b")
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.image_size == (256, 256) and again.lora.target_modules == ["q_proj"]
    with pytest.raises(ValueError, match="'fovdeg'"):
        ModelConfig.from_json({"fovdeg": 90})


class Later(ModelConfig):
    later: str = model_key("", "A key of all models.")
    of_native: str = model_key("", "A key of native models.", of="native")
    for_text: str = model_key("", "A key of the stages that read text.", of="composed", stages="text")


@pytest.mark.parametrize("stage", STAGES)
def test_a_setting_of_the_model_reaches_it_by_its_name(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody copies it by hand: its marks say which models get it, and messages know its key."""
    monkeypatch.setattr(Later, "from_json", staticmethod(dict))
    monkeypatch.setattr(stage_config, "ModelConfig", Later)
    config = effective_settings(Settings().model_dump(mode="json"))
    config["models"] |= {"later": "one", "of_native": "two"}
    config["image_processing"]["for_text"] = "three"
    found = stage_config.stage_model_config(stage, config, (8, 8), None, None)
    assert found["later"] == "one" and "of_native" not in found and found["latent_dimension"] == 768
    assert ("for_text" in found) is ("language_model_name" in found) is (stage != "vision")
    assert ("vicreg_projector_dim" in found) is (stage == "vision")
    config["models"]["vlm_name"] = "owner/native"
    native = stage_config.stage_model_config(stage, config, (8, 8), None, None)
    assert native["later"] == "one" and native["of_native"] == "two"
    assert not {"latent_dimension", "for_text"} & set(native)
    assert _setting("crop_strategy", stage) == "image_processing.crop_strategy" and _setting("qformer", stage) == (
        "models.qformer"
    )
