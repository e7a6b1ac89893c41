"""A stage folder: its metadata, its checkpoints, its links (SPEC 8). No torch.

Writes checkpoint_metadata.json, best.ckpt and last.ckpt of a finished run; finds the requested checkpoint in a folder
that a user names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from panollava.checkpoints.metadata import REMEDY, check_checkpoints
from panollava.config.names import check_name
from panollava.errors import CheckpointError, ConfigError
from panollava.files import read_json, relative_link, sha256_file, sha256_folder
from panollava.logs import LOGGER
from panollava.models.choices import STAGES
from panollava.trust import find_inside, made_here, project_of

METADATA = "checkpoint_metadata.json"
OLD_FINAL = "model_final.safetensors"
"""What the original project left at the end of a stage, beside or instead of checkpoints."""
_PASS = "Pass a stage folder such as runs/EXP1/finetune/anyres-e2p_mlp, an experiment's folder such as runs/EXP1"
_NAME = re.compile(r"_epoch(?P<epoch>\d+)_loss(?P<loss>-?\d+\.\d+)\.ckpt$")


@dataclass(frozen=True)
class ChosenCheckpoint:
    """A checkpoint of a stage folder: its real file (links resolved) and how it was chosen. `digest` is that of a model
    of the hub, which has no file here."""

    folder: Path
    path: Path
    chosen_as: str
    digest: str | None = None

    @property
    def name(self) -> str:
        """The file's name; "." where the folder itself is the checkpoint, as an exported model's is."""
        return "." if self.path == self.folder else self.path.name

    def sha256(self) -> str:
        """Of the file; of an exported model of all its files but the texts for people."""
        return self.digest or weights_digest(self.path)


def weights_digest(path: Path) -> str:
    """SHA-256 of a weights file, or of an exported model's folder without its model card, which people edit."""
    return sha256_folder(path, without=("README.md",)) if path.is_dir() else sha256_file(path)


def write_links(folder: Path, checkpoints: list[dict[str, Any]]) -> dict[str, Any]:
    """Point best.ckpt and last.ckpt at this run's own checkpoints; return the best one's entry.

    The best has the lowest validation loss; of equal ones the earliest.
    """
    best = min(checkpoints, key=lambda c: (c["val_loss"], c["epoch"]))
    relative_link(folder / "last.ckpt", folder / checkpoints[-1]["file"])
    relative_link(folder / "best.ckpt", folder / best["file"])
    return best


def read_metadata(folder: str | Path) -> dict[str, Any]:
    """The folder's checkpoint_metadata.json. Raises CheckpointError that says what to pass instead."""
    path = Path(folder) / METADATA
    if not path.is_file():
        what = f"the folder holds: {_listing(Path(folder))}" if Path(folder).is_dir() else "no such folder"
        raise CheckpointError(
            f"{folder}: no {METADATA} there ({what}). {_PASS}, or --config with the experiment's YAML."
        )
    try:
        document: dict[str, Any] = read_json(path)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged ({error}). {REMEDY}") from error
    if not isinstance(document, dict) or document.get("stage") not in STAGES:
        raise CheckpointError(f"{path} does not say which stage this is. {REMEDY}")
    check_checkpoints(path, document)
    _check_names(path, document)
    return document


def checkpoints_of(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checkpoints that a folder's metadata list: file, epoch, optimiser step, validation loss."""
    entries: list[dict[str, Any]] = metadata.get("epoch_info", {}).get("checkpoints", [])
    return entries


def _check_names(path: Path, document: dict[str, Any]) -> None:
    """A folder may come from a stranger: its names become parts of paths. Raises CheckpointError."""
    try:
        check_name(document.get("experiment_name", "absent"))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}. {REMEDY}") from error
    for entry in checkpoints_of(document):
        if entry["file"] in (".", "..") or Path(entry["file"]).name != entry["file"]:
            raise CheckpointError(
                f"{path}: a checkpoint's file must lie in the folder, got {entry['file']!r}. {REMEDY}"
            )


def find_stage_folder(path: str | Path, stage: str | None = None) -> Path:
    """The stage folder that a user means: `path` itself, or inside an experiment's folder its last stage.

    Raises CheckpointError where nothing is found or where several variants could be meant (all are listed).
    """
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder. Expected a stage folder or an experiment's folder.")
    for place in (folder, folder / "checkpoints"):
        if (place / METADATA).is_file() or holds_weights(place):
            return place
    for name in [stage] if stage else list(reversed(STAGES)):
        inside = folder if folder.name == name else folder / name
        variants = sorted(p.parent for p in inside.glob(f"*/{METADATA}"))
        if len(variants) > 1:
            raise CheckpointError(
                f"{folder}: several variants of stage {name}: {', '.join(str(v) for v in variants)}. Name one of them."
            )
        if variants:
            return variants[0]
        if stage is None and any(entry.is_dir() for entry in inside.glob("*")):
            raise CheckpointError(
                f"{inside}: stage {name} was begun and is not finished (no {METADATA}). Run the experiment again, or "
                "name an earlier stage with --stage."
            )
    wanted = f"stage {stage}" if stage else "a finished stage"
    raise CheckpointError(
        f"{folder}: {wanted} is not there (no {METADATA}, no .ckpt file); the folder holds: {_listing(folder)}. "
        f"{_PASS}; an experiment without stages (training.stages: []) has no such folder and is named by --config"
    )


