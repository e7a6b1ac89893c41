"""How the optional packages come: panollava is on no index, so its extras are installed from its checkout."""

from __future__ import annotations


def install(extra: str, *, upgrade: bool = False) -> str:
    """The command that installs an extra of pyproject.toml, to be run in panollava's checkout.

    >>> install("serve")
    "pip install -e '.[serve]' (in panollava's checkout)"
    """
    return f"pip install {'-U ' if upgrade else ''}-e '.[{extra}]' (in panollava's checkout)"
