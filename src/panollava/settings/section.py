"""What every part of the schema is made of."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of the configuration: no unknown keys, strict types, never changed after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())
    inner: ClassVar[dict[str, type[Section]]] = {}
    """The sections below this one, by their keys; its other fields are settings."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        fields = {name: field.annotation for name, field in cls.model_fields.items()}
        cls.inner = {
            name: kind for name, kind in fields.items() if isinstance(kind, type) and issubclass(kind, Section)
        }


class Recorded(BaseModel):
    """Part of a JSON document read from a file: strict types, unknown keys ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, protected_namespaces=(), allow_inf_nan=False)


def key(default: Any, about: str | None, *, typical: str | None = None, **bounds: Any) -> Any:
    """A setting with its default, the comment that explains it, and its range."""
    return Field(default, description=about, json_schema_extra={"typical": typical}, **bounds)
