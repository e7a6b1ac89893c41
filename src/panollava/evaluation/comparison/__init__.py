"""Experiments side by side: what they scored, whether they differ, and what they answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

VERSION = 1
"""Raise it when the meaning of comparison.csv or comparison.html changes: the DAG then makes them again."""


def comparison_slice(experiments: Sequence[WorkflowConfig]) -> dict[str, Any]:
    """What the comparison depends on: the digest of each experiment's metrics."""
    upstream = {one.names.experiment: one.digest("metrics") for one in experiments}
    return {"node": "compare", "code_version": VERSION, "upstream": upstream}
