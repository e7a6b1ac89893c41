"""The miniature vision encoder: a small SigLIP vision tower that has learned what each patch of a view shows.

Trains it from settings and writes a Hugging Face folder (config.json, model.safetensors, preprocessor_config.json).
Views of random scenes are rendered directly, looking anywhere, some of them whole panoramas squashed to the square;
every patch must name the colour and shape of the solid it shows and how far away, in yaw and pitch, that solid's middle
is. The last label makes a patch's features say which place the solid belongs to once the patch's own direction is
added. The heads are thrown away, as a classifier's are; what stays is what any frozen encoder gives: features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipImageProcessorPil, SiglipVisionConfig, SiglipVisionModel

from panollava.config.embedded import MiniatureVisionSettings
from panollava.data.synthetic.scenes import COLOURS, GROUNDS, SHAPES, SKIES, Scene, render, sample_scene
from panollava.files import atomic_dir
from panollava.logs import LOGGER
from panollava.miniature.pretraining import Schedule, train
from panollava.views.geometry import rays_to_angles, view_rays
from panollava.views.strategies import GLOBAL_VIEW, View

_CAMERAS = 160
_GLOBAL_SHARE = 0.12
_HELD_OUT = 400
_LEAST_COVER = 0.15  # of a patch, for it to show a solid
_OFFSET_SCALE_DEG = 30.0
_NAMES = list(COLOURS), list(SHAPES), list(SKIES), list(GROUNDS)


@dataclass(frozen=True)
class LabelledViews:
    """`pixels` uint8 [N, 3, S, S]; per patch [N, P]: `colour` and `shape` (0 nothing, else 1 + index), `offset` float
    [N, P, 2] from the patch to the middle of its solid (yaw, pitch; units of 30 degrees); per view `sky`, `ground`."""

    pixels: Tensor
    colour: Tensor
    shape: Tensor
    offset: Tensor
    sky: Tensor
    ground: Tensor

    def __getitem__(self, index: Tensor) -> LabelledViews:
        return LabelledViews(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    def mirrored(self, which: Tensor) -> LabelledViews:
        """The views of `which` (bool [N]) swapped left and right: a mirrored world is as good a world."""
        grid = round(self.colour.shape[1] ** 0.5)

        def swap(values: Tensor, dim: int) -> Tensor:
            return torch.where(which.view(-1, *[1] * (values.ndim - 1)), values.flip(dim), values)

        def swap_patches(values: Tensor) -> Tensor:
            return swap(values.unflatten(1, (grid, grid)), 2).flatten(1, 2)

        sign = torch.where(which, -1.0, 1.0)[:, None]
        offset = swap_patches(self.offset)
        return LabelledViews(
            pixels=swap(self.pixels, -1),
            colour=swap_patches(self.colour),
            shape=swap_patches(self.shape),
            offset=torch.stack([offset[..., 0] * sign, offset[..., 1]], dim=-1),
            sky=self.sky,
            ground=self.ground,
        )


def draw_views(count: int, image_size: int, patch_size: int, rng: np.random.Generator) -> LabelledViews:
    """Render `count` views of as many scenes and label their patches."""
    grid = image_size // patch_size
    cameras = [_Camera(view, image_size, grid) for view in _random_views(rng)]
    columns: dict[str, list[NDArray]] = {name: [] for name in LabelledViews.__dataclass_fields__}
    for _ in range(count):
        scene = sample_scene(rng, share=0.9, share_above=0.7)
        camera = cameras[int(rng.integers(len(cameras)))]
        colours, met = render(scene, camera.fine_rays)
        fine = colours.astype(np.uint16)
        summed = fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]
        pixels = ((summed + 2) // 4).astype(np.uint8).transpose(2, 0, 1)
        for name, value in zip(columns, (pixels, *_label_patches(scene, camera, met)), strict=True):
            columns[name].append(value)
    return LabelledViews(**{name: torch.from_numpy(np.stack(values)) for name, values in columns.items()})


class _Camera:
    """A view's rays: of its pixels' quarters, and the yaw and pitch of its patches, row by row."""

    def __init__(self, view: View, image_size: int, grid: int) -> None:
        self.fine_rays = view_rays(view, 2 * image_size, 2 * image_size).astype(np.float32)
        self.yaw_deg, self.pitch_deg = rays_to_angles(view_rays(view, grid, grid).reshape(-1, 3))
        self.grid = grid


def _random_views(rng: np.random.Generator) -> list[View]:
    """Views that look anywhere, most of them at the horizon, and some whole panoramas."""
    tiles = _CAMERAS - round(_GLOBAL_SHARE * _CAMERAS)
    pitches = [0.0 if rng.random() < 0.9 else float(rng.uniform(-40, 40)) for _ in range(tiles)]
    yaws = [float(rng.uniform(-180, 180)) for _ in range(tiles)]
    views = [View("perspective", yaw, pitch, 90.0, 90.0) for yaw, pitch in zip(yaws, pitches, strict=True)]
    return views + [GLOBAL_VIEW] * (_CAMERAS - tiles)


def _label_patches(
    scene: Scene, camera: _Camera, met: NDArray[np.int8]
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    """Labels of the solid that covers most of each patch, row by row: colour, shape, offset; then sky and ground."""
    colours, shapes, skies, grounds = _NAMES
    grid, side = camera.grid, met.shape[0] // camera.grid
    cover = np.stack([met == index for index in range(len(scene.solids))])
    cover = cover.reshape(-1, grid, side, grid, side).mean(axis=(2, 4)).reshape(len(scene.solids), -1)
    solid, shown = cover.argmax(axis=0), cover.max(axis=0) > _LEAST_COVER
    colour = np.array([1 + colours.index(one.colour) for one in scene.solids])[solid] * shown
    shape = np.array([1 + shapes.index(one.shape) for one in scene.solids])[solid] * shown
    to_yaw, to_pitch = rays_to_angles(np.array([one.centre for one in scene.solids]))
    offset = np.stack([(to_yaw[solid] - camera.yaw_deg + 180) % 360 - 180, to_pitch[solid] - camera.pitch_deg], axis=-1)
    offset = (offset / _OFFSET_SCALE_DEG).astype(np.float32)
    return colour, shape, offset, np.array(skies.index(scene.sky)), np.array(grounds.index(scene.ground))


class PatchLabeller(nn.Module):
    """The encoder with the heads of its pre-training."""

    def __init__(self, settings: MiniatureVisionSettings) -> None:
        super().__init__()
        config = SiglipVisionConfig(
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            vision_use_head=False,
        )
        self.encoder = SiglipVisionModel(config)
        for module in self.encoder.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                nn.init.zeros_(module.bias)
        self.sizes = [1 + len(COLOURS), len(SHAPES), 2]
        self.patch_head = nn.Linear(settings.hidden_size, sum(self.sizes))
        self.view_head = nn.Linear(settings.hidden_size, len(SKIES) + len(GROUNDS))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Logits of colour and shape and the offset, [N, P, ...]; logits of sky and ground, [N, ...]."""
        hidden = self.encoder(pixel_values=pixels.float() / 127.5 - 1).last_hidden_state
        colour, shape, offset = self.patch_head(hidden).split(self.sizes, dim=-1)
        sky, ground = self.view_head(hidden.mean(dim=1)).split([len(SKIES), len(GROUNDS)], dim=-1)
        return colour, shape, offset, sky, ground

    def loss(self, views: LabelledViews) -> Tensor:
        colour, shape, offset, sky, ground = self(views.pixels)
        shown = views.colour > 0
        return (
            functional.cross_entropy(colour.flatten(0, 1), views.colour.flatten())
            + functional.cross_entropy(shape[shown], views.shape[shown] - 1)
            + functional.smooth_l1_loss(offset[shown], views.offset[shown])
            + 0.3 * functional.cross_entropy(sky, views.sky)
            + 0.3 * functional.cross_entropy(ground, views.ground)
        )


