"""How a panorama becomes the pixels of its views: one value that all who open panoramas pass on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from panollava.views.strategies import Level

Renderer = Literal["panollava", "py360convert"]


@dataclass(frozen=True)
class Rendering:
    """How a panorama becomes views: who cuts perspective ones, whether anti-aliased, and the pose that is taken out.

    `level` ("auto", "off") and `north` are those of `load_panorama`.
    """

    antialias: bool = True
    level: Level = "auto"
    north: bool = False
    renderer: Renderer = "panollava"

    @property
    def pose(self) -> dict[str, Any]:
        """`load_panorama`'s arguments."""
        return {"level": self.level, "north": self.north}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Rendering:
        """From the keys of `to_json` in a larger document; those that older files lack have their defaults."""
        return cls(**{key: document[key] for key in (field.name for field in fields(cls)) if key in document})


DEFAULT_RENDERING = Rendering()
