"""Validated `Settings` from default.yaml and an experiment's YAML, and what the user should be warned of.

Order: read both files, give legacy keys their names of today, merge (mappings key by key, everything else
replaced), validate, check settings against each other. All errors of a file are reported together, one a line.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from panollava.config.checks import cross_errors, cross_warnings
from panollava.config.dotted import plain_copy, set_at
from panollava.config.legacy import move_legacy_keys, replaced_key
from panollava.config.messages import describe_errors
from panollava.config.native import without_composition
from panollava.config.schema import KEYS, Section, Settings
from panollava.config.yaml_file import YamlFile, read_yaml
from panollava.errors import ConfigError
from panollava.settings.wording import shown

if TYPE_CHECKING:
    from panollava.config.ablations import Cell

DEFAULT_FILE = Path("config/default.yaml")
EXPERIMENTS_FOLDER = Path("config/experiments")


@dataclass(frozen=True)
class Loaded:
    """The outcome: settings, warnings, and the keys that the experiment's own file sets."""

    settings: Settings
    warnings: tuple[str, ...]
    written: frozenset[str]


@dataclass(frozen=True)
class RawFile:
    """A YAML file under today's keys; `prefix` is the legacy `training.prefix`."""

    file: YamlFile
    prefix: str | None
    warnings: tuple[str, ...]


def read_raw(path: Path, root: Path) -> RawFile:
    """Read one file and move its legacy keys. Raises ConfigError for YAML that cannot be read."""
    file = read_yaml(path, shown_path(path, root))
    prefix, warnings = move_legacy_keys(file)
    return RawFile(file, prefix, tuple(warnings))


