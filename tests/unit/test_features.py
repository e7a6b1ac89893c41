"""Cached features of a frozen encoder: the loss of a step with them is the loss of a step that runs the encoder."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder
from tiny_vlms import vlm_folder

from panollava.data.dataset import CaptionDataset, Collator
from panollava.data.samples import Row
from panollava.devices import autocast
from panollava.errors import DataError
from panollava.models.build import build_model
from panollava.models.config import ModelConfig
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import freeze_for_stage
from panollava.models.vision import VisionEncoder
from panollava.models.vlm import PanoramaVLM
from panollava.training import features as features_module
from panollava.training.features import (
    FeatureStore,
    bytes_per_image,
    cached_features,
    encoder_digest,
    feature_dtype,
    wants_features,
)
from panollava.training.module import StageModule

CPU = torch.device("cpu")
ROWS = [Row("b.png", "what is it?", "a red box"), Row("a.png", "where is it?", "behind you"), Row("a.png", "is", "so")]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[PanoramaVLM, PanoramaProcessor, dict[str, Any]]:
    root = tmp_path_factory.mktemp("backbones")
    vision_folder(root, "siglip")
    language_folder(root, "qwen3")
    torch.manual_seed(0)
    model = PanoramaVLM(tiny_config(root, use_lora=True))
    freeze_for_stage(model, "finetune", 0)
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    shape = (len(model.views), *processor.image_size, 3)
    noise = np.random.default_rng(0)
    return model, processor, {name: noise.integers(0, 255, shape, dtype=np.uint8) for name in ("a.png", "b.png")}


def loss_of(
    model: PanoramaVLM, batch: dict[str, Any], precision: str, share_image_prefix: bool = False
) -> torch.Tensor:
    module = StageModule(
        model, "finetune", kept=set(), total_steps=1, optimizer="adamw", lr=1e-3, muon_lr=0.02, weight_decay=0.0,
        warmup_ratio=0.0, frozen_features=feature_dtype(precision),
    )  # fmt: skip
    with autocast(precision, CPU):
        return module._share(batch, share_image_prefix).whole_loss


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_losses_are_equal_with_and_without_the_cache(precision: str, parts: Any, tmp_path: Path) -> None:
    model, processor, views = parts
    store = cached_features(model, processor, views, "key", tmp_path, device=CPU, precision=precision)
    losses = []
    for pictures, cached in ((views, False), (pickle.loads(pickle.dumps(store)), True)):
        data, collate = CaptionDataset(ROWS, pictures), Collator(processor, model.prompt, 64, cached)
        batch = collate([data[row] for row in range(len(ROWS))])
        losses.append(loss_of(model, batch, precision))
        once = loss_of(model, batch, precision, share_image_prefix=True)
        torch.testing.assert_close(once, losses[-1], rtol=1e-6 if precision == "32-true" else 1e-3, atol=0)
    assert torch.equal(*losses)
    stored = next(tmp_path.rglob("features.npy")).stat().st_size
    assert stored == pytest.approx(2 * bytes_per_image(model, precision), abs=128)  # and the header


def test_each_arithmetic_has_features_of_its_own(parts: Any, tmp_path: Path) -> None:
    stores = [cached_features(*parts, "key", tmp_path, device=CPU, precision=p) for p in ("32-true", "bf16-mixed")]
    assert [store["a.png"].dtype for store in stores] == [np.float32, np.uint16]


@pytest.mark.parametrize("family", ["siglip", "dinov2", "clip-full"])
def test_an_encoder_of_other_settings_has_features_of_its_own(family: str, tmp_path: Path) -> None:
    """An activation of another name: the same tensors, and other features."""
    folder = vision_folder(tmp_path, family)
    before = VisionEncoder(str(folder))
    document = json.loads((folder / "config.json").read_text())
    settings = document.get("vision_config", document)
    for key in ("out_features", "out_indices", "stage_names"):
        settings.pop(key, None)
    settings["hidden_act"] = "relu"
    (folder / "config.json").write_text(json.dumps(document))
    after = VisionEncoder(str(folder))
    pixels = torch.randn(1, 3, *before.spec.image_size)
    assert not torch.allclose(before(pixels), after(pixels), atol=1e-4)
    assert encoder_digest(before) != encoder_digest(after)
    shutil.move(folder, tmp_path / "elsewhere")
    assert encoder_digest(VisionEncoder(str(tmp_path / "elsewhere"))) == encoder_digest(after)


def test_a_native_encoder_of_other_settings_has_features_of_its_own(tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, "llava")

    def digest(file: str, *places: str, **changes: object) -> str:
        document = json.loads((folder / file).read_text())
        section = document
        for place in places:
            section = section[place]
        section |= changes
        (folder / file).write_text(json.dumps(document))
        config = ModelConfig(
            vlm_name=str(folder), crop_strategy="e2p", fov_deg=150.0, overlap_ratio=0.2, use_lora=False
        )
        return encoder_digest(build_model(config).encoder)

    found = [
        digest("config.json"), digest("config.json", vision_feature_layer=-1),
        digest(*_image_processor(folder), image_mean=[0.1, 0.2, 0.3]),
    ]  # fmt: skip
    assert len(set(found)) == 3


def _image_processor(folder: Path) -> tuple[str, ...]:
    """The file with the image processor's settings, and the section that has them."""
    if (folder / "preprocessor_config.json").is_file():
        return ("preprocessor_config.json",)
    return ("processor_config.json", "image_processor")


def test_a_store_that_is_cut_short_is_refused(parts: Any, tmp_path: Path) -> None:
    store = cached_features(*parts, "key", tmp_path, device=CPU)
    assert np.isfinite(store["b.png"]).all()
    with next(tmp_path.rglob("features.npy")).open("r+b") as stream:
        stream.truncate(5000)
    with pytest.raises(DataError, match=r"features\.npy is cut short"):
        FeatureStore(store.folder)["b.png"]


def test_auto_keeps_to_the_room_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 400})())
    assert wants_features("auto", 0, 100, tmp_path) and not wants_features("auto", 0, 101, tmp_path)
    assert wants_features(True, 0, 10**15, tmp_path)
    monkeypatch.setattr(features_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**15})())
    assert not wants_features("auto", 0, 2**37, tmp_path)
    for trains, choice in ((1, True), (-1, "auto"), (0, False)):
        assert not wants_features(choice, trains, 1, tmp_path)
