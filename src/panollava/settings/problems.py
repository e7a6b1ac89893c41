"""One of pydantic's errors in words: what is allowed, what was found, what helps."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from panollava.settings.section import Section
from panollava.settings.wording import shown

_UNQUOTED = re.compile(r"[-+]?[\d_]*\.?\d+([eE][-+]?\d+)?|true|false|yes|no|on|off|null", re.IGNORECASE | re.ASCII)


def field_at(section: type[Section], parts: list[str]) -> tuple[str, FieldInfo | None, list[str]]:
    """The field below `section` that a location names: its dotted key, its description (None: a section), what is below
    it."""
    for index, part in enumerate(parts):
        field = section.model_fields.get(part)
        if field is None:
            return ".".join(parts[: index + 1]), None, parts[index + 1 :]
        if part not in section.inner:
            return ".".join(parts[: index + 1]), field, parts[index + 1 :]
        section = section.inner[part]
    return ".".join(parts), None, []


def allowed(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """What a field takes, in words: `a whole number of at least 1`, `auto or true or false`."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return allowed(inner, [*metadata, *extra])
    if origin is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(part, metadata) for part in get_args(annotation))
    if origin is list:
        return f"a list, each {allowed(get_args(annotation)[0])}"
    if annotation is type(None):
        return "null"
    if annotation is bool:
        return "true or false"
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        interval = bounds_of(metadata)
        return f"{kind} {interval}" if interval else kind
    return "text" if annotation is str else str(getattr(annotation, "__name__", annotation))


def bounds_of(metadata: Iterable[Any]) -> str:
    """`in (0, 1)`, `of at least 1`, or nothing."""
    low = high = None
    left, right = "[", "]"
    for item in _flat(metadata):
        if getattr(item, "gt", None) is not None:
            low, left = item.gt, "("
        if getattr(item, "ge", None) is not None:
            low = item.ge
        if getattr(item, "lt", None) is not None:
            high, right = item.lt, ")"
        if getattr(item, "le", None) is not None:
            high = item.le
    if low is None and high is None:
        return ""
    if high is None:
        return f"above {_number(low)}" if left == "(" else f"of at least {_number(low)}"
    return f"in {left}{_number(low)}, {_number(high)}{right}"


def problem(detail: Any, field: FieldInfo, written: str | None = None) -> str:
    """What is wrong with a value. `written` is how an unquoted one is written in its file."""
    return _problem(detail, field) + _hint(detail, field, written)


def _problem(detail: Any, field: FieldInfo) -> str:
    value, kind = detail["input"], detail["type"]
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    typical = (field.json_schema_extra or {}).get("typical") if isinstance(field.json_schema_extra, dict) else None
    hint = f". Typical range: {typical}" if typical else ""
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        interval = bounds_of(_all_metadata(field))
        word = interval.removeprefix("of ")
        return f"must be {word}, got {shown(value)}{hint}"
    if kind == "finite_number":
        return f"must be a finite number, got {shown(value)}{hint}"
    if kind == "string_too_short":
        return "must not be empty"
    text = f"must be {allowed(field.annotation, field.metadata)}, got {shown(value)}"
    one_word = isinstance(value, str) and kind != "list_type"
    near = get_close_matches(value.lower(), _choices(field.annotation), n=1) if one_word else []
    return f"{text}. Did you mean {near[0]}?" if near else text + hint


def _hint(detail: Any, field: FieldInfo, written: str | None) -> str:
    """What YAML made of a value that was meant otherwise."""
    value, kind = detail["input"], detail["type"]
    takes_text = str in _kinds(field.annotation)
    if isinstance(value, bool) and written is not None and written.lower() not in ("true", "false"):
        return f". YAML reads {written} as {shown(value)}" + (f': "{written}" is the word' if takes_text else "")
    if isinstance(value, (int, float)) and kind == "string_type" and takes_text:
        return f'. Put it in quotes: "{value if written is None else written}"'
    if isinstance(value, float) and kind == "int_type" and value.is_integer() and abs(value) < 1e15:
        return f". Write {int(value)}"
    if isinstance(value, str) and written is None and kind in ("int_type", "float_type", "bool_type"):
        return ". Write it without quotes" if _UNQUOTED.fullmatch(value.strip()) else ""
    if isinstance(value, str) and kind == "list_type":
        choices = _choices(field.annotation)
        fits = all(word.strip() in choices for word in value.split(",")) if choices else len(value) <= 60
        return f". Write it as a list: [{value}]" if fits else ""
    return ""


def _kinds(annotation: Any) -> set[Any]:
    """The plain types among what a field takes."""
    parts = get_args(annotation)
    return {annotation} if not parts or get_origin(annotation) is Literal else set().union(*map(_kinds, parts))


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _all_metadata(field: FieldInfo) -> list[Any]:
    found = list(field.metadata)
    for part in get_args(field.annotation):
        if get_origin(part) is Annotated:
            found += get_args(part)[1:]
    return found


def _flat(metadata: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for item in metadata:
        found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
