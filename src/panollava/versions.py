"""Versions of what is installed: for metadata, metrics and the check of the environment."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution without importing it, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
