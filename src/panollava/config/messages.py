"""pydantic's errors enter; one line per error leaves: what, what was found, what is allowed, what helps."""

from __future__ import annotations

import types
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from panollava.config.schema import Section, Settings, leaf_keys, section_of


def describe_errors(error: ValidationError) -> dict[str, str]:
    """Dotted key -> message that starts with the key. One message per key, in the order of the schema."""
    messages: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        parts = [str(part) for part in detail["loc"]]
        name, field, rest = _field_at(parts)
        if name in messages:
            continue
        if detail["type"] == "extra_forbidden":
            messages[name] = unknown_key(name)
        elif field is None:
            messages[name] = f"{name} must hold `key: value` lines, got {shown(detail['input'])}"
        else:
            messages[name] = f"{name} {_problem(detail, field, rest)}"
    return messages


def unknown_key(name: str) -> str:
    """What to say about a key that the schema does not have: the nearest one, or where the key belongs."""
    head, _, last = name.rpartition(".")
    siblings = _names_in(head)
    near = get_close_matches(last, siblings, n=1, cutoff=0.6)
    if near:
        return f"{name} is not a key. Nearest valid key: {head + '.' if head else ''}{near[0]}"
    everywhere = list(leaf_keys())
    elsewhere = sorted(
        (key for key in everywhere if key.rpartition(".")[2] == last),
        key=lambda key: (not key.startswith(f"{head.partition('.')[0]}."), everywhere.index(key)),
    )
    if elsewhere:
        return f"{name} is not a key here. It belongs at: {' or '.join(elsewhere[:4])}"
    words = {key.rpartition(".")[2]: key for key in everywhere}
    near = get_close_matches(last, words, n=1, cutoff=0.75)
    hint = f"Nearest valid key: {words[near[0]]}. " if near else ""
    return f"{name} is not a key. {hint}Valid{f' in {head}' if head else ''}: {', '.join(siblings)}"


def shown(value: Any) -> str:
    """A value as a user would recognise it, with its kind where that is the point."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value!r} (text)" if len(value) <= 60 else f"{value[:57]!r}... (text)"
    if isinstance(value, dict):
        return f"a mapping with the keys {', '.join(map(str, value))}" if value else "an empty mapping"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


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


def _problem(detail: Any, field: FieldInfo, rest: list[str]) -> str:
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
    choices = _choices(field.annotation)
    near = get_close_matches(str(value), choices, n=1) if isinstance(value, str) else []
    return f"{text}. Did you mean {near[0]}?" if near else text + hint


def _field_at(parts: list[str]) -> tuple[str, FieldInfo | None, list[str]]:
    """The field that a location names: its dotted key, its description (None: a section), what is below it."""
    section: type[Section] = Settings
    for index, part in enumerate(parts):
        field = section.model_fields.get(part)
        if field is None:
            return ".".join(parts[: index + 1]), None, parts[index + 1 :]
        inner = section_of(field.annotation)
        if inner is None:
            return ".".join(parts[: index + 1]), field, parts[index + 1 :]
        section = inner
    return ".".join(parts), None, []


def _names_in(head: str) -> list[str]:
    section: type[Section] = Settings
    for part in head.split(".") if head else []:
        inner = section_of(section.model_fields[part].annotation)
        if inner is None:
            return []
        section = inner
    return list(section.model_fields)


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
