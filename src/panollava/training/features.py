"""Features of a frozen vision encoder, computed once for all experiments that agree on views and encoder.

Computes, from a view cache and a model whose encoder does not train, an array [N, V, S, D_vision] on disk, which is
read image by image. It is computed in the arithmetic of the training and kept in `feature_dtype`, to which
`encode_frozen` rounds where nothing is cached: losses with and without the cache are equal. Traded away: disk for time.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from panollava.data.dataset import picture_batch
from panollava.devices import autocast
from panollava.errors import DataError
from panollava.files import atomic_path, canonical_json, digest_of, read_json, write_json
from panollava.locks import FolderLock
from panollava.logs import LOGGER
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.progress import track
from panollava.views.cache import ViewCache

AUTO_LIMIT_BYTES = 64 * 2**30
AUTO_SHARE_OF_DISK = 0.25


class FeatureStore:
    """Encoder features by image path: [V, S, D_vision], float32, or bfloat16 as its bits in uint16.

    Rows are read on demand and not kept. Cheap to send to data-loader workers.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows: dict[str, int] = read_json(folder / "index.json")["rows"]
        with (folder / "features.npy").open("rb") as stream:
            np.lib.format.read_magic(stream)
            shape, _, self._dtype = np.lib.format.read_array_header_1_0(stream)
            self._start = stream.tell()
        self._shape = shape[1:]
        self._stream = (folder / "features.npy").open("rb", buffering=0)

    def __getitem__(self, image_path: str) -> np.ndarray:
        row = np.empty(self._shape, self._dtype)
        offset = self._start + self._rows[image_path] * row.nbytes
        left = memoryview(row.view(np.uint8).reshape(-1).data)
        while left:
            read = os.preadv(self._stream.fileno(), [left], offset)
            if not read:
                raise DataError(f"{self.folder / 'features.npy'} is cut short. Remove {self.folder} and run again")
            left, offset = left[read:], offset + read
        return row

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]


def feature_dtype(precision: str) -> torch.dtype:
    """What features are rounded to: half the bytes where training computes in bfloat16 anyway."""
    return torch.bfloat16 if precision == "bf16-mixed" else torch.float32


def bytes_per_image(model: PanoramaModel, precision: str) -> int:
    """Bytes of one panorama's features on the disk."""
    return feature_dtype(precision).itemsize * math.prod(model.feature_shape)


@torch.no_grad()
def encode_frozen(model: Any, pixel_values: Tensor, dtype: torch.dtype) -> Tensor:
    """Features [B, V, S, D_vision] of a model's frozen encoder, as the cache would hold them."""
    features: Tensor = model.encode_vision(pixel_values)
    return features.to(dtype)


def encoder_digest(encoder: Any) -> str:
    """A digest of the encoder: its `settings` (an activation's name changes features, and no tensor), and its tensors'
    names, shapes, bytes."""
    digest = hashlib.sha256(canonical_json(encoder.settings).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def wants_features(choice: bool | str, encoder_trains: bool, total_bytes: int, cache: Path) -> bool:
    """Whether a stage trains on cached features: only a frozen encoder's. `auto` caches up to 64 GiB, and never more
    than a quarter of what is free where `cache` lies."""
    if encoder_trains or choice is False:
        return False
    if choice == "auto":
        cache.mkdir(parents=True, exist_ok=True)
        limit = min(AUTO_LIMIT_BYTES, int(AUTO_SHARE_OF_DISK * shutil.disk_usage(cache).free))
        if total_bytes > limit:
            LOGGER.info(
                "features are not cached: %.1f GiB, more than %.1f GiB (training.cache_vision_features: true does it)",
                total_bytes / 2**30, limit / 2**30,
            )  # fmt: skip
            return False
    return True


@torch.no_grad()
def cached_features(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    views: ViewCache,
    content: str,
    cache: Path,
    *,
    device: torch.device,
    precision: str = "32-true",
    images_per_batch: int = 32,
) -> FeatureStore:
    """Read the features of `views` under `model`'s encoder from `cache`, computing them first where absent.

    `content` is the digest of what is encoded (`ViewCache.digest`): other pixels never find these features.
    """
    key = digest_of(
        {
            "views": content,
            "encoder": encoder_digest(model.encoder),
            "processor": processor.to_json(),
            "device": device.type,
            **({} if precision == "32-true" else {"precision": precision}),
        }
    )
    folder = cache / "features" / key
    with FolderLock(folder):
        if not (folder / "index.json").is_file():
            paths = list(views)
            LOGGER.info("computing the frozen encoder's features of %d pictures", len(paths))
            model.encoder.to(device).eval()
            with atomic_path(folder / "features.npy") as partial:
                _write_features(model, processor, views, paths, partial, device, precision, images_per_batch)
            write_json(folder / "index.json", {"rows": {path: row for row, path in enumerate(paths)}})
        else:
            LOGGER.info("frozen encoder's features: %s", folder)
    return FeatureStore(folder)


def _write_features(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    views: ViewCache,
    paths: list[str],
    target: Path,
    device: torch.device,
    precision: str,
    images_per_batch: int,
) -> None:
    dtype = feature_dtype(precision)
    starts = range(0, len(paths), images_per_batch)
    with target.open("wb") as stream:
        for start in track(starts, len(starts), f"Encoding batches of {images_per_batch} panoramas"):
            pictures = [np.array(views[path]) for path in paths[start : start + images_per_batch]]
            pixels = picture_batch(pictures, processor)["pixel_values"].to(device)
            with autocast(precision, device):
                features = encode_frozen(model, pixels, dtype).cpu()  # [B, V, S, D_vision]
            stored = features.view(torch.uint16).numpy() if dtype == torch.bfloat16 else features.numpy()
            if not start:
                _begin_array(stream, (len(paths), *stored.shape[1:]), stored.dtype)
            stream.write(stored.tobytes())


def _begin_array(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Write the header of an .npy file and reserve its room: a full disk is an error now, and not after an hour."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    stream.flush()
    os.posix_fallocate(stream.fileno(), 0, stream.tell() + int(np.prod(shape)) * dtype.itemsize)
