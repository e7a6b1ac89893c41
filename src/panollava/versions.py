"""Versions of what is installed: for metadata, metrics and the check of the environment."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def package_version(distribution: str) -> str | None:
    """Version of an installed distribution without importing it, or None."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def package_versions() -> dict[str, str | None]:
    """Versions of panollava and of the libraries that its results depend on."""
    return {name: package_version(name) for name in ("torch", "transformers", "peft", "lightning", "panollava")}