@torch.no_grad()
def labelling_accuracy(model: PatchLabeller, views: LabelledViews) -> dict[str, float]:
    """On unseen views: `found` (solid or none, of all patches); of patches that show one, `colour`, `shape` and the
    mean error `offset_deg` of the way to its middle; `sky` and `ground` of all views."""
    model.eval()
    colour, shape, offset, sky, ground = model(views.pixels)
    shown = views.colour > 0
    error = (offset - views.offset)[shown].norm(dim=-1).mean() * _OFFSET_SCALE_DEG
    return {
        "found": ((colour.argmax(-1) > 0) == shown).float().mean().item(),
        "colour": (colour.argmax(-1) == views.colour)[shown].float().mean().item(),
        "shape": (1 + shape.argmax(-1) == views.shape)[shown].float().mean().item(),
        "offset_deg": error.item(),
        "sky": (sky.argmax(-1) == views.sky).float().mean().item(),
        "ground": (ground.argmax(-1) == views.ground).float().mean().item(),
    }


def build_vision(settings: MiniatureVisionSettings, folder: str | Path) -> dict[str, float]:
    """Pre-train the miniature vision encoder and write its folder; returns the accuracies on unseen views."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng([settings.seed, 2])
    views = draw_views(settings.views, settings.image_size, settings.patch_size, rng)
    held_out = draw_views(_HELD_OUT, settings.image_size, settings.patch_size, rng)
    model = PatchLabeller(settings)
    LOGGER.info(
        "miniature vision encoder: %d weights, %d views",
        sum(p.numel() for p in model.encoder.parameters()),
        settings.views,
    )
    choose = torch.Generator().manual_seed(settings.seed)
    schedule = Schedule(
        max_steps=settings.steps,
        decay=settings.steps // 2,
        warmup=min(50, settings.steps // 10),
        check_every=100,
        lr=settings.lr,
        muon_lr=settings.muon_lr,
        weight_decay=0.05,
    )

    def loss_of(step: int) -> Tensor:
        batch = views[torch.randint(settings.views, (settings.batch_size,), generator=choose)]
        return model.loss(batch.mirrored(torch.rand(settings.batch_size, generator=choose) < 0.5))

    train(model, schedule, loss_of, lambda: False, "miniature vision encoder")
    accuracy = labelling_accuracy(model, held_out)
    LOGGER.info("miniature vision encoder, unseen views: %s", ", ".join(f"{k} {v:.3f}" for k, v in accuracy.items()))
    size = {"height": settings.image_size, "width": settings.image_size}
    half = [0.5, 0.5, 0.5]
    with atomic_dir(folder) as partial:
        model.encoder.save_pretrained(partial)
        SiglipImageProcessorPil(size=size, image_mean=half, image_std=half).save_pretrained(partial)
    return accuracy
