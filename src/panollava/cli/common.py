"""What the commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from panollava.errors import ConfigError

if TYPE_CHECKING:
    from panollava.config import Project, WorkflowConfig

AnsweringStage = Literal["resampler", "finetune"]
"""The stages that have a language model."""


def load_experiment(name_or_path: str) -> WorkflowConfig:
    """The experiment of that name, or in that YAML; what its author should know goes to standard error."""
    from panollava.config import WorkflowConfig

    experiment = WorkflowConfig.load(name_or_path, ".", warn=False)
    for message in experiment.warnings:
        print(f"warning: {message}", file=sys.stderr)
    return experiment


def ablation_named(project: Project, word: str) -> str | None:
    """The ablation that a word means, by its name or its file; an experiment of that name comes first."""
    path = Path(word)
    if path.suffix in (".yaml", ".yml"):
        return path.stem if path.parent.name == "ablations" else None
    return word if word in project.ablations() and word not in project.experiments() else None


def custom_metrics_of(text: str | None) -> list[str] | None:
    """`module:function,module:function` as a list; None where the option is not given. Raises ConfigError."""
    if text is None:
        return None
    from panollava.settings.values import custom_metric

    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        try:
            custom_metric(name)
        except ValueError as error:
            raise ConfigError(f"--custom-metrics {error}") from None
    return names


def image_cache_of(root: Path) -> Path:
    """The folder of downloaded images: the project's where `root` is one, else below `root`."""
    project = _project_of(root)
    return root / (project.paths.image_cache if project else "cache/images")


def results_dir_of(root: Path) -> Path:
    """The folder of results, relative to `root`: the project's where `root` is one."""
    project = _project_of(root)
    return Path(project.paths.results_dir if project else "results")


def _project_of(root: Path) -> Project | None:
    if not (root / "config/default.yaml").is_file():
        return None
    from panollava.config import Project

    return Project(root)
