"""Weights files: tensors to a .ckpt and back.

A .ckpt holds `{"panollava": header, "state_dict": tensors}`, the tensors that some stage so far has trained; all others
come from the backbones that the folder's metadata names. Files are loaded with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from panollava.checkpoints.folder import METADATA
from panollava.errors import CheckpointError
from panollava.files import atomic_path
from panollava.models.finite import refuse_not_finite


def save_weights(path: Path, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """Write a weights file, whole or not at all. Equal tensors and header give equal bytes."""
    document = {"panollava": header, "state_dict": {k: v.detach().cpu() for k, v in tensors.items()}}
    # Given a path, torch.save would write the temporary file's name into the archive, and hide a full disk.
    with atomic_path(path) as partial, partial.open("wb") as stream:
        torch.save(document, stream)


def load_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(header, tensors) of a weights file, on the CPU. Raises CheckpointError where it is not one, and where a tensor
    holds a NaN or an infinity.

    A .safetensors file has no header. Nothing in either kind of file is ever executed.
    """
    try:
        if Path(path).suffix == ".safetensors":
            weights = load_file(path)
            refuse_not_finite(path, weights.items())
            return {}, weights
        _check_sums(Path(path))
        document = torch.load(path, map_location="cpu", weights_only=True)
    except (
        OSError, RuntimeError, EOFError, LookupError, ValueError, pickle.UnpicklingError, SafetensorError,
        zipfile.BadZipFile,
    ) as error:  # fmt: skip
        what = str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, pickle.UnpicklingError):  # torch would advise to run what is in there
            what = "it is not what torch.save writes, or holds more than tensors"
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint: {what}. Bring the file back, or remove the folder's {METADATA} "
            "and run the experiment again, which trains the stage again."
        ) from error
    if not isinstance(document, dict) or "state_dict" not in document:
        raise CheckpointError(f"{path}: not a panollava checkpoint (no 'state_dict' in it)")
    header, state = document.get("panollava", {}), document["state_dict"]
    tensors = isinstance(state, dict) and all(isinstance(tensor, Tensor) for tensor in state.values())
    if not tensors or not isinstance(header, dict):
        raise CheckpointError(f"{path}: not a panollava checkpoint (its 'state_dict' holds more than tensors)")
    refuse_not_finite(path, state.items())
    return header, state


def _check_sums(path: Path) -> None:
    """Raise BadZipFile where a byte is not the one that was written: torch would take it for a weight."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"the file was damaged after it was written ({damaged})")
