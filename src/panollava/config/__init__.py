"""Configuration: schema, loading, names, slices. Imports neither torch nor pandas nor numpy."""

from panollava.config.names import ExperimentNames
from panollava.config.project import Project
from panollava.config.schema import Settings
from panollava.config.workflow_config import ConfigWarning, WorkflowConfig
from panollava.errors import ConfigError

__all__ = ["ConfigError", "ConfigWarning", "ExperimentNames", "Project", "Settings", "WorkflowConfig"]
