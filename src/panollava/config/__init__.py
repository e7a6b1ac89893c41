"""Configuration: schema, loading, names, slices. Imports neither torch nor pandas nor numpy.

The package's own names are loaded when they are first used: pydantic and the schema take longer than many a command.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from panollava.errors import ConfigError

if TYPE_CHECKING:
    from panollava.config.names import ExperimentNames
    from panollava.config.project import Project
    from panollava.config.schema import Settings
    from panollava.config.workflow_config import ConfigWarning, WorkflowConfig

__all__ = ["ConfigError", "ConfigWarning", "ExperimentNames", "Project", "Settings", "WorkflowConfig"]

_MODULES = {
    "ConfigWarning": "panollava.config.workflow_config",
    "ExperimentNames": "panollava.config.names",
    "Project": "panollava.config.project",
    "Settings": "panollava.config.schema",
    "WorkflowConfig": "panollava.config.workflow_config",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
