"""A judge's reply as a score from 0 to 100. A reply that gives none, or does not say which number it is, gives none.

Thinking is left out, `<answer>`, `\\boxed{}` and `[[ ]]` count where they occur (`answers.part`). Then: the last number
behind "score" or "rating"; a line that is a number and nothing else, the last before the first; the one number that
there is. "85", "85/100", "85 %" and "85 out of 100" say the same; a number on another scale ("8/10"), a range and one
outside 0 to 100 are no score.
"""

from __future__ import annotations

import re

from panollava.answers.part import answer_part

_NUMBER = r"(?<![\w.,])([+-]?\d+(?:\.\d+)?)(?![\w,]*\d)"
_SCALE = r"(?:\s*(?:/|out\s+of)\s*(\d+(?:\.\d+)?))?"
_BEHIND = r"(?!\s*(?:-|to\b)\s*\d)"
_SCORE = re.compile(_NUMBER + _SCALE + _BEHIND)
_CUED = re.compile(
    r"(?:score|rating|grade|mark|judge?ment)s?\b[\"']?(?:\s*\([^)]*\))?\s*(?:[:=]|\bis\b|\bof\b|\bwould\s+be\b)?\s*[\"'\[(]*"
    rf"(?=[+-]?\d){_NUMBER}{_SCALE}{_BEHIND}",
    re.I,
)
_DOUBLE_BRACKETS = re.compile(r"\[\[(.*?)\]\]", re.S)
_ALONE = re.compile(rf"[\"'\[(]*{_NUMBER}{_SCALE}\s*(?:%|points?|percent)?[\"'\])]*[.!]?")


def read_score(reply: str) -> float | None:
    """The score that a reply gives, None where it gives none.

    >>> [read_score(text) for text in ("85", "Score: 70/100.", "3 of 4 things are right.\\n\\n60", "8/10", "good")]
    [85.0, 70.0, 60.0, None, None]
    """
    text = answer_part(reply)
    if inside := _DOUBLE_BRACKETS.findall(text):
        text = inside[-1].strip()
    if cued := list(_CUED.finditer(text)):
        return _value(cued[-1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in dict.fromkeys(lines[-1:] + lines[:1]):
        if (alone := _ALONE.fullmatch(line)) is not None:
            return _value(alone)
    found = {_value(one) for one in _SCORE.finditer(text)}
    numbers = {float(one) for one in re.findall(_NUMBER, re.sub(r"(?:/|out\s+of)\s*100\b", " ", text))}
    return found.pop() if len(found) == 1 and len(numbers) == 1 else None


def _value(found: re.Match[str]) -> float | None:
    value, scale = float(found[1]), found[2]
    return value if 0 <= value <= 100 and (scale is None or float(scale) == 100) else None
