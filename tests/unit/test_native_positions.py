"""`panorope`: equal directions have equal positions, the ring closes, and rolling the panorama rolls the positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_vlms import vlm_folder
from torch import Tensor

from panollava.models.build import build_model
from panollava.models.config import ModelConfig
from panollava.models.native import NativeVLM
from panollava.models.native_positions import head_positions, ring_of, sequence_positions
from panollava.models.processor import PanoramaProcessor
from panollava.views.geometry import view_rays
from panollava.views.render import render_views
from panollava.views.strategies import View, plan_views

GRID = (4, 4)


def head(views: int, each: int) -> Tensor:
    """Two tokens of text, every view between two tokens, one of text."""
    marks = [False, False, *([False, *[True] * each, False] * views), False]
    return torch.tensor(marks)


def yaws_deg(view: View) -> np.ndarray:
    rays = view_rays(view, *GRID).reshape(-1, 3)
    return np.rad2deg(np.arctan2(rays[:, 0], rays[:, 2]))


@pytest.mark.parametrize("strategy", ["e2p", "anyres_e2p", "sliding_window", "anyres", "anyres_max", "cubemap"])
def test_equal_directions_have_equal_places_and_the_ring_closes(strategy: str) -> None:
    views = plan_views(strategy)
    ring = ring_of(views, GRID)
    assert ring is not None
    width = 360 / ring.columns
    seen: dict[int, list[float]] = {}
    for view, places in zip(views, ring.places, strict=True):
        outside = view.kind == "global" or abs(view.pitch_deg) == 90
        assert (places < 0).all() if outside else ((places >= 0) & (places < ring.columns)).all()
        for place, yaw in zip(places.tolist(), yaws_deg(view).tolist(), strict=True):
            seen.setdefault(place, []).append(yaw)
    seen.pop(-1, None)
    for yaws in seen.values():  # one place shows one direction, to within its own width
        apart = [abs((yaw - yaws[0] + 180) % 360 - 180) for yaw in yaws]
        assert max(apart) < width + 1e-6
    places_of = {p: np.mean(np.exp(1j * np.deg2rad(yaws))) for p, yaws in seen.items()}
    order = sorted(places_of)
    steps = [np.angle(places_of[b] / places_of[a]) for a, b in zip(order, order[1:] + order[:1], strict=True)]
    assert all(step > 0 for step in steps), "places go around to the right, over the seam too"


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("strategy", ["e2p", "anyres_e2p", "sliding_window"])
def test_rolling_the_panorama_by_view_steps_rolls_the_positions(strategy: str, axes: int) -> None:
    views = plan_views(strategy)
    inside = [index for index, view in enumerate(views) if view.kind != "global"]
    found, following = head_positions(head(len(views), 16), views, GRID, axes=axes, panorope=True)
    each = found[-1][head(len(views), 16)].view(len(views), 16)[inside]
    ring = ring_of(views, GRID)
    assert ring is not None
    base = int(each.min())
    for steps in (1, 3, len(inside) + 2):  # by a step, by several, by more than a whole turn
        for number in range(len(inside)):
            shown = each[(number + steps) % len(inside)]  # what this view shows once the panorama is rolled
            moved = steps * ring.columns // len(inside)
            rows = (torch.arange(16) // 4 * 4) if axes == 1 else torch.zeros(16, dtype=torch.long)
            places = (each[number] - base - rows + moved) % ring.columns
            assert torch.equal(places, (shown - base - rows) % ring.columns)
    assert following > int(found.max())
    assert int(found[:, -1].max()) == following - 1 == int(found.max()), "text counts on from the largest position used"


@pytest.mark.parametrize("axes", [1, 3])
def test_native_positions_and_global_views_are_the_familys_own(axes: int) -> None:
    views = plan_views("anyres_e2p")
    marks = head(len(views), 16)
    own, _ = head_positions(marks, views, GRID, axes=axes, panorope=False)
    rolled, _ = head_positions(marks, views, GRID, axes=axes, panorope=True)
    first = int(marks.nonzero()[0])
    assert torch.equal(own[:, : first + 17], rolled[:, : first + 17]), "text before, and the view of the whole"
    if axes == 1:
        assert own[0].tolist() == list(range(len(marks)))
    single = plan_views("resize")
    alone = [head_positions(head(1, 16), single, GRID, axes=axes, panorope=p)[0] for p in (False, True)]
    assert torch.equal(*alone), "a squeezed picture has no ring"


def test_padded_sequences_count_their_own_tokens() -> None:
    positions = torch.tensor([[0, 5, 3]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    found = sequence_positions(positions, 6, mask)
    assert found[0, 1:].tolist() == [0, 5, 3, 6, 7] and found[1, :4].tolist() == [0, 5, 3, 6]
    assert torch.equal(sequence_positions(positions.expand(3, -1), 6, mask)[2], found)


def config_of(folder: Path, **settings: Any) -> ModelConfig:
    values = {"vlm_name": str(folder), "crop_strategy": "e2p", "use_lora": False, "panorama_positions": "panorope"}
    return ModelConfig(**{**values, **settings})


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_own_positions_of_m_rope_are_those_of_the_family(family: str, tmp_path: Path) -> None:
    folder = vlm_folder(tmp_path, family)
    model = build_model(config_of(folder, panorama_positions="native", crop_strategy="anyres_e2p"))
    assert isinstance(model, NativeVLM)
    sequence = model.prompt.generation("what is behind me?")
    ids, places = torch.tensor([sequence.input_ids]), torch.tensor([sequence.image_token_mask])
    wanted = model.model.base_model.get_rope_index(
        ids, places.int(), image_grid_thw=model._grids["image_grid_thw"], attention_mask=torch.ones_like(ids)
    )[0]
    found = sequence_positions(model._head_positions, model._following, torch.ones_like(ids))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "internvl", "gemma3", "llava_onevision"])
def test_panorope_is_the_same_in_training_generation_and_measures(family: str, tmp_path: Path) -> None:
    """Greedy decoding by whole forwards of training gives the answers of `generate`; both differ from native ones."""
    folder = vlm_folder(tmp_path, family)
    model = build_model(config_of(folder)).eval()
    other = build_model(config_of(folder, panorama_positions="native")).eval()
    assert isinstance(model, NativeVLM) and isinstance(other, NativeVLM)
    processor = PanoramaProcessor.for_model(model.config)
    rng = np.random.default_rng(0)
    views = rng.integers(0, 256, (1, len(model.views), *processor.image_size, 3), dtype=np.uint8)
    with torch.no_grad():
        features = model.encode_vision(processor.pixels(views))
        query = "what is behind me?"
        wanted = model.generate(vision_features=features, queries=[query], max_new_tokens=6)["generated_ids"][0]
        shared = model.generate(
            vision_features=features, image_index=torch.tensor([0, 0]), queries=[query, "the sky"], max_new_tokens=6
        )["generated_ids"][0]
        found: list[int] = []
        for _ in range(len(wanted)):
            prompt = model.prompt.generation(query)
            ids = torch.tensor([[*prompt.input_ids, *found]])
            places = torch.tensor([[*prompt.image_token_mask, *[False] * len(found)]])
            labels = torch.full_like(ids, -100)
            labels[:, -1] = 0
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "image_token_mask": places}
            output = model(vision_features=features, stage="finetune", labels=labels, full_logits=True, **inputs)
            found.append(int(output["logits"][0, -1].argmax()))
        assert found == wanted.tolist() == shared[: len(found)].tolist()
        sequence = [model.prompt.training(query, "a red box", 100)]
        batch = model.prompt.collate(sequence, side="right")
        loss = model(vision_features=features, stage="finetune", **batch)["ar_loss"]
        measured = next(iter(model.answer_losses(features[0], [sequence])))
        count = int((batch["labels"] != -100).sum())
        assert float(measured.sum()) / count == pytest.approx(float(loss), abs=1e-4)
        native = other(vision_features=features, stage="finetune", **batch)["ar_loss"]
        assert float(native) != pytest.approx(float(loss))


def test_a_rolled_panorama_gives_the_ring_the_same_tokens_at_rolled_positions(tmp_path: Path) -> None:
    """Render, roll by a step of the views, encode: each direction keeps its features and moves on by a view."""
    folder = vlm_folder(tmp_path, "qwen2_5_vl")
    model = build_model(config_of(folder)).eval()
    assert isinstance(model, NativeVLM)
    processor = PanoramaProcessor.for_model(model.config)
    panorama = np.random.default_rng(0).integers(0, 256, (64, 128, 3), dtype=np.uint8)
    step = 128 // len(model.views)
    rolled = np.roll(panorama, -step, axis=1)  # what stood one view to the right stands in front now
    shown = [render_views(picture, model.views, processor.image_size) for picture in (panorama, rolled)]
    with torch.no_grad():
        before, after = (model.encode_vision(processor.pixels(views[None]))[0] for views in shown)
    torch.testing.assert_close(after, before.roll(-1, dims=0), atol=1e-4, rtol=1e-4)
