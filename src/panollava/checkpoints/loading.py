"""Whole models, from a stage folder alone: metadata, backbones, chosen weights, processor.

Whom a folder may make open files or run code: `trust`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.checkpoints.card_data import model_card_data
from panollava.checkpoints.folder import METADATA, ChosenCheckpoint, choose_checkpoint, find_stage_folder, read_metadata
from panollava.checkpoints.metadata import explained, whole_metadata
from panollava.checkpoints.weights import load_weights
from panollava.checkpoints.without_metadata import metadata_of_config
from panollava.devices import language_dtype
from panollava.errors import CheckpointError
from panollava.files import sha256_folder
from panollava.models.build import build_model
from panollava.models.choices import STAGES
from panollava.models.config import ModelConfig
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.trust import check_hub_id, find_inside, is_project, made_here, may_run_code

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


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

    `root` overrides the project root that the metadata records (a job passes its own). `config` replaces the
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
    model_config = model_config.changed(trust_remote_code=model_config.trust_remote_code and trusted)
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
    model.origin = model_card_data(metadata, checkpoint, home)
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

    A local one is opened where the folder records its digest. One that lies elsewhere is opened for a folder that was
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
    name: str, part: str, metadata: dict[str, Any], folder: Path, roots: list[Path], config: WorkflowConfig | None
) -> Path | None:
    """The folder of a local backbone; None where there is none. Raises CheckpointError for one that lies elsewhere."""
    found = find_inside(name, roots)
    if found is not None and found.is_dir():
        return found
    elsewhere = next((root / name for root in roots if (root / name).is_dir()), None)
    if elsewhere is None:
        return None
    if made_here(folder, metadata["checkpoint_info"]["project_root"]):
        return elsewhere
    own = config.backbone_folder(part) if config is not None else None
    if own is not None and config is not None and (config.root / own).resolve() == elsewhere.resolve():
        return elsewhere
    raise CheckpointError(
        f"{folder / METADATA} names the {part} backbone {name!r}, which lies outside of its project and of the working "
        "folder, so it is not opened. If it is yours, pass --config with the experiment that names it"
    )
