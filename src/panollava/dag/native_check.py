"""Check whether a native model can be used, while the DAG is planned and before any job. Needs no weights, and no torch
for families of the table.

Raises ConfigError with what an experiment's model or this installation lacks. Of a model on the hub only what is known
without a download is checked here; the first job that opens it checks the rest.
"""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

from panollava.errors import ConfigError
from panollava.extras import install
from panollava.files import read_json
from panollava.models.native_families import NATIVE_FAMILIES
from panollava.views.strategies import plan_views

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

OLDEST_TRANSFORMERS = "5.18"
"""The first that takes image features which were computed before."""
_CHECKED: dict[tuple[Any, ...], None] = {}


def check_native(cfg: WorkflowConfig, folder: str | None) -> None:
    """Raise ConfigError where `models.vlm_name` cannot be used. `folder` is a local model's, None for the hub's."""
    settings = cfg.settings
    name, source = settings.models.vlm_name, f"{cfg.source}: " if cfg.source else ""
    if find_spec("torchvision") is None:
        raise ConfigError(
            f"{source}models.vlm_name: {name} needs the package torchvision, for the processors of its families: "
            f"{install('native')}"
        )
    if Version(found := version("transformers")) < Version(OLDEST_TRANSFORMERS):
        raise ConfigError(
            f"{source}models.vlm_name: {name} needs transformers {OLDEST_TRANSFORMERS} or later, whose models take "
            f"features that were computed before; {found} is installed: {install('native', upgrade=True)}"
        )
    if settings.models.quantization is not None and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"{source}models.quantization: {settings.models.quantization} needs the package bitsandbytes: "
            f"{install('quant')}"
        )
    if folder is None or not (path := cfg.root / folder / "config.json").is_file():
        return
    images = settings.image_processing
    key = (path.resolve(), path.stat().st_mtime_ns, images.model_dump_json(), settings.system_messages.default)
    if key not in _CHECKED:
        _check_folder(cfg, path, source)
        _CHECKED[key] = None


def _check_folder(cfg: WorkflowConfig, path: Path, source: str) -> None:
    name, images = cfg.settings.models.vlm_name, cfg.settings.image_processing
    document = read_json(path)
    model_type = document.get("model_type") if isinstance(document, dict) else None
    family = NATIVE_FAMILIES.get(str(model_type))
    if family is None:
        from panollava.models.native_probe import probe_native  # torch: only where nothing else can tell

        probe_native(cfg.effective, path.parent)
        return
    if family.refused is not None:
        raise ConfigError(f"{source}models.vlm_name: {name} ({family.name}) cannot be used: {family.refused}")
    views = plan_views(
        images.crop_strategy, fov_deg=images.fov_deg, overlap_ratio=images.overlap_ratio,
        anyres_max_patches=images.anyres_max_patches, cubemap_poles=images.cubemap_poles,
    )  # fmt: skip
    if len(views) < family.fewest_views:
        raise ConfigError(
            f"{source}image_processing.crop_strategy: {images.crop_strategy} gives {len(views)} view, which "
            f"{family.name} would cut into tiles: choose one with at least {family.fewest_views} views"
        )
    stated, asked = (document.get("vision_config") or {}).get("image_size"), images.image_size
    if not family.any_size and stated is not None and asked is not None:
        fixed, wanted = _pair(stated), _pair(asked)
        if fixed != wanted:
            raise ConfigError(
                f"{source}image_processing.image_size: {list(wanted)} does not fit {name}, whose vision tower takes "
                f"{list(fixed)} alone: leave it unset"
            )


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))
