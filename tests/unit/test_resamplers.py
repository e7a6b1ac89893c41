"""What every resampler promises: shapes known beforehand, who sees whom, that it learns, saves and reloads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_models import language_folder, tiny_config, vision_folder
from torch import nn

from panollava.config.schema import RESAMPLER_OPTIONS
from panollava.errors import ConfigError
from panollava.models.choices import STAGES, Stage
from panollava.models.config import BimambaSettings, ModelConfig, QuerySettings, ResamplerName
from panollava.models.resamplers import RESAMPLERS, build_resampler
from panollava.models.resamplers.queries import AnchoredQueries, query_grid
from panollava.models.shapes import count_image_tokens
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.views.geometry import view_rays
from panollava.views.strategies import plan_views

GRID = (4, 6)
OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "qformer": {"num_queries": 6, "layers": 1, "heads": 2},
    "perceiver": {"num_queries": 6, "layers": 1, "heads": 2},
    "bimamba": {"layers": 1, "heads": 2, "state_size": 8, "expand": 2},
}
GRIDS = {"mlp": GRID, "qformer": (2, 3), "perceiver": (2, 3), "bimamba": GRID}
"""Where their tokens stand, for patches that stand on GRID."""
ALONE = ("mlp",)
"""Those in which a patch changes the token of its own place only, not all of its view."""


def built(name: str, vision: int = 16, latent: int = 12, grid: tuple[int, int] = GRID) -> Any:
    torch.manual_seed(0)
    return build_resampler(name, vision, latent, grid, OPTIONS[name])


@pytest.mark.parametrize("name", RESAMPLERS)
@pytest.mark.parametrize("vision", [12, 16])
def test_the_count_and_the_grid_are_those_of_the_output(name: str, vision: int) -> None:
    resampler = built(name, vision)
    out = resampler(torch.randn(2, 3, 24, vision), torch.randn(3, 24, vision))
    assert out.shape == (2, 3, resampler.num_tokens, 12)
    assert resampler.grid[0] * resampler.grid[1] == resampler.num_tokens
    assert resampler.grid == GRIDS[name]
    with torch.device("meta"):
        assert built(name, vision).num_tokens == resampler.num_tokens
    assert 0.2 < float(out.detach().std()) < 5


def test_the_names_of_resamplers_and_of_their_options_agree() -> None:
    assert tuple(RESAMPLERS) == get_args(ResamplerName)
    sections = tuple(f"models.{name}." for name in RESAMPLERS if hasattr(ModelConfig(), name))
    assert sections == RESAMPLER_OPTIONS


def test_a_name_that_is_none() -> None:
    with pytest.raises(ConfigError, match=f"no resampler 'abstractor'; available: {', '.join(RESAMPLERS)}"):
        build_resampler("abstractor", 8, 8, (2, 2))


@pytest.mark.parametrize("name", RESAMPLERS)
def test_views_do_not_mix_and_patches_do_where_they_shall(name: str) -> None:
    resampler, tokens = built(name).eval(), torch.randn(2, 3, 24, 16)
    changed = tokens.clone()
    changed[1, 2, 23] = torch.randn(16)
    moved = (resampler(changed) - resampler(tokens)).abs().amax(dim=-1) > 1e-7  # [B, V, S']
    assert not moved[0].any() and not moved[1, :2].any()
    assert moved[1, 2].sum() == (1 if name in ALONE else resampler.num_tokens)


@pytest.mark.parametrize("name", RESAMPLERS)
def test_positions_join_the_patches_before_they_mix(name: str) -> None:
    """A position added to one patch does what the same vector added to the normalised patch would do."""
    resampler, tokens = built(name).eval(), torch.randn(1, 2, 24, 16)
    positions = torch.randn(2, 24, 16)
    with_positions = resampler(tokens, positions)
    seen = resampler.norm(tokens) + positions
    resampler.norm = nn.Identity()
    assert torch.allclose(resampler(seen), with_positions, atol=1e-6)
    assert not torch.allclose(resampler(seen - positions), with_positions, atol=1e-2)


@pytest.mark.parametrize("name", RESAMPLERS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_to_read_a_marked_patch(name: str, optimizer: Any) -> None:
    """One of six patches carries a sign; a linear read-out of the mean token shall name it."""
    from panollava.training.optimizers import build_optimizer

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    signs = 3 * F.normalize(torch.randn(4, 32, generator=generator), dim=-1) * 32**0.5
    resampler = build_resampler(name, 32, 32, (2, 3), OPTIONS[name])
    model = nn.ModuleDict({"resampler": resampler, "head": nn.Linear(32, 4)})
    steps = build_optimizer(model.named_parameters(), optimizer=optimizer, lr=3e-3, muon_lr=0.02)
    losses = []
    for _ in range(60):
        classes = torch.randint(0, 4, (64,), generator=generator)
        tokens = torch.randn(64, 1, 6, 32, generator=generator)
        tokens[torch.arange(64), 0, torch.randint(0, 6, (64,), generator=generator)] += signs[classes]
        loss = F.cross_entropy(model["head"](resampler(tokens)[:, 0].mean(dim=1)), classes)
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:3]), losses[::10]


# ---- queries on a grid ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("count", "patches", "expected"),
    [(None, (4, 4), (2, 2)), (None, (27, 27), (14, 14)), (64, (16, 16), (8, 8)), (32, (16, 16), (4, 8)),
     (32, (32, 16), (8, 4)), (6, (4, 6), (2, 3)), (7, (8, 8), (1, 7)), (1, (8, 8), (1, 1))],
)  # fmt: skip
def test_queries_stand_on_a_grid_of_the_views_shape(
    count: int | None, patches: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert query_grid(count, patches) == expected


@pytest.mark.parametrize(("count", "patches"), [(4, (4, 4)), (9, (4, 4)), (6, (5, 7)), (36, (3, 3))])
def test_a_query_starts_from_the_mean_of_its_cell(count: int, patches: tuple[int, int]) -> None:
    """Against a picture drawn so finely that every patch and every cell is a whole number of pixels."""
    start = AnchoredQueries(count, 3, patches)
    nn.init.zeros_(start.queries)
    tokens = torch.randn(2, patches[0] * patches[1], 3)
    rows, columns = start.grid
    drawn = tokens.transpose(1, 2).unflatten(2, patches)
    drawn = drawn.repeat_interleave(rows, dim=2).repeat_interleave(columns, dim=3)
    cells = F.avg_pool2d(drawn, patches).flatten(2).transpose(1, 2)
    assert torch.allclose(start(tokens), cells, atol=1e-5)
    assert "cells" not in start.state_dict()


@pytest.mark.parametrize("name", ["qformer", "perceiver"])
def test_queries_see_the_patches_and_each_other(name: str) -> None:
    layer = built(name).layers[0].eval()
    queries, patches = torch.randn(1, 6, 12), torch.randn(1, 24, 12)
    before = layer(queries, patches)
    for asked, seen in (
        (torch.cat([torch.randn(1, 1, 12), queries[:, 1:]], dim=1), patches),
        (queries, torch.cat([torch.randn(1, 1, 12), patches[:, 1:]], dim=1)),
    ):
        assert ((layer(asked, seen) - before).abs().amax(dim=-1)[0, 1:] > 1e-6).all()


def test_queries_of_neighbouring_views_meet_in_the_same_direction() -> None:
    """Patches that are a smooth function of the direction: matched queries start nearly equal, others do not."""
    from panollava.models.losses import OverlapLoss

    views, patches = plan_views("anyres_e2p"), (16, 16)
    rays = np.stack([view_rays(view, *patches).reshape(-1, 3) for view in views])
    start = AnchoredQueries(None, 3, patches)
    nn.init.zeros_(start.queries)
    maps = start(torch.from_numpy(rays).float())[None]  # [1, V, 64, 3]
    loss = OverlapLoss(views, start.grid)
    first, second = loss.matched(maps)
    assert (first - second).abs()[:, loss.mask].mean() < 0.02
    first, second = loss.matched(maps.roll(1, dims=1))
    assert (first - second).abs()[:, loss.mask].mean() > 0.1


# ---- in the model --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    vision_folder(folder, "siglip")
    language_folder(folder, "qwen3")
    return folder


def config_for(root: Path, name: str, **settings: object) -> ModelConfig:
    options = {"num_queries": 4, "layers": 1, "heads": 2} if name in ("qformer", "perceiver") else OPTIONS[name]
    chosen = {name: options} if options else {}
    return tiny_config(root, resampler_type=name, **{**chosen, **settings})


def text_batch(model: PanoramaVLM) -> dict[str, Any]:
    assert model.prompt is not None
    rows = [model.prompt.training("what is behind you?", answer, 64) for answer in ("a red box", "a blue sphere")]
    return dict(model.prompt.collate(rows, "right"))


def pictures(views: int = 9) -> torch.Tensor:
    return torch.randn(2, views, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", RESAMPLERS)
def test_every_stage_trains_saves_and_reloads(root: Path, name: str, stage: Stage) -> None:
    """The loss falls, exactly what the table names has moved, and the saved state gives the same model again."""
    torch.manual_seed(0)
    config = config_for(root, name, use_lora=stage == "finetune", vicreg_mode="batchwise")
    model = PanoramaVLM(config, with_language=stage != "vision")
    freeze_for_stage(model, stage, 1 if stage == "vision" else 0)
    batch = {} if stage == "vision" else text_batch(model)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(pictures(), **batch, stage=stage)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < (0.9 * losses[0] if stage == "vision" else losses[0] - 0.05), losses
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert moved == {key for key, p in model.named_parameters() if p.requires_grad}

    again = PanoramaVLM(
        ModelConfig.from_json(json.loads(json.dumps(config.to_json()))), with_language=stage != "vision"
    )
    again.load_trained(model.trained_state_dict(), required=["resampler"])
    model.eval(), again.eval()
    assert torch.equal(model(pictures(), **batch, stage=stage)["loss"], again(pictures(), **batch, stage=stage)["loss"])
    if stage != "vision":
        asked = {"queries": ["what?", "where is it?"], "max_new_tokens": 4}
        assert torch.equal(
            model.generate(pictures(), **asked)["generated_ids"], again.generate(pictures(), **asked)["generated_ids"]
        )


@pytest.mark.parametrize("mode", ["concat", "drop_overlap", "stride_views", "resample"])
@pytest.mark.parametrize("name", RESAMPLERS)
def test_image_tokens_are_counted_before_weights_are_loaded(root: Path, name: str, mode: str) -> None:
    config = config_for(root, name, stitching_mode=mode)
    model = PanoramaVLM(config)
    assert count_image_tokens(config) == model.num_image_tokens
    assert model.encode_panorama(model.encode_vision(pictures())).shape[1] == model.num_image_tokens
    if mode == "concat":
        assert model.num_image_tokens == 9 * (16 if GRIDS[name] == GRID else 4)


@pytest.mark.parametrize("name", ["qformer", "perceiver"])
def test_one_query_a_view_cannot_be_compared_but_answers(root: Path, name: str) -> None:
    config = config_for(root, name, **{name: {"num_queries": 1, "layers": 1, "heads": 2}})
    model = PanoramaVLM(config)
    assert model(pictures(), **text_batch(model), stage="resampler")["loss"].isfinite()
    with pytest.raises(
        ConfigError, match=rf"at 1x1 tokens a view.*raise models\.{name}\.num_queries.*stages: \[resampler, finetune\]"
    ):
        model(pictures(), stage="vision")


def test_options_are_checked_and_survive_json() -> None:
    config = ModelConfig(resampler_type="qformer", qformer=QuerySettings(num_queries=9, layers=3, heads=4))
    again = ModelConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again == config and again.resampler_options == {"num_queries": 9, "layers": 3, "heads": 4}
    assert ModelConfig().resampler_options == {}
    assert ModelConfig(resampler_type="bimamba").resampler_options["state_size"] == BimambaSettings().state_size
    for settings, words in (
        ({"resampler_type": "bimamba", "latent_dimension": 100}, r"of bimamba\.heads \(8\), got 100"),
        ({"qformer": {"num_queries": 0}}, r"qformer\.num_queries must be .*in \[1, 4096\], got 0"),
        ({"perceiver": {"layers": 1.5}}, r"perceiver\.layers must be a whole number"),
        ({"bimamba": 3}, "bimamba must be BimambaSettings or a mapping"),
        ({"vision_loss": "moco"}, "vision_loss must be one of vicreg, densecl"),
        ({"densecl_temperature": 0.0}, r"densecl_temperature must be in \(0, 10\]"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            ModelConfig(**settings)
    assert ModelConfig(latent_dimension=100).latent_dimension == 100  # mlp has no heads


def test_densecl_is_the_vision_stages_other_loss(root: Path) -> None:
    torch.manual_seed(0)
    config = tiny_config(root, vision_loss="densecl", densecl_temperature=0.1, vicreg_loss_weight=0.5)
    model = PanoramaVLM(config, with_language=False)
    assert model.vision_loss().temperature == 0.1 and "densecl, pairwise: 8 pairs" in model.vision_loss().describe()
    out = model(pictures(), stage="vision")
    assert torch.equal(out["loss"], 0.5 * out["vicreg_raw"]) and out["loss"].isfinite()
    vicreg = PanoramaVLM(tiny_config(root), with_language=False)
    vicreg.load_state_dict(model.state_dict())
    assert not torch.allclose(vicreg(pictures(), stage="vision")["vicreg_raw"], out["vicreg_raw"])
