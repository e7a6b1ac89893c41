"""The text of `config/default.yaml`, from the schema: every key with its meaning, its values and its default.

    python -m panollava.config.default_file > config/default.yaml

after a key was added. A test compares the file with the schema, so neither can run ahead of the other.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from textwrap import wrap
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from panollava.config.schema import Section, Settings
from panollava.settings.problems import bounds_of

_HEAD = """\
# yaml-language-server: $schema=schema.json
# Every setting, its default, and what it means. An experiment's file (config/experiments/NAME.yaml) holds only what
# differs from this one. Changing a value here changes it for every experiment that does not set it.
"""
_SECTIONS = {
    "experiment": "The experiment and its name.",
    "paths": "Folders, relative to the project's root. Shared by all experiments.",
    "data": "Where questions, answers and panoramas come from.",
    "models": "The two backbones and what joins them, or a native vision-language model in their place.",
    "image_processing": "From a panorama to views.",
    "training": "Stages and how they are trained.",
    "lora": "Adapters of the language model.",
    "generation": "How answers are decoded.",
    "evaluation": "How answers are scored.",
    "system_messages": "The system message that precedes every question.",
    "workflow": "What the whole project builds. Only read in this file.",
    "data.columns": "Columns of the CSVs by name, where their usual names do not find them.",
    "data.synthetic": "The data set that `synthetic` draws.",
    "models.qformer": "Read when resampler_type is qformer.",
    "models.perceiver": "Read when resampler_type is perceiver.",
    "models.bimamba": "Read when resampler_type is bimamba.",
    "models.miniature": "Backbones that the project builds and pre-trains itself.",
    "training.stage_configs": "Settings of each stage.",
}
_NO_TEXT = {"true", "yes", "on", "false", "no", "off", "null"}  # to YAML


def default_yaml() -> str:
    return _HEAD + "".join(f"{line}\n" for line in _lines(Settings(), "", 0))


def comment_of(field: FieldInfo) -> str:
    """The comment above a key: its meaning and, where they are not obvious, its values."""
    return f"{field.description} {_values(field)}".strip()


def _values(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if len(choices) > 1:
        return f"One of {', '.join(choices)}."
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    bounds, typical = bounds_of(field.metadata).removeprefix("of "), extra.get("typical")
    parts = [part for part in (bounds, f"typically in {typical}" if typical else "") if part]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _lines(section: Section, prefix: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if name in section.inner:
            yield from [""] if depth == 0 else []
            if prefix + name in _SECTIONS:
                yield f"{indent}# {_SECTIONS[prefix + name]}"
            yield f"{indent}{name}:"
            yield from _lines(value, f"{prefix}{name}.", depth + 1)
        else:
            yield from wrap(comment_of(field), 118, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")
            yield f"{indent}{name}: {yaml_value(value)}"


def yaml_value(value: Any) -> str:
    """A default as a user would write it. `1.0e-5`, not `1e-5`: that is text to YAML 1.1, and so to PyYAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        mantissa, e, exponent = re.sub(r"e-0+", "e-", f"{value:g}").partition("e")
        return (mantissa if "." in mantissa else f"{mantissa}.0") + e + exponent
    if isinstance(value, list):
        return f"[{', '.join(yaml_value(item) for item in value)}]"
    if isinstance(value, str) and (not re.fullmatch(r"[A-Za-z]([\w./ -]*\w)?", value) or value.lower() in _NO_TEXT):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


if __name__ == "__main__":
    sys.stdout.write(default_yaml())
