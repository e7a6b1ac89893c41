"""Digest a stage's backbones in local folders, before and after training.

Returns a digest by part, None for a hub id. A folder that is edited while its stage trains is an error: it would be
unknown which weights the stage was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from panollava.checkpoints.folder import METADATA
from panollava.config.fingerprints import folder_digest, folder_fingerprint
from panollava.errors import FileChanged, TrainingError
from panollava.models.stage_config import native_folders
from panollava.training.job import StageJob


def backbone_digests(job: StageJob) -> dict[str, str | None]:
    """`vision` and, but in the vision stage, `language` (of a native model `vlm`, `adapter`): `sha256_folder` of local
    folders.

    Raises FileChanged where a folder is not what the stage was planned with.
    """
    found: dict[str, str | None] = {}
    folders = {"vision": job.vision_folder, "language": job.language_folder}
    if job.config["models"].get("vlm_name") is not None:
        folders = native_folders(job.config, job.vlm_folder)
    elif job.stage == "vision":
        del folders["language"]
    for part, folder in folders.items():
        found[part] = folder_digest(folder, job.root) if folder else None
        planned = job.slice.get("inputs", {}).get(f"{part}_folder")
        if folder and planned is not None and folder_fingerprint(folder, job.root) != planned:
            raise FileChanged(folder)
    return found


def refuse_other_backbones(job: StageJob, metadata: Mapping[str, Any], digests: Mapping[str, str | None]) -> None:
    """Raise TrainingError where the stage before was trained upon other backbones than this one gets."""
    assert job.init_folder is not None
    for part, digest in digests.items():
        before = metadata.get("backbones", {}).get(part)
        if None not in (digest, before) and digest != before:
            raise TrainingError(
                f"{job.init_folder} was trained upon another {part} backbone than the one that is there now. Bring "
                f"that one back, or remove {job.init_folder / METADATA} and run the same command again, which trains "
                "it anew."
            )
