"""From a panorama file to normalised pixels: one normalisation for every path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


_MEAN, _STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.5]


@pytest.mark.parametrize(
    "stated",
    [
        {"image_mean": _MEAN, "image_std": _STD},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [100.0, 120.0, 130.0], "image_std": [50.0, 60.0, 70.0]},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
        {"image_mean": 0.5, "image_std": [0.5]},
    ],
    ids=lambda stated: "-".join(stated),
)
def test_pixels_are_what_the_models_own_processor_gives(tmp_path: Path, stated: dict[str, Any]) -> None:
    """Rescaling and normalising as its file says; resizing apart, which is the views' own."""
    folder = vision_folder(tmp_path, "siglip")
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))
    config = tiny_config(tmp_path, "siglip", crop_strategy="resize")
    processor = PanoramaProcessor.for_model(config)
    view = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    theirs = {key: [value] * 3 if isinstance(value, float) else value * 3 if value == [0.5] else value
              for key, value in stated.items()}  # fmt: skip
    pixels = view.astype(np.float64)
    if theirs.get("do_rescale", True):
        pixels = pixels * theirs.get("rescale_factor", 1 / 255)
    if theirs.get("do_normalize", True):
        pixels = (pixels - np.array(theirs["image_mean"])) / np.array(theirs["image_std"])
    ours = processor.pixels(view[None])[0].permute(1, 2, 0).double().numpy()
    assert np.allclose(ours, pixels, rtol=1e-5, atol=1e-5 * np.abs(pixels).max())


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"image_mean": [0.5, 0.5], "image_std": [0.5] * 3}, r"states the image_mean \[0.5, 0.5\], expected three"),
        ({"image_mean": "half", "image_std": [0.5] * 3}, "states the image_mean 'half', expected three numbers or one"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5, 0, 0.5]}, "expected numbers above 0"),
        ({"image_mean": 0.5, "image_std": 0.5, "rescale_factor": "1/255"}, "states the rescale_factor '1/255'"),
        ({"image_mean": 0.5, "image_std": 0.5, "do_flip_channel_order": True}, "swaps red and blue"),
        ({"image_mean": 0.5}, "states no image_mean and image_std"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:20],
)
def test_what_a_processor_states_wrongly_is_told(tmp_path: Path, stated: dict[str, Any], said: str) -> None:
    (vision_folder(tmp_path, "siglip") / "preprocessor_config.json").write_text(json.dumps(stated))
    with pytest.raises(ConfigError, match=said):
        PanoramaProcessor.for_model(tiny_config(tmp_path, "siglip", crop_strategy="resize"))
