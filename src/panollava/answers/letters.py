"""Letters that stand for options: A is the first."""

from __future__ import annotations

import re
import unicodedata

MOST_OPTIONS = 26
_BARE = re.compile(r"[(\[{<*_'\"\s]*([A-Za-z])[)\]}>*_'\"\s]*[.:,!]*[*_'\"\s]*")


def bare_letter(text: str) -> str | None:
    """The letter where a text is one letter and nothing else ("B", "(b)", "B."); upper case.

    >>> bare_letter(" (b) "), bare_letter("B."), bare_letter("a box"), bare_letter("7")
    ('B', 'B', None, None)
    """
    found = _BARE.fullmatch(unicodedata.normalize("NFKC", text).strip())
    return found[1].upper() if found else None


def letter(place: int) -> str:
    """The letter of an option, counted from 0."""
    return chr(ord("A") + place)


def place_of(letter_: str) -> int:
    """The inverse of `letter`."""
    return ord(letter_) - ord("A")
