"""All experiments below one root, loaded when they are asked for.

An experiment is a file of its own or a cell of an ablation (`sources`). The Snakefile imports this: nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from panollava.config.ablations import Ablation, Cell
from panollava.config.command import SHOWN
from panollava.config.loading import Loaded, load_cell, load_settings, validate, with_values
from panollava.config.schema import PathSettings, Settings
from panollava.config.sources import Sources, file_of
from panollava.config.workflow_config import WorkflowConfig
from panollava.config.yaml_file import YamlFile
from panollava.errors import ConfigError


class Project:
    """The experiments of `root/config/experiments/` and the cells of `root/config/ablations/`, each loaded once.

    With a `snapshot`, its experiments, and no file is read. With an `overlay` (see `overlay`), one of them is changed.
    With `command`, settings by dotted key (see `command`), all are.
    """

    def __init__(
        self,
        root: str | Path = ".",
        snapshot: dict[str, Any] | None = None,
        overlay: dict[str, Any] | None = None,
        command: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = Path(root)
        self._sources = Sources(self.root)
        self._snapshot, self._overlay = snapshot, overlay
        self._command = dict(command or {})
        self._loaded: dict[str, WorkflowConfig] = {}
        self._written: dict[str, WorkflowConfig] = {}
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
        settings = load_settings(None, self.root).settings
        own = {key: value for key, value in self._command.items() if key.startswith(("paths.", "workflow."))}
        if not own:
            return settings
        return validate(with_values(settings.model_dump(mode="json"), own), (YamlFile(SHOWN),))

    @property
    def paths(self) -> PathSettings:
        return self.default.paths

    @property
    def default_experiments(self) -> list[str]:
        """The experiments that `snakemake --cores all` builds."""
        return list(self.default.workflow.experiments)

    def experiments(self) -> list[str]:
        """Names of all experiments whose file can be read, sorted."""
        changed = [self._overlay["resolved_name"]] if self._overlay is not None else []
        return sorted({*(self._sources.names() if self._snapshot is None else self._snapshot["experiments"]), *changed})

    def experiment(self, name: str) -> WorkflowConfig:
        """The experiment of that (resolved) name.

        Raises ConfigError: unknown (lists the choices), named by two files, or with errors in its file.
        """
        if name not in self._loaded:
            if self._overlay is not None and name == self._overlay["resolved_name"]:
                config = self._from_file(self._overlay["experiment"]).with_values(self._overlay["values"])
            elif self._snapshot is None:
                config = self._from_file(name)
            else:
                config = self._from_snapshot(name, self._snapshot)
            if self._command:
                config = self._with_command(name, config)
            self._check_paths(config)
            self._loaded[name] = config
        return self._loaded[name]

    def as_written(self, name: str) -> WorkflowConfig:
        """The same without what the command says. The experiment must have been asked for."""
        return self._written.get(name, self._loaded[name])

    def _with_command(self, name: str, written: WorkflowConfig) -> WorkflowConfig:
        self._written[name] = written
        changed = written.with_values(self._command, f"{name} with {SHOWN}")
        if (other := changed.names.experiment) != written.names.experiment:
            raise ConfigError(
                f"{SHOWN}: with these settings {name}, whose name is composed of them, would be called {other}. Give "
                f"it a name of its own (experiment.name), or write them into an experiment of their own"
            )
        return changed

    def _from_file(self, name: str) -> WorkflowConfig:
        source = self._sources.source_of(name)
        loaded = load_settings(source, self.root) if isinstance(source, Path) else self._load_cell(source)
        return WorkflowConfig(loaded.settings, self.root, file_of(source), loaded.warnings, self._fingerprints)

    def _from_snapshot(self, name: str, snapshot: dict[str, Any]) -> WorkflowConfig:
        if name not in snapshot["experiments"]:
            raise ConfigError(f"{name} is not among the experiments of the snapshot: {', '.join(self.experiments())}")
        settings = validate(snapshot["experiments"][name], (YamlFile(f"the snapshot of {name}"),))
        return WorkflowConfig(settings, self.root, fingerprints=self._fingerprints)

    def values_of(self, key: str) -> list[Any]:
        """All values that the project's files give to a dotted key: default.yaml, experiments, cells of ablations.

        As they are written, not validated; a file that cannot be read gives none.
        """
        return self._sources.values_of(key)

    @property
    def loaded(self) -> dict[str, WorkflowConfig]:
        """The experiments that were asked for so far, by name."""
        return dict(self._loaded)

    def ablations(self) -> list[str]:
        """Names of all ablations whose file can be read, sorted."""
        return self._sources.ablations()

    def ablation(self, name: str) -> Ablation:
        """The ablation in config/ablations/NAME.yaml. Raises ConfigError: unknown (lists the choices), or broken."""
        return self._sources.ablation(name)

    def refuse_doubled(self, name: str) -> None:
        """Raise ConfigError, naming both files, where two of them give an experiment this name."""
        self._sources.refuse_doubled(name)

    def cells(self, ablation: Ablation) -> list[WorkflowConfig]:
        """The ablation's experiments. Raises one ConfigError with the errors of all of them, each once."""
        configs: list[WorkflowConfig] = []
        problems: dict[str, None] = {}
        for cell in ablation.cells:
            try:
                configs.append(self.experiment(cell.name))
            except ConfigError as error:
                problems |= dict.fromkeys(str(error).splitlines())
        if problems:
            raise ConfigError("\n".join(problems))
        return configs

    def _load_cell(self, cell: Cell) -> Loaded:
        base = None
        if cell.base is not None:
            try:
                source = self._sources.source_of(cell.base)
            except ConfigError as error:
                raise ConfigError(f"{cell.file.where('base')}: base: {error}") from None
            if isinstance(source, Cell):
                raise ConfigError(
                    f"{cell.file.where('base')}: base must be an experiment with a file of its own, got {cell.base}, a "
                    f"cell of {source.file.path}"
                )
            base = source
        return load_cell(cell, base, self.root)

    def _check_paths(self, config: WorkflowConfig) -> None:
        """The DAG's files lie where default.yaml says; an experiment cannot move its own."""
        for key in ("runs_dir", "results_dir", "logs_dir", "image_cache"):
            own, shared = getattr(config.settings.paths, key), getattr(self.paths, key)
            if own != shared:
                source = self._sources.shown(config.source) if config.source else "configuration"
                raise ConfigError(
                    f"{source}: paths.{key} belongs in config/default.yaml, because all experiments share one DAG, got "
                    f"{own!r} (there: {shared!r})"
                )
