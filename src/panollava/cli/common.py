"""What the commands share."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


def load_experiment(name_or_path: str) -> WorkflowConfig:
    """The experiment of that name, or in that YAML; what its author should know goes to standard error."""
    from panollava.config import WorkflowConfig

    experiment = WorkflowConfig.load(name_or_path, ".", warn=False)
    for message in experiment.warnings:
        print(f"warning: {message}", file=sys.stderr)
    return experiment
