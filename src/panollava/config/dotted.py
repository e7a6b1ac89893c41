"""Settings by their dotted keys in nested dictionaries: `training.seed`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def value_at(document: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key. Raises KeyError where there is none."""
    value: Any = document
    for name in key.split("."):
        value = value[name]
    return value


def set_at(document: dict[str, Any], key: str, value: Any) -> None:
    """Give a dotted key its value, with the sections above it where they are not there yet."""
    *head, last = key.split(".")
    for name in head:
        document = document.setdefault(name, {})
    document[last] = value


def differences(before: Any, after: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new value of each leaf in which two documents differ; None where one lacks it."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key), after.get(key), f"{place}.{key}" if place else str(key))
    elif before != after:
        yield place, before, after
