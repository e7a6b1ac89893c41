"""Directions in words: degrees, clock hours, "behind you to the left". Yaw and pitch are read from a text.

Yaw is positive to the right (0 in front, 180 behind), pitch positive upwards, both in degrees. Words name the four
sides and up and down; a mixture lies midway (front and left: yaw -45; left and above: yaw -90, pitch 45; above alone:
the zenith). "Slightly" and its like do not count. A text that says a side and its opposite says nothing.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from panollava.answers.sphere import Direction, wrapped

DECIMAL = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)"
_SIDES = {
    "front": r"front|forwards?|ahead|frontal|앞쪽?|정면",
    "behind": r"behind|back|backwards?|rear|rearwards?|뒤쪽?",
    "left": r"left|leftwards?|왼쪽|좌측|왼편",
    "right": r"right|rightwards?|오른쪽|우측|오른편",
    "above": r"above|up|upwards?|upper|top|overhead|zenith|위쪽?(?!치)",
    "below": r"below|down|downwards?|lower|bottom|beneath|underneath|under|nadir|아래쪽?|밑",
}
_OPPOSITES = (("front", "behind"), ("left", "right"), ("above", "below"))
_SIDE = "|".join(f"(?P<{side}>{words})" for side, words in _SIDES.items())
_WORD = re.compile(rf"(?<![a-z])(?:{_SIDE})(?![a-z])")
_ANY_SIDE = "|".join(_SIDES.values())
_ADVERB = re.compile(
    r"(?<![a-z])right\s+(?=(?:in\s+front|behind|ahead|above|below|over|under|up|next|here|there|now)(?![a-z]))"
)
_DENIED = re.compile(
    r"(?<![a-z])(?:not|n't|rather\s+than|instead\s+of)\s+(?:(?:in|at|on|to|the|your|my|directly|straight)\s+)*"
    rf"(?:{_ANY_SIDE})(?![a-z])"
)
# What these say is no side: "up ahead", "shows up", "down the hall", "on top of the table", "over there".
_IDIOMS = re.compile(
    r"(?<![a-z])(?:up\s+(?=ahead|front|to\b|on\b|in\b)|(?:shows?|comes?|goes|ends?|right)\s+up(?![a-z])"
    r"|down\s+(?:the|there|here|a)(?![a-z])|on\s+top\s+of|over\s+(?:there|here)|all\s+over|back\s+to(?![a-z]))"
)
_EITHER = re.compile(
    rf"(?<![a-z])(?:{_ANY_SIDE})(?![a-z])[^.;]*(?<![a-z])or(?![a-z])[^.;]*(?<![a-z])(?:{_ANY_SIDE})(?![a-z])"
)
_CLOCK = re.compile(
    r"(?<![\d.:])(?P<range>\d{1,2}\s*(?:-|to|or|and)\s*)?(\d{1,2})(?::([0-5]\d))?\s*(?:o\s*'?\s*clock|시\s*(?:방향|쪽))"
    r"|(?<![a-z])(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)\s+o\s*'?\s*clock"
)
_HOURS = ("twelve", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
_ANGLE = re.compile(rf"(?<![\w.])({DECIMAL})\s*-?\s*(?:°|degrees?(?![a-z])|degs?(?![a-z])|도(?![가-힣]))")
_IS = rf"(?:_deg)?[\"']?\s*(?:is|of|[:=~])?\s*(?:about\s+)?({DECIMAL})(?![\d.]*\d)"
_NAMED = {
    "yaw": re.compile(rf"(?<![a-z])(?:yaw|azimuth|heading|longitude|lon|theta){_IS}"),
    "pitch": re.compile(rf"(?<![a-z])(?:pitch|elevation|latitude|lat|phi){_IS}"),
}
_PAIR = re.compile(rf"[\[(<]?\s*({DECIMAL})\s*°?\s*[,;]\s*({DECIMAL})\s*°?\s*[\])>]?\.?")
_ONE = re.compile(rf"[\[(]?\s*({DECIMAL})\s*[\])]?\.?")
_TURN = {
    "left": -1, "right": 1, "counterclockwise": -1, "counter-clockwise": -1, "anticlockwise": -1,
    "anti-clockwise": -1, "clockwise": 1, "왼쪽": -1, "좌측": -1, "오른쪽": 1, "우측": 1,
}  # fmt: skip
_TILT = {"up": 1, "upwards": 1, "upward": 1, "above": 1, "down": -1, "downwards": -1, "downward": -1, "below": -1,
         "위": 1, "위쪽": 1, "아래": -1, "아래쪽": -1}  # fmt: skip
_SENSE = {word: ("yaw", sign) for word, sign in _TURN.items()} | {word: ("pitch", sign) for word, sign in _TILT.items()}
_SENSE_WORD = "|".join(sorted(map(re.escape, _SENSE), key=len, reverse=True))
_SENSE_BEHIND = re.compile(
    rf"\s*,?\s*(?:(?:to|on|at|towards?|from|the|your|my|its|a|of|in|direction)\s+)*({_SENSE_WORD})(?![a-z])"
)
_SENSE_BEFORE = re.compile(
    rf"(?<![a-z])({_SENSE_WORD})(?:\s*[:=(,]\s*|\s+)(?:(?:by|at|about|around|of|side|approximately|approx\.?|~)\s+)*$"
)


@dataclass(frozen=True)
class _Angle:
    """An angle that a text says: of yaw or pitch, signed degrees, and where it and its word of direction occur."""

    of: str
    degrees: float
    start: int
    end: int


def read_direction(text: str) -> Direction | None:
    """The direction that a plain text names; None where it names none or contradicts itself.

    >>> [read_direction(text).yaw_deg for text in ("behind you, to the left", "at 3 o'clock", "90° to the left")]
    [-135.0, 90.0, -90.0]
    """
    folded = text.casefold().strip()
    yaw, pitch = (None if (found := pattern.search(folded)) is None else float(found[1]) for pattern in _NAMED.values())
    if yaw is not None:
        return _checked(yaw, 0.0 if pitch is None else pitch)
    if (pair := _PAIR.fullmatch(folded)) is not None:
        return _checked(float(pair[1]), float(pair[2]))
    if (one := _ONE.fullmatch(folded)) is not None:
        return _checked(float(one[1]), 0.0)
    clean = _IDIOMS.sub(" ", _DENIED.sub(" ", _ADVERB.sub(" ", folded)))
    if _EITHER.search(clean):
        return None
    angles = _angles(clean)
    if angles is None:
        return None
    sides = _sides(_without(clean, angles))
    clock = _clock(clean)
    if sides is None or clock == "wrong":
        return None
    return _joined(angles, clock, sides, pitch)


def _joined(angles: list[_Angle], clock: float | str | None, sides: set[str], pitch: float | None) -> Direction | None:
    """One direction of what a text says in degrees, on the clock and in words; None where they disagree."""
    yaws = [one.degrees for one in angles if one.of == "yaw"] + ([clock] if isinstance(clock, float) else [])
    pitches = [one.degrees for one in angles if one.of == "pitch"] + ([] if pitch is None else [pitch])
    if len(yaws) > 1 or len(pitches) > 1:
        return None
    flat = _flat(sides)
    tilt = 1 if "above" in sides else -1 if "below" in sides else 0
    if yaws:
        if flat is not None and abs(wrapped(yaws[0] - flat)) >= 90:
            return None
        return _checked(yaws[0], pitches[0] if pitches else 45.0 * tilt)
    if pitches:  # an angle upwards says nothing of the side
        return None if flat is None else _checked(flat, pitches[0])
    if flat is None:
        return Direction(0.0, 90.0 * tilt) if tilt else None
    return Direction(flat, 45.0 * tilt)


def _flat(sides: set[str]) -> float | None:
    """The yaw midway between the sides that are named."""
    ahead = ("front" in sides) - ("behind" in sides)
    across = ("right" in sides) - ("left" in sides)
    return math.degrees(math.atan2(across, ahead)) if ahead or across else None


def _sides(text: str) -> set[str] | None:
    """The sides that a text names, each once; None where one occurs beside its opposite."""
    found = {str(hit.lastgroup) for hit in _WORD.finditer(text)}
    return None if any(one in found and other in found for one, other in _OPPOSITES) else found


def _clock(text: str) -> float | str | None:
    """The yaw of the hour that a text names, twelve in front; "wrong" for an hour no clock has, or two hours."""
    hits = list(_CLOCK.finditer(text))
    if not hits:
        return None
    _, digits, minutes, word = hits[0].groups()
    hour = _HOURS.index(word) if word else int(digits)
    if len({hit[0] for hit in hits}) > 1 or hits[0]["range"] or not (word or 1 <= hour <= 12):
        return "wrong"
    return wrapped(30.0 * hour + int(minutes or 0) / 2)


def _angles(text: str) -> list[_Angle] | None:
    """Each angle with the word that says which way; None where a signed one has such a word ("-30° to the left")."""
    found: list[_Angle] = []
    for hit in _ANGLE.finditer(text):
        earlier = found[-1].end if found else 0
        behind, before = _SENSE_BEHIND.match(text, hit.end()), _SENSE_BEFORE.search(text[earlier : hit.start()])
        sense = behind or before
        if sense is None:  # "30°, -5°" is yaw and pitch
            second = bool(found) and found[-1].of == "yaw" and _ANGLE.fullmatch(text[found[-1].start : found[-1].end])
            found.append(_Angle("pitch" if second else "yaw", float(hit[1]), hit.start(), hit.end()))
            continue
        if hit[1].startswith(("-", "+")):
            return None
        of, sign = _SENSE[sense[1]]
        start = hit.start() if behind else earlier + sense.start()
        found.append(_Angle(of, sign * float(hit[1]), start, behind.end() if behind else hit.end()))
    return found


def _without(text: str, angles: list[_Angle]) -> str:
    for one in reversed(angles):
        text = f"{text[: one.start]} {text[one.end :]}"
    return text


def _checked(yaw_deg: float, pitch_deg: float) -> Direction | None:
    """None for angles that no direction has."""
    if abs(yaw_deg) > 360 or abs(pitch_deg) > 90:
        return None
    return Direction(wrapped(yaw_deg), pitch_deg)
