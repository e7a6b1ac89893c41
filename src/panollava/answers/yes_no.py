"""Yes or no, as a text says it."""

from __future__ import annotations

import re

_YES = frozenset(("yes", "yeah", "yep", "yup", "true", "y"))
_WORD = re.compile(r"(?<![a-z0-9'-])(yes|yeah|yep|yup|no|nope|nah)(?![a-z0-9'])")
_NUMBERED = re.compile(r"(?<![a-z])no\.?\s*(?=\d)")  # "no. 5"
_BOTH = re.compile(r"(?<![a-z])(?:yes\s*(?:/|\||or|and|and/or)\s*no|no\s*(?:/|\||or|and|and/or)\s*yes)(?![a-z])")
_WHOLE = {"y": True, "n": False, "true": True, "false": False}
# Words that mean nothing else where an answer begins with them.
_KOREAN = re.compile(r"(네|예|아니요|아니오|아뇨)(?=$|[\s,.!?:;])")
_KOREAN_MEANS = {"네": True, "예": True, "아니요": False, "아니오": False, "아뇨": False}


def read_yes_no(text: str) -> bool | None:
    """The first yes or no of a plain text (`part.plain`); None where there is none, or both are said as one.

    >>> read_yes_no("No, there is a lamp."), read_yes_no("true"), read_yes_no("Yes and no."), read_yes_no("maybe")
    (False, True, None, None)
    """
    folded = text.casefold().strip()
    bare = folded.strip(" \t\n.,!?:;\"'()[]")
    if bare in _WHOLE:
        return _WHOLE[bare]
    if begins := _KOREAN.match(folded):
        return _KOREAN_MEANS[begins[1]]
    found = _WORD.search(_NUMBERED.sub(" ", _BOTH.sub(" ", folded)))
    return None if found is None else found[1] in _YES