def read_default(root: Path, beside: Path | None = None) -> RawFile:
    """default.yaml: the one above the experiment's own folder, else the root's, else nothing (the schema's)."""
    candidates = [beside.parent.parent / DEFAULT_FILE.name] if beside else []
    for path in [*candidates, root / DEFAULT_FILE]:
        if path.is_file():
            stat = path.stat()
            return _read_default(path, root, (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return RawFile(YamlFile(DEFAULT_FILE.as_posix()), None, ())


@lru_cache(maxsize=8)
def _read_default(path: Path, root: Path, stat: tuple[int, ...]) -> RawFile:
    return read_raw(path, root)


def load_settings(path: Path | None, root: Path) -> Loaded:
    """Merge and validate the experiment in `path` (None: default.yaml alone). Raises ConfigError."""
    default = read_default(root, path)
    of_its_own = path is not None and shown_path(path, root) != default.file.path
    own = read_raw(path, root) if path and of_its_own else RawFile(YamlFile(default.file.path), None, ())
    prefix = own.prefix if own.prefix is not None else default.prefix
    merged = merge(default.file.values, own.file.values)
    experiment = merged.get("experiment")
    if prefix is not None and (experiment is None or isinstance(experiment, dict)):
        experiment = merged["experiment"] = dict(experiment or {})
        if experiment.get("name") is None and experiment.get("auto_name") is not True:
            experiment["name"] = prefix
            own.file.lines.setdefault("experiment.name", own.file.lines.get("training.prefix", 1))
            own.file.written["experiment.name"] = own.file.written.get("training.prefix", str(prefix))
    errors = _misplaced(own.file, default.file)
    return _loaded(merged, (own, default), errors)


def load_cell(cell: Cell, base: Path | None, root: Path) -> Loaded:
    """Merge and validate a cell of an ablation: its settings over those of the experiment in `base` (None: of none).

    Raises ConfigError.
    """
    default = read_default(root, cell.path)
    between = [read_raw(base, root)] if base else []
    merged = default.file.values
    for file in (*(raw.file for raw in between), cell.file):
        merged = merge(merged, file.values)
    own = cell.file.values.get("experiment", {})
    about = f"A cell of {cell.file.path}"
    merged["experiment"] = {"name": cell.name, "description": own.get("description") or about}
    return _loaded(merged, (RawFile(cell.file, None, ()), *between, default))


def _loaded(merged: Mapping[str, Any], layers: Sequence[RawFile], errors: list[str] | None = None) -> Loaded:
    """Validate; `layers` are the files that were merged, the experiment's own first."""
    files = tuple(layer.file for layer in layers)
    written = frozenset(files[0].lines)
    own = frozenset(key for file in files[:-1] for key in file.lines) if len(files) > 1 else written
    settings = validate(without_composition(merged, own), files, errors, own)
    warnings = [text for layer in reversed(layers) for text in layer.warnings]
    warnings += [f"{_where(key, files)}: {key} {text}" for key, text in cross_warnings(settings, written)]
    return Loaded(settings, tuple(warnings), written)


def validate(
    document: Mapping[str, Any],
    files: tuple[YamlFile, ...],
    errors: list[str] | None = None,
    written: Collection[str] = (),
) -> Settings:
    """Settings from a merged document. Raises ConfigError with one line per error, each with its file and line.

    `written` are the keys that the experiment itself sets, where that is known.
    """
    found = list(errors or [])
    try:
        settings = Settings.model_validate(document)
    except ValidationError as error:
        written = {key: text for file in reversed(files) for key, text in file.written.items()}
        for key, message in describe_errors(error, written).items():
            found.append(f"{_where(key, files)}: {replaced_key(key) or message}")
        raise ConfigError("\n".join(found)) from None
    found += [f"{_where(key, files)}: {key} {message}" for key, message in cross_errors(settings, written)]
    if found:
        raise ConfigError("\n".join(found))
    return settings


def merge(base: Mapping[str, Any], over: Mapping[str, Any], section: type[Section] | None = Settings) -> dict[str, Any]:
    """`over` on top of `base`. A section that is left empty (`data:` with nothing below) changes nothing.

    Neither of the two is changed; values that the result shares with them must not be changed either.
    """
    sections = section.inner if section else {}
    merged = dict(base)
    for name, value in over.items():
        inner = sections.get(name)
        if inner is not None and value is None:
            continue
        if isinstance(value, Mapping) and (inner is not None or isinstance(merged.get(name), Mapping)):
            below = merged.get(name)
            merged[name] = merge(below if isinstance(below, Mapping) else {}, value, inner)
        else:
            merged[name] = value
    return {name: value for name, value in merged.items() if value is not None or name not in sections}


def with_values(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `document` in which each dotted key has its new value."""
    changed: dict[str, Any] = plain_copy(document)
    for dotted, value in values.items():
        set_at(changed, dotted, value)
    return changed


def changed_settings(one: Settings, other: Settings) -> dict[str, tuple[Any, Any]]:
    """The dotted keys on which two configurations differ, in the order of the schema, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in KEYS:
        values = attrgetter(key)(one), attrgetter(key)(other)
        if values[0] != values[1]:
            found[key] = values
    return found


def _misplaced(own: YamlFile, default: YamlFile) -> list[str]:
    """Settings of the whole project in an experiment's file."""
    if own.path == default.path or "workflow" not in own.values:
        return []
    values = own.values["workflow"]
    names = " and ".join(f"workflow.{name}" for name in values) if isinstance(values, dict) and values else "workflow"
    return [
        f"{own.where('workflow')}: {names} belongs in {default.path}, because it concerns the whole project, got "
        f"{shown(values)}"
    ]


def _where(key: str, files: tuple[YamlFile, ...]) -> str:
    """The file and line that set `key`: the experiment's before default.yaml's."""
    for file in files:
        if key in file.lines:
            return f"{file.path}:{file.lines[key]}"
    for file in files:
        if (line := file.line_of(key)) is not None:
            return f"{file.path}:{line}"
    return files[0].path


def shown_path(path: Path, root: Path) -> str:
    for absolute in (os.path.abspath, os.path.realpath):  # realpath, unlike resolve(), does not mind links in a circle
        with suppress(ValueError):
            return Path(absolute(path)).relative_to(absolute(root)).as_posix()
    return path.as_posix()
