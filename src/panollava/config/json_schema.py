"""The schema enters, `config/schema.json` leaves: completion and checks while an experiment's YAML is being written.

    python -m panollava.config.json_schema > config/schema.json

after a key was added; a test compares the file with the schema. Editors that speak JSON Schema (draft 2020-12) use it
where a YAML begins with

    # yaml-language-server: $schema=../schema.json

It knows keys, types, ranges and choices. What needs two keys at once, or the data, is checked when panollava loads the
file.
"""

from __future__ import annotations

import json
import sys
from typing import Any, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo

from panollava.config.legacy import MOVED, PREFIX
from panollava.config.schema import (
    NAME_MAX_LENGTH,
    NAME_PATTERN,
    STAGES,
    ExtraName,
    MetricName,
    Section,
    Settings,
    section_of,
)

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_BOUNDS = {Ge: ("minimum", "ge"), Gt: ("exclusiveMinimum", "gt"), Le: ("maximum", "le"), Lt: ("exclusiveMaximum", "lt")}
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
_SIDE = {"type": "integer", "minimum": 8, "maximum": 4096}
# Values whose own validators take more, or less, than their type says.
_SPECIAL: dict[str, dict[str, Any]] = {
    "experiment.name": {
        "anyOf": [
            {"type": "string", "pattern": f"^{NAME_PATTERN.pattern}$", "maxLength": NAME_MAX_LENGTH},
            {"type": "null"},
        ]
    },
    "image_processing.image_size": {
        "anyOf": [
            {"type": "integer", "minimum": 8, "maximum": 4096},
            {
                "type": "array",
                "items": {"type": "integer", "minimum": 8, "maximum": 4096},
                "minItems": 2,
                "maxItems": 2,
            },
            {"type": "null"},
        ]
    },
    "evaluation.spice_heap": {"type": "string", "pattern": "^[1-9][0-9]*[kmgKMG]$"},
    "training.precision": {"enum": ["auto", "32-true", "bf16-mixed", "16-mixed", "bf16", "16", "32", 16, 32]},
    "training.stages": {
        "type": "array",
        "items": {"enum": list(STAGES)},
        "minItems": 1,
        "uniqueItems": True,
    },
    "evaluation.metrics": {
        "anyOf": [
            {"const": "auto"},
            {"type": "array", "items": {"enum": list(get_args(MetricName))}, "minItems": 1, "uniqueItems": True},
        ]
    },
    "evaluation.extra": {"type": "array", "items": {"enum": list(get_args(ExtraName))}, "uniqueItems": True},
    "lora.target_modules": {
        "anyOf": [
            {"const": "auto"},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True},
        ]
    },
}


def json_schema() -> dict[str, Any]:
    """JSON Schema of an experiment's YAML: every section and key is optional, no other key is allowed."""
    document = _section(Settings, "")
    for old, new in (*MOVED.items(), (PREFIX, "experiment.name")):
        section, _, name = old.partition(".")
        document["properties"][section]["properties"][name] = {
            "description": f"Deprecated: use {new}.",
            "deprecated": True,
        }
    return {"$schema": _DIALECT, "title": "An experiment of panollava", **document}


def _section(section: type[Section], prefix: str) -> dict[str, Any]:
    properties = {}
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None:
            properties[name] = _section(inner, f"{prefix}{name}.")
        else:
            properties[name] = _key(f"{prefix}{name}", field)
    # A section that is left empty (`data:` with nothing below) changes nothing.
    return {"type": ["object", "null"], "additionalProperties": False, "properties": properties}


def _key(dotted: str, field: FieldInfo) -> dict[str, Any]:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    typical = f" Typically in {extra['typical']}." if extra.get("typical") else ""
    default = field.get_default(call_default_factory=True)
    return {
        "description": f"{field.description}{typical}",
        **(_SPECIAL.get(dotted) or _type(field.annotation, field.metadata)),
        "default": default,
    }


def _type(annotation: Any, metadata: Any = ()) -> dict[str, Any]:
    """What an annotation allows; `metadata` are the bounds that stand beside it."""
    arguments = get_args(annotation)
    if annotation in _PLAIN:
        return {"type": _PLAIN[annotation]} | (_bounds(metadata) if annotation is not type(None) else {})
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0], [*metadata, *annotation.__metadata__])
    if get_origin(annotation) is list:
        return {"type": "array", "items": _type(arguments[0])}
    if all(isinstance(argument, str) for argument in arguments):  # Literal
        return {"enum": list(arguments)}
    return {"anyOf": [_type(argument, metadata) for argument in arguments]}


def _bounds(metadata: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in metadata:
        if isinstance(item, FieldInfo):
            found |= _bounds(item.metadata)
        elif isinstance(item, MinLen):
            found["minLength"] = item.min_length
        elif type(item) in _BOUNDS:
            name, attribute = _BOUNDS[type(item)]
            found[name] = getattr(item, attribute)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
