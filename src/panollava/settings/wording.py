"""Values as errors show them: recognisable, on one line, never endless."""

from __future__ import annotations

from typing import Any


def shown(value: Any) -> str:
    """A value as a user would recognise it, with its kind where that is the point."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"{value!r} (text)" if len(value) <= 60 else f"{value[:57]!r}... (text)"
    if isinstance(value, dict):
        keys = ", ".join(str(key) for key in list(value)[:10])
        return f"a mapping with the keys {keys}" if value else "an empty mapping"
    if isinstance(value, list) and len(value) > 20:
        return f"a list of {len(value)} items"
    text = f"[{', '.join(_item(item) for item in value)}]" if isinstance(value, list) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def visible(text: str) -> str:
    """`text` with every character that cannot be seen written as its number."""
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)


def _item(value: Any) -> str:
    return repr(value) if isinstance(value, str) else shown(value)
