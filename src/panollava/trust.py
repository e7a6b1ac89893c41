"""What others' files may bring about: they are read, and nothing that they name is run or opened elsewhere.

A metrics.json, a stage folder, an exported model may come from anybody. Every name in them that leads to Python code
(custom metrics, code of models) or to another file (backbones, CSVs, predictions, links) is decided upon here. Code
runs where the user's own configuration or option names it; files are opened inside the folder that names them, inside
the project that this folder belongs to, or in the working folder. No torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config import Project
from panollava.errors import CheckpointError

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

SHIPPED_METRICS = frozenset(
    f"panollava.evaluation.metrics.synthetic:{name}" for name in ("exact_match", "place_thing_f1")
)
"""Custom metrics that are part of the package: they run whoever names them."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PROJECT_FILES = ("Snakefile", "config/default.yaml")


# ---- code ----------------------------------------------------------------------------------------
def configured_metrics(root: Path | None = None) -> frozenset[str]:
    """The custom metrics that the user's project names: the working folder's, where no `root` is given."""
    named = Project(root or Path()).values_of("evaluation.custom_metrics")
    return frozenset(metric for several in named if isinstance(several, list) for metric in several)


def runnable_metrics(recorded: Iterable[str], chosen: Collection[str] = ()) -> tuple[list[str], dict[str, str]]:
    """Those of the custom metrics in a file that may run, and for each other one the reason why it does not.

    They may run where the package has them, where the user chose them (`--custom-metrics`, `--config`), or where the
    project in the working folder names them.
    """
    names = list(dict.fromkeys(recorded))
    allowed = {*SHIPPED_METRICS, *chosen}
    if not allowed.issuperset(names):
        allowed |= configured_metrics()
    refused = {
        name: f"not recomputed: only the file names {name}, and no file of others runs code. If you trust it: "
        f"--custom-metrics {name}"
        for name in names
        if name not in allowed
    }
    return [name for name in names if name in allowed], refused


def may_run_code(metadata: dict[str, Any], folders: dict[str, str | None], config: WorkflowConfig | None) -> bool:
    """Whether the user's configuration lets the backbones that a stage folder names run Python code of their own.

    `folders` are the local ones that were found, by part. The configuration must switch it on for these very backbones:
    what it says of its own is no word about others.
    """
    if config is None or not config.settings.models.trust_remote_code:
        return False
    recorded = metadata["model_config"]
    loaded = {"vision": "vision_name", "language": "language_model_name"}
    if recorded.get("vlm_name") is not None:
        loaded = {"vlm": "vlm_name"}
    elif metadata["stage"] == "vision":  # which only names its language model
        del loaded["language"]
    for part, name in loaded.items():
        own = config.backbone_folder(part)
        here = folders.get(part)
        if recorded[name] != getattr(config.settings.models, name) or (own is None) != (here is None):
            return False
        if own is not None and here is not None and (config.root / own).resolve() != Path(here).resolve():
            return False
    return True


def check_hub_id(name: str, key: str, source: Path) -> None:
    """Refuse what a file calls a model of the hub and is a path, here or anywhere. Raises CheckpointError."""
    if not HUB_ID.fullmatch(name) or os.path.isdir(name):
        raise CheckpointError(
            f"{source}: {key} is {name!r}, a folder, but the file records no digest of it (backbones), so it is not "
            "opened. Only ids of the hub (owner/name) need none. If the folder is yours: pass --config with the "
            "experiment that names it"
        )


# ---- files ---------------------------------------------------------------------------------------
def project_of(path: Path) -> Path | None:
    """The project that a file of results or weights lies in: the nearest folder above it that is one, else the folder
    that holds `results` or `runs`; None where there is neither."""
    above = path.resolve().parents
    for folder in above:
        if is_project(folder):
            return folder
    return next((folder.parent for folder in reversed(above) if folder.name in ("results", "runs")), None)


def made_here(folder: Path, recorded_root: str) -> bool:
    """Whether a stage folder lies in the very project that it records: then this machine's user trained it, and paths
    outside of the project are the user's own."""
    return project_of(folder / "checkpoint_metadata.json") == Path(recorded_root).resolve()


def is_project(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _PROJECT_FILES)


def find_inside(recorded: str, roots: Sequence[Path]) -> Path | None:
    """The file or folder that a file of others names: below one of `roots`, links followed; None where it is not.

    In the working folder links are the user's own and may lead anywhere.
    """
    if not recorded or "\0" in recorded:
        return None
    for root in roots:
        base = Path(os.path.abspath(root))
        place = Path(os.path.normpath(base / recorded))
        if not place.is_relative_to(base):
            continue
        try:
            if not place.exists():
                continue
            if base == Path.cwd() or place.resolve().is_relative_to(base.resolve()):
                return root / recorded if not Path(recorded).is_absolute() else place
        except OSError:  # a name too long, a folder that may not be read, links in a circle
            continue
    return None


def check_parts(folder: Path, parts: Iterable[str]) -> None:
    """Refuse a saved model whose files lead out of it: links, and adapters that make transformers open their base.

    Links of the hub's cache lead to its own files. Raises CheckpointError.
    """
    whole = folder.resolve()
    if whole.parent.name == "snapshots":
        whole = whole.parent.parent
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(whole):
            raise CheckpointError(f"{path} leads out of the folder, so it is not opened: put the file in its place")
    for part in parts:
        if (stray := folder / part / "adapter_config.json").exists():
            raise CheckpointError(
                f"{stray} would have another model loaded, the one that it names: remove it (adapters of an exported "
                "model lie in lora_weights/)"
            )
