"""What does not fit the language model's context is refused with its numbers, before any weight is there."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_families import family_folder
from tiny_models import tiny_config, vision_folder

from panollava.config import Settings, WorkflowConfig
from panollava.dag.options import untracked
from panollava.errors import CheckpointError, ConfigError, PromptTooLong
from panollava.models.config import ModelConfig, QuerySettings
from panollava.models.context import check_context
from panollava.models.shapes import count_image_tokens
from panollava.models.vlm import PanoramaVLM
from panollava.training.job import check_prompt

KEY = "training.stage_configs.finetune.max_text_length"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders without weights: whoever loads one fails."""
    folder = tmp_path_factory.mktemp("context")
    vision_folder(folder, "siglip")
    family_folder(folder, "qwen3", max_position_embeddings=200)
    shutil.copytree(folder, folder / "whole")
    for weights in folder.glob("*/model.safetensors"):
        weights.unlink()
    return folder


def test_the_numbers_and_the_key_to_change(root: Path) -> None:
    config = tiny_config(root, system_message="")
    plain = check_context(config, {KEY: 20})
    assert plain.startswith("prompt: 144 image tokens (9 views) and ") and "in the 200 positions of tiny/qwen3" in plain
    template = int(plain.split(" and ")[1].split(" of template")[0])
    room = 200 - 144 - template
    assert f"room for {room} of text" in plain
    assert check_context(config, {KEY: room})
    found = rf"144 image tokens \(9 views\) and {template} of template and system message and {room + 1} of text"
    allowed = r"are 201 tokens, more than the 200 positions of tiny/qwen3 \(max_position_embeddings\)"
    with pytest.raises(ConfigError, match=rf"{found} \({KEY}\) {allowed}\. Lower {KEY} to at most {room}, "):
        check_context(config, {"generation.max_new_tokens": 1, KEY: room + 1})
    longer = config.changed(system_message="You look around.")
    with pytest.raises(ConfigError, match=KEY):
        check_context(longer, {KEY: room})
    with pytest.raises(ConfigError, match=r"324 image tokens \(9 views\).*leave no room.*image_processing\.image_size.*"
                       r"stitching_mode to drop_overlap or stride_views.*resampler_type: qformer"):  # fmt: skip
        check_context(config.changed(image_size=(24, 24)), {KEY: 1})


@pytest.mark.parametrize("change", [{"stitching_mode": "stride_views"}, {"image_size": (8, 16)}, {"fov_deg": 120.0},
                                    {"stitching_mode": "drop_overlap"}, {"resampler_type": "qformer"}])  # fmt: skip
def test_what_the_message_advises_helps(root: Path, change: dict[str, Any]) -> None:
    config = tiny_config(root, **change, qformer=QuerySettings(num_queries=4))
    assert count_image_tokens(config) < 144
    assert check_context(config, {KEY: 30})


def test_models_that_state_no_limit(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panollava.models.context.positions_of", lambda _: None)
    assert "tiny/qwen3 states no limit" in check_context(tiny_config(root), {KEY: 10**6})


def test_every_stage_asks_before_it_begins(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The vision stage, whose own settings know no language model, for those after it."""
    document = {"experiment": {"name": "E"}, "models": {"vision_name": "siglip", "language_model_name": "qwen3"}}
    prompt = untracked(WorkflowConfig.from_dict(document, root))["prompt"]
    defaults = Settings().training.stage_configs
    assert prompt["text"] == {
        "training.stage_configs.resampler.max_text_length": defaults.resampler.max_text_length,
        KEY: defaults.finetune.max_text_length,
        "generation.max_new_tokens": Settings().generation.max_new_tokens,
    }
    assert prompt["language_path"] == "qwen3"
    config = tiny_config(root, latent_dimension=24)
    blind = config.changed(language_model_name="nobody/knows", language_path=None)

    def check(stage: str, model_config: ModelConfig, **changed: Any) -> None:
        found = {**prompt, "language_path": str(root / "qwen3"), **changed}
        check_prompt(SimpleNamespace(stage=stage, root=root, untracked={"prompt": found}), model_config)  # type: ignore

    for stage, given in (("vision", blind), ("resampler", config)):
        with pytest.raises(ConfigError, match=r"144 image tokens.*the 200 positions"):
            check(stage, given)
        check(stage, given, text={KEY: 4}, system_message="")
    check("vision", blind, language_path="cache/miniature/language/to-be-built")
    check("vision", blind, language_path=None, language_model_name="nobody/knows")
    with pytest.raises(CheckpointError, match="nobody/knows"):
        check("resampler", blind)


def test_a_long_query_is_refused_alone(root: Path) -> None:
    model = PanoramaVLM(tiny_config(root / "whole", system_message="")).eval()
    pixels = torch.zeros(1, 9, 3, 16, 16)
    assert model.generate(pixels, ["where?"], max_new_tokens=2)["text"]
    with pytest.raises(PromptTooLong, match=r"an answer of up to 2 leave the language model's 200 positions: shorten"):
        model.generate(pixels, ["where is it? " * 20], max_new_tokens=2)
