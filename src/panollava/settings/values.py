"""Types of settings that need more than pydantic says, or would say less clearly.

A check is given a value as YAML gave it, before its type is checked, and returns it; ValueError says what is allowed,
what was found and what helps. A value of another type passes here.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from panollava.settings.choices import NAME_MAX_LENGTH as NAME_MAX_LENGTH
from panollava.settings.choices import NAME_PATTERN as NAME_PATTERN
from panollava.settings.wording import shown

SYNTHETIC = "synthetic"
HEAP_PATTERN = "[1-9][0-9]*[kmgKMG]"
SHORT_PRECISIONS = {32: "32-true", 16: "16-mixed", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def one_line(value: Any) -> Any:
    if isinstance(value, str) and (value != value.strip() or not value.isprintable()):
        raise ValueError(f"must be one line of visible characters without white space around it, got {shown(value)}")
    return value


def path(value: Any) -> Any:
    if isinstance(value, str) and set(value) & set("{}"):
        raise ValueError(f"must be a path without braces, which are wildcards to Snakemake, got {shown(value)}")
    return one_line(value)


def model_name(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        owner_and_name = "/".join(value.partition("://")[2].split("/")[1:3])
        raise ValueError(f"must be a hub id or a local folder, got an address. Typical: {owner_and_name}")
    return path(value)


def image_size(value: Any) -> Any:
    sides = value if isinstance(value, list) else [value]
    whole = all(isinstance(side, int) and not isinstance(side, bool) and 8 <= side <= 4096 for side in sides)
    if value is not None and not (whole and (not isinstance(value, list) or len(value) == 2)):
        raise ValueError(
            f"must be a whole number or [height, width] in [8, 4096], or null for the vision model's own size, "
            f"got {shown(value)}. Typical: 224"
        )
    return value


def miniature_or(expected: str) -> Any:
    def check(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("miniature/") and value != expected:
            raise ValueError(f"must be a hub id, a local folder or '{expected}', got {shown(value)}")
        return model_name(value)

    return check


def listed(value: Any) -> Any:
    """A tuple, which Python's callers may give, as the list that it would be in YAML."""
    return list(value) if isinstance(value, tuple) else value


def choice_or_list(choices: tuple[str, ...] | None, word: str) -> Any:
    def check(value: Any) -> Any:
        if value == "auto" and isinstance(value, str):
            return value
        value = listed(value)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
            allowed = f" of {', '.join(choices)}" if choices else ""
            alone = isinstance(value, str) and (value in choices if choices else len(value) <= 60)
            hint = f". Write it as a list: [{value}]" if alone else ""
            raise ValueError(f"must be auto or a list{allowed}, got {shown(value)}{hint}")
        if len(set(value)) != len(value):
            raise ValueError(f"names a {word} twice: {shown(value)}")
        unknown = [item for item in value if choices and item not in choices]
        if choices and unknown:
            near = get_close_matches(unknown[0].lower(), choices, n=1)
            hint = f". Did you mean {near[0]}?" if near else ""
            raise ValueError(f"must be auto or a list of {', '.join(choices)}, got {shown(unknown[0])}{hint}")
        return value

    return check


def folder(value: Any) -> Any:
    if isinstance(value, str) and (set(value) & set("{}*?[]") or value.startswith("~")):
        raise ValueError(f"must be a folder's path; ~ and patterns are not expanded, got {shown(value)}")
    one_line(value)
    if not isinstance(value, str) or not value:
        return value
    plain = PurePosixPath(value).as_posix()  # without `./`, `//` and a `/` at the end, which match no rule's output
    if plain == ".":
        raise ValueError(f"must be a folder below the project's root or elsewhere, got {shown(value)}")
    return plain


def experiment_name(value: Any) -> Any:
    if isinstance(value, str) and not (NAME_PATTERN.fullmatch(value) and len(value) <= NAME_MAX_LENGTH):
        found = value if len(value) <= 60 else f"{value[:57]}..."
        raise ValueError(
            f"must start with a letter or digit, hold only letters, digits, '.', '_' and '-', and have at most "
            f"{NAME_MAX_LENGTH} characters, got {found!r}"
        )
    return value


def csv_paths(value: Any) -> Any:
    paths = value if isinstance(value, list) else [value]
    if value is not None and (not paths or not all(isinstance(path, str) and path.strip() for path in paths)):
        raise ValueError(f"must be a path, a list of paths or '{SYNTHETIC}', got {shown(value)}")
    for one in paths:
        path(one)
        if isinstance(one, str) and one != SYNTHETIC and one.lower() == SYNTHETIC:
            raise ValueError(f"must be a path, a list of paths or '{SYNTHETIC}', got {shown(one)}")
    if isinstance(value, list) and SYNTHETIC in value and len(value) > 1:
        raise ValueError(f"'{SYNTHETIC}' stands alone, got a list that mixes it with files: {shown(value)}")
    return value


def short_precision(value: Any) -> Any:
    return (
        SHORT_PRECISIONS.get(value, value) if isinstance(value, (int, str)) and not isinstance(value, bool) else value
    )


OLD_NAMES = {"training.batches": {"like_lengths": "group_by_length", "by_picture": "group_by_image"}}
"""Values of earlier versions, by the setting's dotted key: still read (`legacy` warns), and what slices hold."""


def renamed(key: str) -> BeforeValidator:
    """Read the values of earlier versions under today's names."""
    return BeforeValidator(lambda value: OLD_NAMES[key].get(value, value) if isinstance(value, str) else value)


def custom_metric(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*", value):
        raise ValueError(f"must be written package.module:function, got {shown(value)}")
    return value


def heap(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(HEAP_PATTERN, value):
        raise ValueError(f"must be a whole number and k, m or g, got {shown(value)}. Typical: 2500m, 8g")
    return value


def some_of(choices: tuple[str, ...]) -> Any:
    def check(value: Any) -> Any:
        if not isinstance(value, list) or not all(item in choices for item in value) or len(set(value)) != len(value):
            raise ValueError(f"must be a list of some of {', '.join(choices)}, each once, got {shown(value)}")
        return value

    return check


# Where a validator takes other values than the type says, `WithJsonSchema` says which.
Text = Annotated[str, Field(min_length=1)]
_SIDE = {"type": "integer", "minimum": 8, "maximum": 4096}
ImageSize = Annotated[
    int | list[int] | None,
    BeforeValidator(image_size),
    WithJsonSchema(
        {"anyOf": [_SIDE, {"type": "array", "items": _SIDE, "minItems": 2, "maxItems": 2}, {"type": "null"}]}
    ),
]
Line = Annotated[str, Field(min_length=1), BeforeValidator(one_line)]
Folder = Annotated[str, Field(min_length=1), BeforeValidator(folder)]
Csv = Annotated[str | list[str] | None, BeforeValidator(csv_paths)]
ExperimentName = Annotated[
    str, Field(pattern=f"^{NAME_PATTERN.pattern}$", max_length=NAME_MAX_LENGTH), BeforeValidator(experiment_name)
]
Heap = Annotated[str, Field(pattern=f"^{HEAP_PATTERN}$"), BeforeValidator(heap)]
Precision = Annotated[
    Literal["auto", "32-true", "bf16-mixed", "16-mixed"],
    BeforeValidator(short_precision),
    WithJsonSchema({"enum": ["auto", *dict.fromkeys(SHORT_PRECISIONS.values()), *SHORT_PRECISIONS]}),
]
