"""One experiment's configuration: settings, names, slices. What the command line, the API and the DAG hold.

It is loaded from a YAML file, by an experiment's name, or from a dictionary, and never changes; `with_…` returns
another one.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from panollava.config.ablations import ABLATIONS_FOLDER, read_ablation
from panollava.config.effective import effective_settings
from panollava.config.fingerprints import csv_fingerprint
from panollava.config.loading import load_settings, validate, with_values
from panollava.config.names import FALLBACK_NAME, SPLITS, ExperimentNames, resolve_name
from panollava.config.native import backbones_of
from panollava.config.schema import STAGES, SYNTHETIC, Settings
from panollava.config.yaml_file import YamlFile
from panollava.errors import ConfigError
from panollava.settings.wording import visible

if TYPE_CHECKING:
    from panollava.dag.slices import Slices

Split = Literal["train", "val", "test"]


class ConfigWarning(UserWarning):
    """A setting that is legal but deprecated or pointless."""


class WorkflowConfig:
    """A validated experiment.

    `settings` are the merged settings, `root` the project's root (relative paths start there), `source` the YAML file
    (None: from a dictionary), `warnings` what is reported to a user once.

    >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml")
    >>> cfg.settings.training.stage_configs.finetune.lr
    0.0005
    >>> cfg.names.stage_dir("finetune")
    'runs/EXP1/finetune/anyres-e2p_mlp'
    """

    def __init__(
        self,
        settings: Settings,
        root: str | Path = ".",
        source: Path | None = None,
        messages: Iterable[str] = (),
        fingerprints: dict[Any, Any] | None = None,
    ) -> None:
        self.settings, self.root, self.source = settings, Path(root), source
        self._messages = tuple(messages)
        self._fingerprints = {} if fingerprints is None else fingerprints  # shared by the experiments of a Project

    @classmethod
    def load(cls, path_or_name: str | Path, root: str | Path = ".", *, warn: bool = True) -> WorkflowConfig:
        """The experiment in a YAML file, or the one of that name below `root`. Raises ConfigError.

        With `warn`, each of its `warnings` is issued as a ConfigWarning too.
        """
        path = _as_path(path_or_name, Path(root))
        if path is None:
            from panollava.config.project import Project

            config = Project(root).experiment(str(path_or_name))
        elif path.parent.name == ABLATIONS_FOLDER.name:
            cells = [cell.name for cell in read_ablation(path, Path(root)).cells]
            listed = ", ".join(cells[:12]) + (", …" if len(cells) > 12 else "")
            raise ConfigError(f"{path} is an ablation of {len(cells)} experiments. Name one of them: {listed}")
        else:
            loaded = load_settings(path, Path(root))
            config = cls(loaded.settings, root, path, loaded.warnings)
        if warn:
            for message in config.warnings:
                warnings.warn(message, ConfigWarning, stacklevel=2)
        return config

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], root: str | Path = ".", source: Path | None = None
    ) -> WorkflowConfig:
        """The inverse of `to_dict`; missing keys get the schema's defaults. Raises ConfigError."""
        shown = str(source) if source else "configuration"
        return cls(validate(document, (YamlFile(shown),)), root, source)

    def to_dict(self) -> dict[str, Any]:
        """The merged configuration as plain values, in the schema's order: `config show`."""
        return self.settings.model_dump(mode="json")

    @cached_property
    def effective(self) -> dict[str, Any]:
        """The configuration as slices see it: what is computed filled in, what is switched off at its default."""
        return effective_settings(self.to_dict())

    @cached_property
    def _name(self) -> tuple[str, str]:
        """The experiment's name, and where it comes from."""
        return resolve_name(self.to_dict())

    @cached_property
    def names(self) -> ExperimentNames:
        csvs = {stage: self.csvs("train", stage) or self.csvs("test") for stage in STAGES}
        own = [(stage, split) for stage in STAGES for split in ("train", "val") if self._own_csv(split, stage)]
        return ExperimentNames.of(self.settings, self._name[0], csvs, frozenset(own))

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """Warnings to report once: deprecated keys, pointless settings, a missing name."""
        found = list(self._messages)
        if self._name[1] == "fallback":
            where = self.source.as_posix() if self.source else "configuration"
            found.append(f"{where}: experiment.name is not set, so the experiment is called {FALLBACK_NAME}")
        return tuple(found)

    def csvs(self, split: str, stage: str | None = None) -> list[str]:
        """The CSVs of a split as configured (`["synthetic"]` where the DAG draws them).

        `stage` asks for the stage's own data where it has some. Without csv_test, the test split is csv_val. An
        experiment without stages may have no training and no validation split: [].
        """
        return list(self.csvs_by_stage[split, stage])

    @cached_property
    def csvs_by_stage(self) -> dict[tuple[str, str | None], list[str]]:
        """The same for every split and stage."""
        found: dict[tuple[str, str | None], list[str]] = {}
        for split in SPLITS:
            for stage in (None, *STAGES):
                own = self._own_csv(split, stage) if stage else None
                value = own or getattr(self.settings.data, f"csv_{split}")
                if value is None and split == "test":
                    value = self.settings.data.csv_val
                found[split, stage] = [value] if isinstance(value, str) else list(value or ())
        return found

    @cached_property
    def backbones(self) -> dict[str, tuple[str, ...]]:
        """What each stage is built upon: "vision", "language"; of a native model "vlm", "adapter"."""
        return backbones_of(self.settings)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are configured: all three wherever something is trained."""
        return tuple(split for split in SPLITS if self.csvs(split))

    def missing_csvs(self) -> list[str]:
        """Configured files and folders of data that do not exist, as `key: path`: an error when the DAG is planned."""
        found: list[str] = []
        places: list[tuple[str, str, str | None]] = [(f"data.csv_{split}", split, None) for split in SPLITS]
        for name in self.settings.training.stages:
            places += [(f"training.stage_configs.{name}.data.csv_{split}", split, name) for split in ("train", "val")]
        for key, split, stage in places:
            if stage is None or self._own_csv(split, stage):
                files = [path for path in self.csvs(split, stage) if path != SYNTHETIC]
                found += [f"{key}: {path}" for path in files if not (self.root / path).exists()]
        return list(dict.fromkeys(found))

    def with_values(self, values: Mapping[str, Any], shown_as: str = "after the change") -> WorkflowConfig:
        """A copy with new values for dotted keys. Raises ConfigError, whose lines begin with `shown_as`.

        What does not depend on them keeps its digest, and so its results:

        >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml")
        >>> other = cfg.with_values({"training.stage_configs.finetune.lr": 1e-4})
        >>> [cfg.digest(node) == other.digest(node) for node in ("train_resampler", "train_finetune")]
        [True, False]
        """
        document = with_values(self.to_dict(), values)
        settings = validate(document, (YamlFile(shown_as),))
        return WorkflowConfig(settings, self.root, self.source, self._messages, self._fingerprints)

    def with_stages(self, stages: Sequence[str]) -> WorkflowConfig:
        """A copy that trains only `stages`. Raises ConfigError for a wrong order, repeats and an empty list.

        >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml")
        >>> cfg.with_stages(["resampler", "finetune"]).settings.training.stages
        ['resampler', 'finetune']
        """
        return self.with_values({"training.stages": stages if isinstance(stages, str) else list(stages)})

    def with_dataset(
        self,
        csv_train: str | Path | Sequence[str | Path] | None = None,
        csv_val: str | Path | Sequence[str | Path] | None = None,
        csv_test: str | Path | Sequence[str | Path] | None = None,
        dataset_name: str | None = None,
    ) -> WorkflowConfig:
        """A copy with other CSVs; splits that are not given stay. They replace the stages' own data too.

        The dataset's name in file names becomes `dataset_name`, else the stem of the new training CSV.

        >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml").with_dataset(csv_train=["a.csv", "b.csv"])
        >>> cfg.csvs("train"), cfg.csvs("val")
        (['a.csv', 'b.csv'], ['synthetic'])
        """
        values: dict[str, Any] = {}
        for split, given in (("train", csv_train), ("val", csv_val), ("test", csv_test)):
            if given is None:
                continue
            if not isinstance(given, (str, Path, Iterable)):
                raise TypeError(f"csv_{split} must be a path or a list of paths, got {given!r}")
            values[f"data.csv_{split}"] = (
                str(given) if isinstance(given, (str, Path)) else [str(path) for path in given]
            )
            if split != "test":
                values |= {f"training.stage_configs.{stage}.data.csv_{split}": None for stage in STAGES}
        if csv_train is not None or dataset_name is not None:
            values["data.dataset_name"] = dataset_name
        return self.with_values(values)

    @cached_property
    def slices(self) -> Slices:
        """What each node of the DAG depends on."""
        from panollava.dag.slices import Slices  # the DAG is above the configuration, and is asked for its users

        return Slices(self, self.names.own_data)

    def slice_of(self, node: str, stage: str | None = None) -> dict[str, Any]:
        """What a node of the DAG depends on; see `panollava.dag.slices`."""
        return self.slices.document(node, stage)

    def slice_json(self, node: str, stage: str | None = None) -> str:
        """The slice as canonical JSON: the one parameter of the node's rule."""
        return self.slices.text(node, stage)

    def digest(self, node: str, stage: str | None = None) -> str:
        """16 hexadecimal digits that name the slice."""
        return self.slices.digest(node, stage)

    def backbone_folder(self, part: str) -> str | None:
        """The local folder of `vision` or `language`: one that the DAG builds, one that the user gave; else None."""
        from panollava.dag.parents import backbone_folder

        return backbone_folder(self, part)

    def csv_key(self, split: str, stage: str | None = None) -> str:
        """`cache/csv/{key}/` holds the prepared CSV of a split."""
        return self.digest(f"prepare_{split}", stage)

    def views_key(self, split: str, stage: str | None = None) -> str:
        """`cache/views/{key}/` holds the rendered views of a split."""
        return self.digest(f"views_{split}", stage)

    def fingerprint_of_csv(self, path: str, key: str) -> dict[str, Any]:
        """`csv_fingerprint` of a configured CSV, computed once a process. `key` is the setting that names it."""
        columns = {name: to for name, to in self.settings.data.columns.model_dump().items() if to is not None}
        format = self.settings.data.format
        memo = ("csv", path, format, *sorted(columns.items()))
        if memo not in self._fingerprints:
            self._fingerprints[memo] = csv_fingerprint(path, self.root, columns, format=format, key=key)
        found: dict[str, Any] = self._fingerprints[memo]
        return found

    def has_own_csv(self, split: str, stage: str) -> bool:
        """Whether a stage has data of its own for a split, else it shares the experiment's."""
        return bool(self._own_csv(split, stage))

    def _own_csv(self, split: str, stage: str) -> str | list[str] | None:
        if split == "test":
            return None
        own: str | list[str] | None = getattr(getattr(self.settings.training.stage_configs, stage).data, f"csv_{split}")
        return own

    def __repr__(self) -> str:
        return f"WorkflowConfig({self.names.experiment!r}, source={str(self.source) if self.source else None!r})"


def _as_path(path_or_name: str | Path, root: Path) -> Path | None:
    """The file that is meant, or None where an experiment's name is meant."""
    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml") and len(path.parts) <= 1:
        return None
    candidates = [path] if path.is_absolute() else [path, root / path]
    for candidate in candidates:
        with suppress(OSError):  # a name too long
            if candidate.is_file():
                return candidate
    raise ConfigError(f"{visible(str(path))}: no such file. An experiment is given by its name or by its YAML's path")