def holds_weights(folder: Path) -> bool:
    """Whether a folder has checkpoints, of any layout; broken links count."""
    return any(folder.glob("*.ckpt")) or (folder / OLD_FINAL).is_file()


def _listing(folder: Path) -> str:
    return ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"


def choose_checkpoint(folder: Path, epoch: int | None = None, step: int | None = None) -> ChosenCheckpoint:
    """Choose as SPEC 8 says: the epoch or optimiser step asked for, else best.ckpt, last.ckpt, the newest .ckpt, and
    without any .ckpt what the original project called its final model.

    Raises CheckpointError for a broken link, for an epoch or step that is not there (those that are, are listed) and
    for a folder without checkpoints (what is there is listed).
    """
    if epoch is not None and step is not None:
        raise ConfigError(f"epoch {epoch} and step {step} exclude each other: ask for one of them")
    for name, number in (("epoch", epoch), ("step", step)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, Integral)):
            raise TypeError(f"{name} must be a whole number, got {number!r}")
    if epoch is not None or step is not None:
        chosen = _by_number(folder, epoch, step)
    else:
        chosen = _by_link(folder) or _newest(folder)
    _refuse_elsewhere(chosen)
    LOGGER.info("checkpoint %s: %s", chosen.chosen_as, chosen.path)
    return chosen


def _refuse_elsewhere(chosen: ChosenCheckpoint) -> None:
    """A link in a folder of others may not lead out of it; in one trained here it may. Raises CheckpointError."""
    if find_inside(str(chosen.path), [chosen.folder, project_of(chosen.folder / METADATA) or chosen.folder]):
        return
    if (chosen.folder / METADATA).is_file():
        recorded = read_metadata(chosen.folder).get("checkpoint_info", {}).get("project_root")
        if isinstance(recorded, str) and made_here(chosen.folder, recorded):
            return
    raise CheckpointError(
        f"{chosen.folder}: {chosen.chosen_as} leads to {chosen.path}, outside of the folder and its project, so it is "
        "not opened. Copy the file into the folder in place of the link"
    )


def _by_link(folder: Path) -> ChosenCheckpoint | None:
    for name in ("best.ckpt", "last.ckpt"):
        link = folder / name
        if link.is_symlink() and not link.exists():
            raise CheckpointError(
                f"{link} points to {link.readlink()}, which is not there. Restore that file or train the stage again."
            )
        if link.is_file():
            return ChosenCheckpoint(folder, link.resolve(), name)
    return None


def _newest(folder: Path) -> ChosenCheckpoint:
    files = sorted(folder.glob("*.ckpt"), key=lambda p: (p.stat().st_mtime_ns, p.name))
    if not files and (folder / OLD_FINAL).is_file():
        return ChosenCheckpoint(folder, (folder / OLD_FINAL).resolve(), OLD_FINAL)
    if not files:
        raise CheckpointError(f"{folder}: no .ckpt file there; the folder holds: {_listing(folder)}")
    return ChosenCheckpoint(folder, files[-1].resolve(), "the newest .ckpt")


def _by_number(folder: Path, epoch: int | None, step: int | None) -> ChosenCheckpoint:
    entries = checkpoints_of(read_metadata(folder)) if (folder / METADATA).is_file() else []
    if not entries:
        entries = [
            {"file": p.name, "epoch": int(m["epoch"]), "step": None}
            for p in sorted(folder.glob("*.ckpt"))
            if (m := _NAME.search(p.name))
        ]
    key, wanted = ("epoch", epoch) if epoch is not None else ("step", step)
    for entry in entries:
        if entry.get(key) == wanted:
            path = folder / entry["file"]
            if not path.is_file():
                raise CheckpointError(f"{path} ({key} {wanted}) is named in {METADATA} but is not there")
            return ChosenCheckpoint(folder, path.resolve(), f"{key} {wanted}")
    there = ", ".join(str(entry.get(key)) for entry in entries) or "none"
    raise CheckpointError(f"{folder}: no checkpoint of {key} {wanted}; there are {key}s {there}")


def checkpoint_of_run(folder: Path, config_digest: str) -> dict[str, Any]:
    """The best checkpoint by the run's own record, for results/{experiment}/checkpoint.json.

    Raises CheckpointError where the folder belongs to another configuration or its file is gone.
    """
    metadata = read_metadata(folder)
    found = metadata["checkpoint_info"]["config_digest"]
    if found != config_digest:
        raise CheckpointError(
            f"{folder} was trained with another configuration (digest {found}) than the experiment asks for "
            f"({config_digest}). Remove {folder / METADATA} and run the same command again."
        )
    info = metadata["epoch_info"]
    entry = next(c for c in info["checkpoints"] if c["epoch"] == info["best_epoch"])
    path = folder / entry["file"]
    if not path.is_file():
        raise CheckpointError(
            f"{path} is named in {METADATA} but is not there. Restore it; or remove {folder / METADATA} and run the "
            "same command again, which trains the stage again."
        )
    sha256 = sha256_file(path)
    if entry.get("sha256", sha256) != sha256:
        raise CheckpointError(
            f"{path} was changed after its training wrote it. Bring it back; or remove {folder / METADATA} and run the "
            "same command again, which trains the stage again."
        )
    return {
        "experiment_name": metadata["experiment_name"],
        "stage": metadata["stage"],
        "folder": folder.as_posix(),
        "file": entry["file"],
        "epoch": entry["epoch"],
        "step": entry["step"],
        "val_loss": entry["val_loss"],
        "sha256": sha256,
        "config_digest": config_digest,
    }
