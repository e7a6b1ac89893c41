"""Find the experiments and ablations below a root: map each name to its file, or to the cell of a grid.

YAML is read but not validated: 300 experiments must not cost 300 validations. A broken file raises only when its
experiment is requested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from panollava.config.ablations import ABLATIONS_FOLDER, Ablation, Cell, read_ablation
from panollava.config.dotted import value_at
from panollava.config.loading import DEFAULT_FILE, EXPERIMENTS_FOLDER, load_settings, merge, read_default, read_raw
from panollava.config.names import resolve_name
from panollava.config.schema import Settings
from panollava.errors import ConfigError

Source = Path | Cell
"""Where an experiment's settings are written: its own file, or a cell of an ablation."""

_NAMING = {"experiment", "models", "image_processing"}  # sections that a name can be composed of


class Sources:
    """The files of `root/config/experiments/` and `root/config/ablations/`, each read once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Names of all experiments whose file can be read."""
        return list(self._index[0])

    def ablations(self) -> list[str]:
        """Names of all ablations whose file can be read, sorted."""
        return sorted(self._ablations[0])

    def ablation(self, name: str) -> Ablation:
        """The ablation in config/ablations/NAME.yaml. Raises ConfigError: unknown (lists the choices), or broken."""
        found, broken = self._ablations
        if name in found:
            return found[name]
        for path, problem in broken.items():
            if path.stem == name:
                raise ConfigError(problem)
        raise ConfigError(
            f"there is no ablation {name} in {self.shown(self.root / ABLATIONS_FOLDER)}.{_nearest(name, found)} "
            f"Ablations: {', '.join(self.ablations()) or 'none'}"
        )

    def refuse_doubled(self, name: str) -> None:
        """Raise ConfigError, naming both files, where two of them give an experiment this name."""
        sources = self._index[0].get(name, [])
        if len(sources) > 1:
            listed = " and ".join(self.shown(file_of(source)) for source in sources)
            cells = any(isinstance(source, Cell) for source in sources)
            advice = f"experiment.name: {name}_2" + (", or another experiment_name of the ablation" if cells else "")
            raise ConfigError(f"{listed} both name the experiment {name}. Give one of them another name: {advice}")

    def source_of(self, name: str) -> Source:
        """Find the experiment of that name. Raises ConfigError: unknown (lists the choices), or named twice."""
        self.refuse_doubled(name)
        names, broken = self._index
        if name in names:
            return names[name][0]
        if not names and not (self.root / EXPERIMENTS_FOLDER).is_dir():
            raise ConfigError(
                f"there is no experiment {name}: {self.root.resolve()} holds no {EXPERIMENTS_FOLDER}. Run this in the "
                "project's root"
            )
        hint = self._file_called_otherwise(name) or _nearest(name, names)
        own = sorted(name for name, sources in names.items() if any(isinstance(source, Path) for source in sources))
        grids = [f"{name} ({len(grid.cells)} cells)" for name, grid in sorted(self._ablations[0].items())]
        choices = ", ".join(own) or "none"
        choices += f". Ablations: {', '.join(grids)}" if grids else ""
        unreadable = "".join(f"\n{problem}" for problem in broken.values())
        raise ConfigError(
            f"there is no experiment {name} in {self.shown(self.root / EXPERIMENTS_FOLDER)}.{hint} Experiments: "
            f"{choices}{unreadable}"
        )

    def _file_called_otherwise(self, name: str) -> str:
        """What to say of a file NAME.yaml whose experiment has another name; "" where there is no such file."""
        for called, sources in self._index[0].items():
            for path in sources:
                if isinstance(path, Path) and path.stem == name:
                    return f" {self.shown(path)} holds the experiment {called}: write experiment.name: {name} there."
        return ""

    @cached_property
    def _ablations(self) -> tuple[dict[str, Ablation], dict[Path, str]]:
        """Name -> ablation, and file -> error. Two files of one name hinder each other only."""
        found: dict[str, Ablation] = {}
        broken: dict[Path, str] = {}
        for path in _yaml_files(self.root / ABLATIONS_FOLDER):
            try:
                ablation = read_ablation(path, self.root)
                if path.stem in found:
                    raise ConfigError(
                        f"{self.shown(found.pop(path.stem).path)} and {self.shown(path)} are one ablation by name"
                    )
                found[path.stem] = ablation
            except ConfigError as error:
                broken[path] = str(error)
        return found, broken

    @cached_property
    def _index(self) -> tuple[dict[str, list[Source]], dict[Path, str]]:
        """Name -> sources, and file -> error."""
        names: dict[str, list[Source]] = {}
        broken: dict[Path, str] = {}
        schema = Settings().model_dump(include=_NAMING, exclude={"models": {"miniature"}})
        default = read_default(self.root)
        base = merge(schema, {key: value for key, value in default.file.values.items() if key in _NAMING})
        for path in _yaml_files(self.root / EXPERIMENTS_FOLDER):
            try:
                raw = read_raw(path, self.root)
                document = merge(base, {key: value for key, value in raw.file.values.items() if key in _NAMING})
                prefix = raw.prefix if raw.prefix is not None else default.prefix
                if document["experiment"]["name"] is None and not document["experiment"]["auto_name"]:
                    document["experiment"] = {**document["experiment"], "name": prefix}
                names.setdefault(resolve_name(document)[0], []).append(path)
            except ConfigError as error:
                shown = self.shown(path)
                broken[path] = str(error) if shown in str(error) else f"{shown}: {error}"
            except (TypeError, AttributeError, KeyError):  # a section of the wrong type: validation says which
                broken[path] = _error_of(path, self.root)
        ablations, broken_ablations = self._ablations
        for ablation in ablations.values():
            for cell in ablation.cells:
                names.setdefault(cell.name, []).append(cell)
        return names, broken | broken_ablations

    def values_of(self, key: str) -> list[Any]:
        """What default.yaml, the experiments' files and the cells give to a dotted key; unreadable files give none."""
        documents: list[Mapping[str, Any]] = []
        for path in (self.root / DEFAULT_FILE, *_yaml_files(self.root / EXPERIMENTS_FOLDER)):
            with suppress(ConfigError):
                documents += [read_raw(path, self.root).file.values] if path.is_file() else []
        documents += [cell.file.values for grid in self._ablations[0].values() for cell in grid.cells]
        found = []
        for document in documents:
            with suppress(KeyError, TypeError):  # it does not set the key, or a section is something else
                found.append(value_at(document, key))
        return found

    def shown(self, path: Path) -> str:
        """A path as messages name it: from the root."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def file_of(source: Source) -> Path:
    return source if isinstance(source, Path) else source.path


def _yaml_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("[!.]*.yaml"), *folder.glob("[!.]*.yml")])


def _error_of(path: Path, root: Path) -> str:
    try:
        load_settings(path, root)
    except ConfigError as error:
        return str(error)
    return f"{path}: cannot be named"
