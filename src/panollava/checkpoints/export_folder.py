"""The folder that `export` writes: it takes an earlier export's place and touches nothing that anybody else put there.

Each export lists the files that it wrote (`.panollava_export.json`: size and, of small ones, digest). A later one
replaces these, where they are still as they were written, and leaves all others (`.git`, notes) alone; an edited one is
somebody's work, so the folder is refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from panollava.errors import ConfigError
from panollava.files import atomic_dir, read_json, sha256_file, write_json

MANIFEST = ".panollava_export.json"
_SMALL_BYTES = 16 << 20  # what people edit; of larger files, weights, the size is compared
_SHOWN = 5


@contextmanager
def export_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder whose files take their places in `output` when the block ends without an error.

    Raises ConfigError, before the block and again after it, where a file of somebody else's would be lost.
    """
    before = _replaceable(output)
    written = output.with_name(f".{output.name}.new")
    with atomic_dir(written) as partial:
        yield partial
        files = _files(partial)
        write_json(partial / MANIFEST, {"files": files})
    try:
        before = _replaceable(output)  # somebody may have worked there meanwhile
        if taken := sorted(name for name in files if name not in before and os.path.lexists(output / name)):
            raise ConfigError(_refusal(output, f"{_listed(taken)} there, which no export wrote"))
        _take_places(written, output, files, before)
    finally:
        shutil.rmtree(written, ignore_errors=True)


def _replaceable(output: Path) -> dict[str, Any]:
    """What an earlier export wrote there, by path. ConfigError where nothing says so, or some of it was edited."""
    if not output.is_dir():
        if os.path.lexists(output):
            raise ConfigError(f"{output} is no folder: name a new or an empty one")
        return {}
    if not (output / MANIFEST).is_file():
        if any(output.iterdir()):
            raise ConfigError(_refusal(output, "no list of what an earlier export wrote"))
        return {}
    try:
        listed = read_json(output / MANIFEST)["files"]
        files = {
            str(name): {"size": int(entry["size"]), "sha256": entry.get("sha256")} for name, entry in listed.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(_refusal(output, f"a {MANIFEST} that cannot be read")) from error
    if away := [name for name in files if os.path.isabs(name) or ".." in Path(name).parts]:
        raise ConfigError(_refusal(output, f"a {MANIFEST} that names {_listed(away)}"))
    edited = sorted(name for name in files if (output / name).is_file() and _entry(output / name) != files[name])
    if edited:
        raise ConfigError(_refusal(output, f"{_listed(edited)}, edited after the export"))
    return files


def _take_places(written: Path, output: Path, files: dict[str, Any], before: dict[str, Any]) -> None:
    """Move the new files in. Killed in between, the folder's list names the old and the new ones, and a later export
    goes on; config.json comes last, so that half an export is no model."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").unlink(missing_ok=True)
    for name in before:
        (output / name).unlink(missing_ok=True)
    write_json(output / MANIFEST, {"files": files})
    for name in sorted(files, key=lambda name: name == "config.json"):
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(written / name, target)
    for folder in sorted({(output / name).parent for name in before}, reverse=True):
        if folder != output and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _files(folder: Path) -> dict[str, Any]:
    return {path.relative_to(folder).as_posix(): _entry(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _entry(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"size": size, "sha256": sha256_file(path) if size <= _SMALL_BYTES else None}


def _refusal(output: Path, found: str) -> str:
    return f"{output} holds other files ({found}): name a new or an empty folder, or move them away"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
