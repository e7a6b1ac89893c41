"""All experiments below one root: found by their resolved names, loaded when they are asked for.

Enters: the project's root. Leaves: names, `WorkflowConfig`s, and the slice behind a key of the shared caches. A
broken file hinders nobody but those who ask for it. The Snakefile imports this: nothing heavy.
"""

from __future__ import annotations

from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from panollava.config.loading import EXPERIMENTS_FOLDER, load_settings, merge, read_default, read_raw, validate
from panollava.config.names import resolve_name
from panollava.config.schema import PathSettings, Settings
from panollava.config.slices import canonical
from panollava.config.workflow_config import WorkflowConfig
from panollava.config.yaml_file import YamlFile
from panollava.errors import ConfigError

KINDS = {
    "synthetic": ("synthetic",),
    "miniature_vision": ("miniature_vision",),
    "miniature_language": ("miniature_language",),
    "csv": ("prepare_train", "prepare_val", "prepare_test"),
    "views": ("views_train", "views_val", "views_test"),
}
"""Folders of the shared cache and the nodes whose keys name them."""


class Project:
    """The experiments of `root/config/experiments/`, each loaded once; or those of a `snapshot`, no file read."""

    def __init__(self, root: str | Path = ".", snapshot: dict[str, Any] | None = None) -> None:
        self.root = Path(root)
        self._snapshot = snapshot
        self._loaded: dict[str, WorkflowConfig] = {}
        self._slices: dict[tuple[str, str], dict[str, Any]] = {}
        self._fingerprints: dict[Any, Any] = {}
        if snapshot is not None:
            self._fingerprints = {tuple(memo): found for memo, found in snapshot["fingerprints"]}

    def snapshot(self) -> dict[str, Any]:
        """All that was loaded so far, as one JSON document: `Project(root, snapshot)` gives the same slices later."""
        return {
            "default": self.default.model_dump(mode="json"),
            "experiments": {name: config.to_dict() for name, config in self._loaded.items()},
            "fingerprints": [[list(memo), found] for memo, found in self._fingerprints.items()],
        }

    @cached_property
    def default(self) -> Settings:
        """default.yaml alone: what belongs to the whole project. Raises ConfigError."""
        if self._snapshot is not None:
            return validate(self._snapshot["default"], (YamlFile("the snapshot"),))
        return load_settings(None, self.root).settings

    @property
    def paths(self) -> PathSettings:
        return self.default.paths

    @property
    def default_experiments(self) -> list[str]:
        """The experiments that `snakemake --cores all` builds."""
        return list(self.default.workflow.experiments)

    def experiments(self) -> list[str]:
        """Names of all experiments whose file can be read, sorted."""
        return sorted(self._index[0] if self._snapshot is None else self._snapshot["experiments"])

    def experiment(self, name: str) -> WorkflowConfig:
        """The experiment of that (resolved) name.

        Raises ConfigError: unknown (lists the choices), named by two files, or with errors in its file.
        """
        if name not in self._loaded:
            config = self._from_file(name) if self._snapshot is None else self._from_snapshot(name, self._snapshot)
            self._check_paths(config)
            self._loaded[name] = config
        return self._loaded[name]

    def _from_file(self, name: str) -> WorkflowConfig:
        path = self._path_of(name)
        loaded = load_settings(path, self.root)
        return WorkflowConfig(loaded.settings, self.root, path, loaded.warnings, self._fingerprints)

    def _from_snapshot(self, name: str, snapshot: dict[str, Any]) -> WorkflowConfig:
        if name not in snapshot["experiments"]:
            raise ConfigError(f"{name} is not among the experiments of the snapshot: {', '.join(self.experiments())}")
        settings = validate(snapshot["experiments"][name], (YamlFile(f"the snapshot of {name}"),))
        return WorkflowConfig(settings, self.root, fingerprints=self._fingerprints)

    def slice_by_key(self, kind: str, key: str) -> dict[str, Any]:
        """The slice whose digest is `key`, for a folder of the shared cache (`csv`, `views`, …). Raises ConfigError."""
        if (kind, key) not in self._slices:
            self._find_slice(kind, key)
        return self._slices[kind, key]

    def slice_json_by_key(self, kind: str, key: str) -> str:
        return canonical(self.slice_by_key(kind, key))

    def _find_slice(self, kind: str, key: str) -> None:
        """Look at what is loaded first, then at everything else; remember all that is seen."""
        problems: list[str] = []
        for name in [*self._loaded, *(name for name in self.experiments() if name not in self._loaded)]:
            try:
                config = self.experiment(name)
            except ConfigError as error:
                problems.append(str(error))
                continue
            for node in KINDS[kind]:
                stages = [None, *config.settings.training.stages] if kind in ("csv", "views") else [None]
                for stage in stages:
                    try:
                        self._slices.setdefault((kind, config.digest(node, stage)), config.slice_of(node, stage))
                    except ConfigError as error:
                        problems.append(str(error))
            if (kind, key) in self._slices:
                return
        more = "".join(f"\n{problem}" for problem in dict.fromkeys(problems))
        raise ConfigError(f"no experiment has a {kind} cache with the key {key}{more}")

    def _path_of(self, name: str) -> Path:
        names, broken = self._index
        paths = names.get(name, [])
        if len(paths) == 1:
            return paths[0]
        if len(paths) > 1:
            listed = " and ".join(self._shown(path) for path in paths)
            raise ConfigError(
                f"{listed} both name the experiment {name}. Give one of them another name: experiment.name: {name}_2"
            )
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        choices = ", ".join(self.experiments()) or "none"
        unreadable = "".join(f"\n{problem}" for problem in broken.values())
        raise ConfigError(
            f"there is no experiment {name} in {self._shown(self.root / EXPERIMENTS_FOLDER)}.{hint} Experiments: "
            f"{choices}{unreadable}"
        )

    @cached_property
    def _index(self) -> tuple[dict[str, list[Path]], dict[Path, str]]:
        """Name -> files, and file -> error. Reads the YAML only: 300 experiments must not cost 300 validations."""
        names: dict[str, list[Path]] = {}
        broken: dict[Path, str] = {}
        folder = self.root / EXPERIMENTS_FOLDER
        schema = Settings().model_dump(include=_NAMING, exclude={"models": {"miniature"}})
        default = read_default(self.root)
        base = merge(schema, {key: value for key, value in default.file.values.items() if key in _NAMING})
        for path in sorted([*folder.glob("[!.]*.yaml"), *folder.glob("[!.]*.yml")]):
            try:
                raw = read_raw(path, self.root)
                document = merge(base, {key: value for key, value in raw.file.values.items() if key in _NAMING})
                prefix = raw.prefix if raw.prefix is not None else default.prefix
                if document["experiment"]["name"] is None and not document["experiment"]["auto_name"]:
                    document["experiment"]["name"] = prefix
                names.setdefault(resolve_name(document)[0], []).append(path)
            except ConfigError as error:
                broken[path] = str(error)
            except (TypeError, AttributeError, KeyError):  # a section of the wrong type: validation says which
                broken[path] = _error_of(path, self.root)
        return names, broken

    def _check_paths(self, config: WorkflowConfig) -> None:
        """The DAG's files lie where default.yaml says; an experiment cannot move its own."""
        for key in ("runs_dir", "results_dir", "logs_dir", "image_cache"):
            own, shared = getattr(config.settings.paths, key), getattr(self.paths, key)
            if own != shared:
                source = self._shown(config.source) if config.source else "configuration"
                raise ConfigError(
                    f"{source}: paths.{key} belongs in config/default.yaml, because all experiments share one DAG, got "
                    f"{own!r} (there: {shared!r})"
                )

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else path.as_posix()


_NAMING = {"experiment", "models", "image_processing"}


def _error_of(path: Path, root: Path) -> str:
    try:
        load_settings(path, root)
    except ConfigError as error:
        return str(error)
    return f"{path}: cannot be named"
