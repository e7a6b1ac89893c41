"""Turn a grid's settings and values into the names of its cells: `lora_r4a8_seed1_half`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from panollava.config.names import token
from panollava.errors import ConfigError


def checked_label(where: str, label: str) -> str:
    """`label` itself. Raises ConfigError, beginning with `where`, for characters that no file name should have."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", label):
        raise ConfigError(
            f"{where}: the name {label!r} must hold only letters, digits, '.', '_' and '-': it is part of cells' names"
        )
    return label


def shortest_name(key: str, among: Mapping[str, Any]) -> str:
    """The last words of `key` that tell it from the other varied keys: `lr`, or `finetune-lr`."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        if sum(other.split(".")[-count:] == parts[-count:] for other in among) == 1:
            return "-".join(parts[-count:])
    return "-".join(parts)


def value_label(key: str, value: Any) -> str:
    """`lr0.001`, `crop_strategy-e2p`, `do_sample-true`."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{key}{'' if number else '-'}{word(value)}"


def word(value: Any) -> str:
    """A value as it can be used in a file name: numbers short, paths and hub ids by their last part."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return token(f"{value:g}" if float(f"{value:g}") == value else repr(value))
    if isinstance(value, list):
        return "-".join(word(item) for item in value)
    return token(str(value).rstrip("/").rpartition("/")[2])
