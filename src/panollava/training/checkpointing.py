"""Weights files and whole models: from tensors to a .ckpt and back from a stage folder alone.

A .ckpt holds `{"panollava": header, "state_dict": tensors}`, the tensors that some stage so far has trained; all others
come from the backbones that the folder's metadata names. Files are loaded with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from panollava.errors import CheckpointError
from panollava.files import atomic_path, sha256_folder
from panollava.models.build import build_model
from panollava.models.config import ModelConfig
from panollava.models.finite import refuse_not_finite
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.training.job import language_dtype
from panollava.training.metadata_check import explained, whole_metadata
from panollava.training.origin import origin_of
from panollava.training.stage_folder import (
    METADATA,
    ChosenCheckpoint,
    choose_checkpoint,
    find_stage_folder,
    read_metadata,
)
from panollava.training.stages import STAGES
from panollava.training.without_metadata import metadata_of_config
from panollava.trust import check_hub_id, find_inside, is_project, made_here, may_run_code

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


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
        if isinstance(error, pickle.UnpicklingError):  # torch would advise to run what stands in there
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


@dataclass
class LoadedStage:
    """A stage folder brought back to life. `project_root` is the project that it belongs to; `made_here`: it was
    trained there, on this machine, so that what it names outside is the user's own."""

    model: PanoramaModel
    processor: PanoramaProcessor
    metadata: dict[str, Any]
    checkpoint: ChosenCheckpoint
    project_root: Path
    made_here: bool = False
    config_digest: str | None = None
    """Of the configuration that the checkpoint itself says it was trained with."""


def load_stage(
    path: str | Path, *, stage: str | None = None, epoch: int | None = None, step: int | None = None,
    root: Path | None = None, config: WorkflowConfig | None = None, trust_remote_code: bool = False,
) -> LoadedStage:  # fmt: skip
    """Rebuild model, processor and data settings from a stage folder, from any working folder.

    `root` overrides the project root that the metadata records (a job passes its own). `config` stands in for the
    metadata of a folder that has none (one of the original project's, or a lone checkpoint). A folder may come from a
    stranger: what it names is opened and run as `trust` decides. Python code of its backbones runs only with
    `trust_remote_code`, or where `config` sets it for these backbones. Raises CheckpointError where metadata,
    checkpoint or a local backbone is missing or differs; tensors that do not fit are listed.
    """
    folder = find_stage_folder(path, stage)
    if config is not None and not (folder / METADATA).is_file():
        metadata = metadata_of_config(config, stage)
    else:
        metadata = read_metadata(folder)
    if stage and metadata["stage"] != stage:
        raise CheckpointError(f"{folder} holds stage {metadata['stage']}, not {stage}")
    metadata = whole_metadata(folder / METADATA, metadata)
    checkpoint = choose_checkpoint(folder, epoch, step)
    recorded = Path(metadata["checkpoint_info"]["project_root"])
    roots = [root] if root else [recorded, Path.cwd()]
    home = _home_of(folder, roots)
    with explained(folder / METADATA, "model_config"):
        model_config = resolve_backbones(metadata, [home, *roots], folder, config)
    folders = {"vision": model_config.vision_path, "language": model_config.language_path}
    if model_config.is_native:
        folders = {"vlm": model_config.vlm_path}
    trusted = trust_remote_code or may_run_code(metadata, folders, config)
    model_config = replace(model_config, trust_remote_code=model_config.trust_remote_code and trusted)
    dtype = language_dtype(metadata["training_config"]["precision"])
    model = build_model(model_config, with_language=metadata["stage"] != "vision", dtype=dtype)
    header, state = load_weights(checkpoint.path)
    if header.get("stage", metadata["stage"]) != metadata["stage"]:
        raise CheckpointError(
            f"{checkpoint.path} holds weights of stage {header['stage']}, but {folder} is of stage {metadata['stage']}"
        )
    model.load_trained(
        state,
        required=[part for part in model.stage_parts(metadata["stage"]) if model.named_part_parameters().get(part)],
    )
    model.eval()
    with explained(folder / METADATA, "processor"):
        processor = PanoramaProcessor.from_json(metadata["processor"])
    model.origin = origin_of(metadata, checkpoint.path.name, home)
    own = made_here(folder, metadata["checkpoint_info"]["project_root"])
    return LoadedStage(model, processor, metadata, checkpoint, home, own, header.get("config_digest"))


def _home_of(folder: Path, roots: list[Path]) -> Path:
    """The project that a stage folder belongs to: the one it lies in, else the first of `roots` that is one, else the
    last of them (the working folder, where a job passes none)."""
    for place in roots:
        if folder.resolve().is_relative_to(place.resolve()) and (place / "Snakefile").is_file():
            return place
    return next((place for place in roots if is_project(place)), roots[-1])


def resolve_backbones(
    metadata: dict[str, Any], roots: list[Path], folder: Path = Path(), config: WorkflowConfig | None = None
) -> ModelConfig:
    """The model's configuration with the folders of its local backbones, looked up below `roots` in order.

    A local one is opened where the folder tells its digest. One that lies elsewhere is opened for a folder that was
    made on this machine (it lies in the project that it records), or where `config` names it.
    """
    document, source = dict(metadata["model_config"]), folder / METADATA
    digests: dict[str, str | None] = metadata["backbones"]
    names = {"vision": "vision_name", "language": "language_model_name"}
    if document.get("vlm_name") is not None:
        names = {"vlm": "vlm_name", **({"adapter": "adapter"} if document.get("adapter") else {})}
    for part, name in names.items():
        key = f"{part}_path"
        digest = digests.get(part)
        if digest is None:  # an id of the hub; of the vision stage's language model not even that is read
            document[key] = None
            if part in digests or metadata["stage"] != "vision":
                check_hub_id(document[name], f"model_config.{name}", source)
            continue
        found = _backbone(str(document[key]), part, metadata, folder, roots, config)
        if found is None:
            raise CheckpointError(
                f"the {part} backbone {document[name]!r} is not there: looked for "
                f"{' and '.join(str(root / str(document[key])) for root in roots)}"
            )
        if sha256_folder(found) != digest:
            rules = [f"train_{one}" for one in STAGES[: STAGES.index(metadata["stage"]) + 1]]
            raise CheckpointError(
                f"the {part} backbone in {found} differs from the one this stage was trained with. Bring that one "
                f"back, or train again: panollava run {metadata['experiment_name']} --forcerun {' '.join(rules)}"
            )
        document[key] = str(found)
    return ModelConfig.from_json(document)


def _backbone(
    told: str, part: str, metadata: dict[str, Any], folder: Path, roots: list[Path], config: WorkflowConfig | None
) -> Path | None:
    """The folder of a local backbone; None where there is none. Raises CheckpointError for one that lies elsewhere."""
    found = find_inside(told, roots)
    if found is not None and found.is_dir():
        return found
    elsewhere = next((root / told for root in roots if (root / told).is_dir()), None)
    if elsewhere is None:
        return None
    if made_here(folder, metadata["checkpoint_info"]["project_root"]):
        return elsewhere
    own = config.backbone_folder(part) if config is not None else None
    if own is not None and config is not None and (config.root / own).resolve() == elsewhere.resolve():
        return elsewhere
    raise CheckpointError(
        f"{folder / METADATA} names the {part} backbone {told!r}, which lies outside of its project and of the working "
        "folder, so it is not opened. If it is yours, pass --config with the experiment that names it"
    )
