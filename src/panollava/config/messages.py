"""pydantic's errors enter; one line per error leaves: what, what was found, what is allowed, what helps."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import Annotated, Any, Literal, Union, get_args, get_origin
from unicodedata import name as unicode_name
from unicodedata import normalize

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from panollava.config.schema import KEYS, Section, Settings
from panollava.config.wording import shown, visible

_SURE = 0.85  # from here on, one letter is wrong; below, a key of this very name elsewhere is the likelier one
_SYNONYMS = {"learning_rate": "lr", "num_epochs": "epochs", "max_epochs": "epochs", "gpus": "devices"}
_UNQUOTED = re.compile(r"[-+]?[\d_]*\.?\d+([eE][-+]?\d+)?|true|false|yes|no|on|off|null", re.IGNORECASE | re.ASCII)


def describe_errors(error: ValidationError, written: Mapping[str, str] | None = None) -> dict[str, str]:
    """Dotted key -> message that starts with the key. One message per key, in the order of the schema.

    `written` holds, by dotted key, how unquoted values stand in the file.
    """
    messages: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        parts = [str(part) for part in detail["loc"]]
        name, field, rest = _field_at(parts)
        if name in messages:
            continue
        if detail["type"] == "extra_forbidden":
            messages[name] = f"{unknown_key(name, parts[-1])}. Its value: {shown(detail['input'])}"
        elif field is None:
            colon = isinstance(detail["input"], str) and ":" in detail["input"]
            hint = ". A space must follow a colon" if colon else ""
            messages[name] = f"{name} must hold `key: value` lines, got {shown(detail['input'])}{hint}"
        else:
            as_written = (written or {}).get(".".join([name, *rest]))
            messages[name] = f"{name} {_problem(detail, field)}{_hint(detail, field, as_written)}"
    return messages


def unknown_key(name: str, last: str | None = None) -> str:
    """What to say about a key that the schema does not have: the nearest one, or where the key belongs.

    `last` is the key as it stands in the file, where it holds dots itself.
    """
    last = name.rpartition(".")[2] if last is None else last
    head = name.removesuffix(last).rstrip(".")
    named = f"{visible(name)} is not a key" if last.strip() else f"{head or 'the file'} holds an empty key"
    siblings = _names_in(head)
    everywhere = list(KEYS)
    if "." in last and any(key == name or key.startswith(f"{name}.") for key in everywhere):
        first, _, rest = last.partition(".")
        return f"{named}: dots do not nest here. Write `{first}:`, and below it, indented, `{rest.replace('.', ': ')}:`"
    if ":" in last and (key := last.partition(":")[0].strip()) in siblings:
        return f"{named}. A space must follow the colon: `{key}: …`"
    odd = _odd_character(last)
    plain = normalize("NFKC", last).lower()
    near = get_close_matches(plain, siblings, n=1, cutoff=0.6)
    word = _SYNONYMS.get(plain, plain)
    elsewhere = sorted(
        (key for key in everywhere if key.rpartition(".")[2] == word),
        key=lambda key: (not key.startswith(f"{head.partition('.')[0]}."), everywhere.index(key)),
    )
    if elsewhere and not (near and SequenceMatcher(None, plain, near[0]).ratio() > _SURE):
        return f"{named} here{odd}. It belongs at: {' or '.join(elsewhere[:4])}"
    if near:
        return f"{named}{odd}. Nearest valid key: {head + '.' if head else ''}{near[0]}"
    words = {key.rpartition(".")[2]: key for key in everywhere}
    near = get_close_matches(plain, words, n=1, cutoff=0.75)
    hint = f" Nearest valid key: {words[near[0]]}." if near else ""
    return f"{named}{odd}.{hint} Valid{f' in {head}' if head else ''}: {', '.join(siblings)}"


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


def _odd_character(key: str) -> str:
    """Names the first character that looks like another one, or like nothing."""
    for sign in key:
        if not sign.isascii() or not sign.isprintable():
            return f" ({visible(sign)} is U+{ord(sign):04X}, {unicode_name(sign, 'a control character')})"
    return ""


def _field_at(parts: list[str]) -> tuple[str, FieldInfo | None, list[str]]:
    """The field that a location names: its dotted key, its description (None: a section), what is below it."""
    section: type[Section] = Settings
    for index, part in enumerate(parts):
        field = section.model_fields.get(part)
        if field is None:
            return ".".join(parts[: index + 1]), None, parts[index + 1 :]
        if part not in section.inner:
            return ".".join(parts[: index + 1]), field, parts[index + 1 :]
        section = section.inner[part]
    return ".".join(parts), None, []


def _names_in(head: str) -> list[str]:
    section: type[Section] = Settings
    for part in head.split(".") if head else []:
        if part not in section.inner:
            return []
        section = section.inner[part]
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
