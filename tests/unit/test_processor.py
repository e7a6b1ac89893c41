"""From a panorama file to normalised pixels: one normalisation for every path."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import tiny_config, vision_folder

from panollava.errors import ConfigError
from panollava.models.processor import PanoramaProcessor
from panollava.models.vision import VisionEncoder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processor")
    vision_folder(folder, "siglip")
    return folder


def test_statistics_come_from_the_model_or_its_family(root: Path) -> None:
    stated = PanoramaProcessor.for_model(tiny_config(root))
    assert stated.mean == (0.4, 0.5, 0.6) and stated.std == (0.2, 0.2, 0.2)
    assert stated.image_size == (16, 16) and len(stated.views) == 9
    family = PanoramaProcessor.for_model(tiny_config(root, use_vision_processor=False))
    assert family.mean == (0.5, 0.5, 0.5) == family.std
    wide = tiny_config(root, image_size=(24, 32))
    assert PanoramaProcessor.for_model(wide).image_size == (24, 32)
    encoder = VisionEncoder(str(root / "siglip"), (24, 32))
    assert PanoramaProcessor.for_model(wide, encoder) == PanoramaProcessor.for_model(wide)


def test_a_model_without_a_processor_says_what_to_set(tmp_path: Path) -> None:
    (vision_folder(tmp_path, "siglip") / "preprocessor_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="use_vision_processor: false"):
        PanoramaProcessor.for_model(tiny_config(tmp_path))


def test_pixels_are_normalised_channel_by_channel(root: Path) -> None:
    processor = PanoramaProcessor.for_model(tiny_config(root))
    views = np.random.default_rng(0).integers(0, 256, (2, 9, 16, 16, 3), dtype=np.uint8)
    pixels = processor.pixels(views)
    assert pixels.shape == (2, 9, 3, 16, 16) and pixels.dtype == torch.float32
    wanted = (views / 255 - processor.mean) / processor.std
    assert np.allclose(pixels.numpy(), np.moveaxis(wanted, -1, -3), atol=1e-5)
    assert torch.equal(processor.pixels(torch.from_numpy(views[0])), pixels[0])
    with pytest.raises(TypeError, match="must be uint8"):
        processor.pixels(views.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\[\.\.\., 9, 16, 16, 3\]"):
        processor.pixels(views[:, :4])


def test_open_and_round_trip(root: Path, tmp_path: Path) -> None:
    processor = PanoramaProcessor.for_model(tiny_config(root))
    again = PanoramaProcessor.from_json(json.loads(json.dumps(processor.to_json())))
    assert again == processor
    picture = np.random.default_rng(1).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "pano.png")
    views = again.open(tmp_path / "pano.png")
    assert views.shape == (9, 16, 16, 3) and views.dtype == np.uint8
