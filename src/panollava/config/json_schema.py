"""`config/schema.json` from the schema: completion and checks while an experiment's YAML is being written.

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
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from panollava.config.legacy import MOVED, PREFIX
from panollava.config.schema import Settings


class _ForEditors(GenerateJsonSchema):
    """pydantic's own, with two additions: an empty section (`data:` alone) is allowed, typical ranges are shown."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False  # `Fov Deg` says nothing that `fov_deg` does not

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        section = super().model_schema(schema)
        for setting in section.get("properties", {}).values():
            for mark in ("of", "stages"):
                setting.pop(mark, None)
            if typical := setting.pop("typical", None):
                setting["description"] += f" Typically in {typical}."
        return {**section, "type": ["object", "null"]}


def json_schema() -> dict[str, Any]:
    """JSON Schema of an experiment's YAML: every section and key is optional, no other key is allowed."""
    document = Settings.model_json_schema(schema_generator=_ForEditors)
    for old, new in (*MOVED.items(), (PREFIX, "experiment.name")):
        section, _, name = old.partition(".")
        definition = document["properties"][section]["$ref"].rpartition("/")[2]
        document["$defs"][definition]["properties"][name] = {
            "description": f"Deprecated: use {new}.",
            "deprecated": True,
        }
    return {"$schema": GenerateJsonSchema.schema_dialect, **document, "title": "An experiment of panollava"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n")
