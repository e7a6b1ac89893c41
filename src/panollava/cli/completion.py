"""What the shell completes: names of experiments, ablations and models of the zoo. Never an error, nothing heavy."""

from __future__ import annotations

from panollava.errors import PanollavaError


def experiments(incomplete: str) -> list[str]:
    """Experiments of the working folder's project."""
    return _beginning(incomplete, ablations=False)


def targets(incomplete: str) -> list[str]:
    """Experiments and ablations."""
    return _beginning(incomplete, ablations=True)


def models(incomplete: str) -> list[str]:
    """Short names of the zoo."""
    from panollava.zoo import zoo

    return [row.name for row in zoo() if row.name.startswith(incomplete)]


def _beginning(incomplete: str, ablations: bool) -> list[str]:
    from panollava.config import Project

    try:
        project = Project(".")
        found = project.experiments() + (project.ablations() if ablations else [])
    except (PanollavaError, OSError):
        return []
    return sorted({name for name in found if name.startswith(incomplete)})
