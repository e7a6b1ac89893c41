"""ModelConfig: what is refused, with which words, and the JSON round trip."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import fields
from typing import get_args

import pytest

from panollava.config.effective import effective_settings
from panollava.config.schema import Settings
from panollava.evaluation.config_mismatches import _setting
from panollava.models import stage_config
from panollava.models.choices import ResamplerName
from panollava.models.config import LoraSettings, ModelConfig

Named = namedtuple("Named", "name")


def test_overlap_ratio_says_what_helps() -> None:
    with pytest.raises(ValueError) as caught:
        ModelConfig(overlap_ratio=1.5)
    assert str(caught.value) == "overlap_ratio must be in (0, 1), got 1.5. Typical range: [0.3, 0.7]"


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"resampler_type": "mpl"}, ValueError, f"{', '.join(get_args(ResamplerName))}, got 'mpl'"),
        ({"stitching_mode": "glue"}, ValueError, "stitching_mode must be one of"),
        ({"latent_dimension": "768"}, TypeError, "latent_dimension must be a whole number"),
        ({"latent_dimension": 0}, ValueError, "latent_dimension must be >= 1, got 0"),
        ({"fov_deg": 180}, ValueError, r"fov_deg must be in \(0, 180\)"),
        ({"fov_deg": float("nan")}, ValueError, "fov_deg must be finite"),
        ({"use_lora": 1}, TypeError, "use_lora must be true or false"),
        ({"image_size": [1, 2, 3]}, TypeError, "image_size must be a whole number or"),
        ({"vicreg_variance_weight": -1.0}, ValueError, "vicreg_variance_weight must be >= 0"),
        ({"vision_name": ""}, TypeError, "vision_name must be a hub id"),
        ({"lora": LoraSettings}, TypeError, "lora must be LoraSettings"),
    ],
)
def test_wrong_values_are_refused(settings: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ModelConfig(**settings)  # type: ignore[arg-type]


def test_lora_ranges() -> None:
    with pytest.raises(ValueError, match=r"lora.dropout must be in \[0, 1\)"):
        LoraSettings(dropout=1.0)
    with pytest.raises(ValueError, match=r"lora\.rank must be >= 1"):
        LoraSettings(rank=0)


def test_json_keeps_everything() -> None:
    config = ModelConfig(image_size=256, lora=LoraSettings(rank=4, target_modules=["q_proj"]), vision_path="a/b")  # type: ignore
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config
    assert again.image_size == (256, 256) and again.lora.target_modules == ("q_proj",)
    with pytest.raises(ValueError, match="'fovdeg'"):
        ModelConfig.from_json({"fovdeg": 90})


@pytest.mark.parametrize("stage", ["vision", "resampler", "finetune"])
def test_a_setting_of_the_model_reaches_it_by_its_name(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one is a field of the schema and of ModelConfig: nobody copies it by hand, and messages know its key."""
    monkeypatch.setattr(ModelConfig, "from_json", staticmethod(dict))
    config = effective_settings(Settings().model_dump(mode="json"))
    config["image_processing"]["later"] = config["models"]["sooner"] = "a new one"
    monkeypatch.setattr(stage_config, "fields", lambda _: [*fields(ModelConfig), Named("later"), Named("sooner")])
    found = stage_config.stage_model_config(stage, config, (8, 8), None, None)
    assert found["later"] == found["sooner"] == "a new one" and found["latent_dimension"] == 768
    assert ("language_model_name" in found) is (stage != "vision") is not ("vicreg_projector_dim" in found)
    config["models"]["vlm_name"] = "owner/native"
    native = stage_config.stage_model_config(stage, config, (8, 8), None, None)
    assert native["later"] == native["sooner"] == "a new one" and "latent_dimension" not in native
    assert _setting("crop_strategy", stage) == "image_processing.crop_strategy" and _setting("qformer", stage) == (
        "models.qformer"
    )
