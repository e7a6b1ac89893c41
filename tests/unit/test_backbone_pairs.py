"""Every vision family with every language family, each in its own format: trained in all stages, saved, reloaded,
answering as before; prompts of unequal length together as one by one.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_families import LANGUAGES, family_folder
from tiny_models import tiny_config, vision_folder

from panollava.checkpoints.folder import METADATA, write_links
from panollava.checkpoints.loading import load_stage
from panollava.checkpoints.weights import load_weights, save_weights
from panollava.config import Settings
from panollava.files import write_json
from panollava.models.choices import STAGES, Stage
from panollava.models.config import ModelConfig
from panollava.models.processor import PanoramaProcessor
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.training.backbone_digests import backbone_digests
from panollava.training.job import StageJob
from panollava.training.metadata import build_metadata

# siglip-full is SigLIP2's fixed-resolution format, a full checkpoint; so are naflex-full and clip-full.
VISION = ("siglip", "siglip-full", "naflex-full", "clip-full", "dinov2", "dinov2-registers", "mlcd")
LANGUAGE = ("qwen2.5", "qwen3", "llama3.2", "gemma2")
PAIRS = [*product(VISION, LANGUAGE), ("siglip", "gpt2")]
ALONE = [(vision, (*LANGUAGE, "gpt2")[index % 5]) for index, vision in enumerate(VISION)]  # each family at least once
QUERIES = ["what is it?", "where is the blue sphere behind you?"]
ANSWERS = ["a red box on your left", "behind you"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for family in VISION:
        vision_folder(folder, family)
    for family in LANGUAGES:
        family_folder(folder, family)
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of matrices this small, more threads only wait for each other
    yield
    torch.set_num_threads(before)


def pixels_of(model: PanoramaVLM, count: int = 2) -> torch.Tensor:
    size = (count, len(model.views), 3, *model.vision.spec.image_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(3))


def train(model: PanoramaVLM, stage: Stage, steps: int = 2) -> list[float]:
    """A few steps on one batch: the losses."""
    freeze_for_stage(model, stage, 1 if stage == "vision" else 0)
    model.train()
    batch: dict[str, Any] = {}
    if model.prompt is not None:
        rows = [model.prompt.training(q, a, 64) for q, a in zip(QUERIES, ANSWERS, strict=True)]
        batch = dict(model.prompt.collate(rows, "right"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(steps):
        loss = model(pixels_of(model), **batch, stage=stage)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def through_stages(config: ModelConfig, folder: Path) -> PanoramaVLM:
    """The model after three stages, each begun from the file that the one before it left."""
    model, state = None, None
    for stage in STAGES:
        torch.manual_seed(0)
        model = PanoramaVLM(config, with_language=stage != "vision", with_lora=stage == "finetune")
        if state is not None:
            model.load_trained(load_weights(state)[1], without=("vicreg_projector",))
        losses = train(model, stage)
        assert losses[1] < losses[0], (stage, losses)
        state = folder / f"{stage}.ckpt"
        save_weights(state, model.trained_state_dict(), {"stage": stage})
    assert model is not None
    return model.eval()


def pair_config(root: Path, vision: str, language: str) -> ModelConfig:
    return tiny_config(root, vision, language, crop_strategy="e2p", fov_deg=120.0, overlap_ratio=0.25, use_lora=True)


@pytest.mark.parametrize(("vision", "language"), PAIRS)
def test_trained_saved_and_reloaded(root: Path, tmp_path: Path, vision: str, language: str) -> None:
    config = pair_config(root, vision, language)
    model = through_stages(config, tmp_path)
    pixels = pixels_of(model)
    together = model.generate(pixels, QUERIES, max_new_tokens=5)
    assert together["generated_ids"].shape[1] > 1
    for row, query in enumerate(QUERIES):
        alone = model.generate(pixels[row : row + 1], [query], max_new_tokens=5)
        ids = alone["generated_ids"][0]
        assert torch.equal(together["generated_ids"][row, : len(ids)], ids)
        assert alone["text"] == [together["text"][row]]
    torch.manual_seed(1)
    again = PanoramaVLM(config).eval()
    before = again.encode_panorama(again.encode_vision(pixels))
    again.load_trained(load_weights(tmp_path / "finetune.ckpt")[1], required=["resampler", "projection", "lora"])
    seen = again.encode_panorama(again.encode_vision(pixels))
    assert torch.equal(seen, model.encode_panorama(model.encode_vision(pixels))) and not torch.allclose(seen, before)
    answers = again.generate(pixels, QUERIES, max_new_tokens=5)
    assert torch.equal(answers["generated_ids"], together["generated_ids"]) and answers["text"] == together["text"]


@pytest.mark.parametrize(("vision", "language"), ALONE)
def test_reloaded_from_the_folder_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vision: str, language: str
) -> None:
    """As a stage leaves it: checkpoint, links, metadata; read from another working folder, the project elsewhere."""
    model = through_stages(pair_config(root, vision, language), tmp_path)
    folder = tmp_path / "runs/E/finetune/e2p_mlp"
    folder.mkdir(parents=True)
    settings = Settings().model_dump(mode="json")
    job = StageJob(
        stage="finetune", slice={"config": settings}, digest="d", root=root,
        naming={"experiment": "E", "remembered": {"generation": settings["generation"]}},
        vision_folder=Path(model.config.vision_source), language_folder=Path(model.config.language_source),
        stage_folder=folder, **dict.fromkeys(
            ("train_csv", "val_csv", "train_views", "val_views", "state_folder", "cache"), tmp_path
        ),
    )  # fmt: skip
    entry = {"file": "x_epoch00_loss1.0000.ckpt", "epoch": 0, "step": 2, "val_loss": 1.0}
    save_weights(folder / entry["file"], model.trained_state_dict(), {"stage": "finetune"})
    write_links(folder, [entry])
    processor = PanoramaProcessor.for_model(model.config, model.vision)
    write_json(
        folder / METADATA,
        build_metadata(job, model, processor, [entry], entry, 2, 2, 2, backbones=backbone_digests(job)),
    )
    expected = model.generate(pixels_of(model), QUERIES, max_new_tokens=5)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    loaded = load_stage(folder)
    assert loaded.processor == processor and loaded.model.config == model.config
    found = loaded.model.generate(pixels_of(model), QUERIES, max_new_tokens=5)
    assert torch.equal(found["generated_ids"], expected["generated_ids"]) and found["text"] == expected["text"]


@pytest.mark.parametrize(("vision", "language"), ALONE)
def test_a_half_precision_language_model(root: Path, vision: str, language: str) -> None:
    """As on a GPU: frozen weights in bfloat16, training under autocast, prediction without it."""
    torch.manual_seed(0)
    model = PanoramaVLM(pair_config(root, vision, language), dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = train(model, "finetune", steps=6)
    assert losses[-1] < losses[0]
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert len(model.eval().generate(pixels_of(model), QUERIES, max_new_tokens=3)["text"]) == 2
