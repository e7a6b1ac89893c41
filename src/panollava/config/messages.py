"""All errors of a configuration, one line each: the key, what is allowed, what was found, what helps."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher, get_close_matches
from unicodedata import name as unicode_name
from unicodedata import normalize

from pydantic import ValidationError

from panollava.config.schema import KEYS, Section, Settings
from panollava.settings.problems import field_at, problem
from panollava.settings.wording import shown, visible

_SURE = 0.85  # from here on, one letter is wrong; below, a key of this very name elsewhere is the likelier one
_SYNONYMS = {"learning_rate": "lr", "num_epochs": "epochs", "max_epochs": "epochs", "gpus": "devices"}


def describe_errors(error: ValidationError, written: Mapping[str, str] | None = None) -> dict[str, str]:
    """Dotted key -> message that starts with the key. One message per key, in the order of the schema.

    `written` holds, by dotted key, how unquoted values are written in the file.
    """
    messages: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        parts = [str(part) for part in detail["loc"]]
        name, field, rest = field_at(Settings, parts)
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
            messages[name] = f"{name} {problem(detail, field, as_written)}"
    return messages


def unknown_key(name: str, last: str | None = None) -> str:
    """What to say about a key that the schema does not have: the nearest one, or where the key belongs.

    `last` is the key as it is written in the file, where it holds dots itself.
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


def _odd_character(key: str) -> str:
    """Names the first character that looks like another one, or like nothing."""
    for sign in key:
        if not sign.isascii() or not sign.isprintable():
            return f" ({visible(sign)} is U+{ord(sign):04X}, {unicode_name(sign, 'a control character')})"
    return ""


def _names_in(head: str) -> list[str]:
    section: type[Section] = Settings
    for part in head.split(".") if head else []:
        if part not in section.inner:
            return []
        section = section.inner[part]
    return list(section.model_fields)
