"""Features of a frozen vision encoder, computed once for all experiments that agree on views and encoder.

Enters: a view cache and a model whose encoder does not train. Leaves: a memory-mapped array [N, V, S, D_vision]
in the encoder's own dtype, so that losses with and without the cache are equal. Traded away: disk for time.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from panollava.data.dataset import picture_batch
from panollava.files import atomic_path, digest_of, read_json, write_json
from panollava.logs import LOGGER
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.training.state_folder import FolderLock
from panollava.views.cache import ViewCache

AUTO_LIMIT_BYTES = 8 * 2**30


class FeatureStore:
    """Encoder features by image path: [V, S, D_vision], float32 on a CPU."""

    def __init__(self, folder: Path) -> None:
        self._rows: dict[str, int] = read_json(folder / "index.json")["rows"]
        self._features = np.load(folder / "features.npy", mmap_mode="r")

    def __getitem__(self, image_path: str) -> np.ndarray:
        return self._features[self._rows[image_path]]


def encoder_digest(encoder: nn.Module) -> str:
    """A digest of the encoder's tensors: names, shapes, bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def wants_features(choice: bool | str, trainable_blocks: int, images: int, bytes_per_image: int) -> bool:
    """Whether a stage trains on cached features: only a frozen encoder's, and for `auto` only up to 8 GiB."""
    if trainable_blocks != 0 or choice is False:
        return False
    total = images * bytes_per_image
    if choice == "auto" and total > AUTO_LIMIT_BYTES:
        LOGGER.info("features are not cached: %.1f GiB, more than %.0f GiB", total / 2**30, AUTO_LIMIT_BYTES / 2**30)
        return False
    return True


@torch.no_grad()
def cached_features(
    model: PanoramaVLM,
    processor: PanoramaProcessor,
    views: ViewCache,
    views_key: str,
    cache: Path,
    *,
    device: torch.device,
    images_per_batch: int = 32,
) -> FeatureStore:
    """Read the features of `views` under `model`'s encoder from `cache`, computing them first where absent."""
    key = digest_of(
        {
            "views": views_key,
            "encoder": encoder_digest(model.vision),
            "processor": processor.to_json(),
            "device": device.type,
        }
    )
    folder = cache / "features" / key
    with FolderLock(folder):
        if not (folder / "index.json").is_file():
            paths = list(views)
            LOGGER.info("computing the frozen encoder's features of %d pictures", len(paths))
            model.vision.to(device).eval()
            with atomic_path(folder / "features.npy") as partial:
                _write_features(model, processor, views, paths, partial, device, images_per_batch)
            write_json(folder / "index.json", {"rows": {path: row for row, path in enumerate(paths)}})
        else:
            LOGGER.info("frozen encoder's features: %s", folder)
    return FeatureStore(folder)


def _write_features(
    model: PanoramaVLM,
    processor: PanoramaProcessor,
    views: ViewCache,
    paths: list[str],
    target: Path,
    device: torch.device,
    images_per_batch: int,
) -> None:
    output: np.memmap | None = None
    for start in range(0, len(paths), images_per_batch):
        pictures = [np.array(views[path]) for path in paths[start : start + images_per_batch]]
        pixels = picture_batch(pictures, processor)["pixel_values"].to(device)
        features = model.encode_vision(pixels).float().cpu().numpy()  # [B, V, S, D_vision]
        if output is None:
            shape = (len(paths), *features.shape[1:])
            output = np.lib.format.open_memmap(target, mode="w+", dtype=np.float32, shape=shape)
            with open(target, "r+b") as stream:  # a full disk is an error here, and a bus error in the memory map
                os.posix_fallocate(stream.fileno(), 0, os.path.getsize(target))
        output[start : start + len(features)] = features
    if output is not None:
        output.flush()
