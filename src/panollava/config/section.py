"""What every part of the schema is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the configuration: no unknown keys, strict types, never changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


def key(default: Any, about: str, *, typical: str | None = None, **bounds: Any) -> Any:
    """A setting with its default, the comment that explains it, and its range."""
    return Field(default, description=about, json_schema_extra={"typical": typical}, **bounds)
