"""The first number of a text, with its unit."""

from __future__ import annotations

import re
from dataclasses import dataclass

# (kind of quantity, how much of its base unit one is); lengths in metres, angles in degrees
_UNITS: dict[str, tuple[str, float]] = {}
for _kind, _factor, _names in (
    ("length", 1.0, "m meter meters metre metres 미터 米 メートル"),
    ("length", 0.01, "cm centimeter centimeters centimetre centimetres 센티미터 厘米"),
    ("length", 0.001, "mm millimeter millimeters millimetre millimetres 밀리미터 毫米"),
    ("length", 1000.0, "km kilometer kilometers kilometre kilometres 킬로미터 公里 千米"),
    ("length", 0.3048, "ft foot feet"),
    ("length", 0.0254, "inch inches"),
    ("length", 0.9144, "yd yard yards"),
    ("length", 1609.344, "mi mile miles"),
    ("angle", 1.0, "° deg degree degrees 도 度"),
    ("share", 1.0, "% percent"),
):
    _UNITS.update(dict.fromkeys(_names.split(), (_kind, _factor)))
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {word: value for value, word in enumerate(_ONES)} | {word: 10 * (n + 2) for n, word in enumerate(_TENS)}
_SCALES = {"hundred": 100.0, "thousand": 1000.0, "million": 1e6}
_WORD = rf"(?:{'|'.join(sorted([*_WORDS, *_SCALES], key=len, reverse=True))})"
_IN_WORDS = rf"(?<![a-z'-]){_WORD}(?:(?:\s+and\s+|\s*-\s*|\s+){_WORD})*(?:\s+and\s+a\s+half)?(?![a-z'])"
_DIGITS = (
    r"(?<![a-z0-9_.,])[+-]?(?:10\s*\^\s*[+-]?\d+|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"
    r"|\d{1,3}(?: \d{3})+(?=\s*[a-z°%])|\d+(?:\.\d+)?|\.\d+)(?!\.?\d)"
    r"(?:e[+-]?\d+(?![a-z0-9])|\s*(?:x|\*|×)\s*10\s*\^\s*[+-]?\d+)?"
)
_UNIT = "|".join(re.escape(name) for name in sorted(_UNITS, key=len, reverse=True))
_UNIT_BEHIND = re.compile(rf"\s*-?\s*(square\s+|cubic\s+)?({_UNIT})(?![a-z°%])(\s*\^?\s*[23](?!\d))?")
_NUMBER = re.compile(f"({_DIGITS})|({_IN_WORDS})")
_SCALE_BEHIND = re.compile(r"\s*(hundred|thousand|million)(?![a-z])")
_RANGE_BEHIND = re.compile(rf"\s*(?:-|~|±|\+/?-|to|or|and)\s*(?:about\s+)?(?:{_DIGITS}|{_IN_WORDS})")
_HALF = re.compile(r"(?<![a-z])half\s+(?:an?|of\s+an?)\s+")
_FEET_INCHES = re.compile(r"(?<![\d.])(\d+)\s*(?:ft|feet|foot|')\s*(\d+(?:\.\d+)?)\s*(?:inches|inch|in(?![a-z])|\"|$)")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)(?![a-z])")
_DECIMAL_COMMA = re.compile(r"(\d+),(\d{1,2}|\d{4,})(?![\d,.])")
_FRACTION = re.compile(r"\s*[/⁄]\s*(\d+)(?!\d|\.\d)")
_MINUS = re.compile(r"(?<![a-z])(?:minus|negative)\s+$")
# "the one", "another one", "no one": not a count.
_PRONOUN = re.compile(
    r"(?:the|first|second|third|this|that|which|each|every|any|no|some|another|other|last|left|right|\w+er|\w+est|\d+(?:st|nd|rd|th))\s+$"
)


@dataclass(frozen=True)
class Quantity:
    """`value` in the base unit of its `kind`: length in metres, angle in degrees, share in percent; None without unit.

    `whole` says that it was a whole number without a unit, which is how a count is written; `unit` is what was written
    beside the number, in base units.
    """

    value: float
    kind: str | None = None
    whole: bool = False
    unit: float = 1.0


def read_number(text: str, kind: str | None = None) -> Quantity | None:
    """The first number of a plain text; where `kind` is given, the first of that kind if one is.

    >>> read_number("about 1,200 m"), read_number("a box")
    (Quantity(value=1200.0, kind='length', whole=False, unit=1.0), None)
    """
    found = read_numbers(text)
    of_kind = [one for one in found if kind is not None and one.kind == kind]
    return next(iter(of_kind or found), None)


def read_numbers(text: str) -> list[Quantity]:
    """Every number of a plain text, in order. One that is written in two ways at once ("1,5") ends the list."""
    folded = text.casefold()
    quantities: list[Quantity] = []
    place = 0
    while True:
        hit = _NUMBER.search(folded, place)
        feet, half = _FEET_INCHES.search(folded, place), _HALF.search(folded, place)
        first = hit.start() if hit else len(folded)
        if feet and feet.start() <= first:
            quantities.append(Quantity(float(feet[1]) * 0.3048 + float(feet[2]) * 0.0254, "length"))
            place = feet.end()
            continue
        if half and half.start() < first and (unit := _UNIT_BEHIND.match(folded, half.end())):
            quantities.append(_with_unit(0.5, unit))
            place = unit.end()
            continue
        if hit is None:
            return quantities
        place = hit.end()
        if hit[1] is not None and (comma := _DECIMAL_COMMA.match(folded, hit.start() + hit[1].startswith(("+", "-")))):
            if not (unit := _UNIT_BEHIND.match(folded, comma.end())):
                return quantities
            value = float(f"{comma[1]}.{comma[2]}") * (-1 if hit[1].startswith("-") else 1)
            quantities.append(_with_unit(value, unit))
            place = unit.end()
            continue
        if hit[1] is not None and _ORDINAL.match(folded, place):
            continue
        if hit[2] == "one" and _PRONOUN.search(folded[: hit.start()]):
            continue
        quantity, place = _quantity(folded, hit)
        quantities.append(quantity)


def _quantity(folded: str, hit: re.Match[str]) -> tuple[Quantity, int]:
    """What a found number means with the text around it, and where it ends."""
    place = hit.end()
    value = _of_digits(hit[1]) if hit[1] is not None else _of_words(hit[2])
    if (fraction := _FRACTION.match(folded, place)) and float(fraction[1]):
        value, place = value / float(fraction[1]), fraction.end()
    if scale := _SCALE_BEHIND.match(folded, place):
        value, place = value * _SCALES[scale[1]], scale.end()
    if _MINUS.search(folded[: hit.start()]):
        value = -value
    unit = _UNIT_BEHIND.match(folded, place)
    if unit is None and (range_ := _RANGE_BEHIND.match(folded, place)):
        unit = _UNIT_BEHIND.match(folded, range_.end())  # "5 to 10 m": metres both
    if unit is None:
        return Quantity(value, None, whole=value.is_integer() and not (hit[1] and re.search(r"[.e^]", hit[1]))), place
    return _with_unit(value, unit), unit.end()


def _with_unit(value: float, unit: re.Match[str]) -> Quantity:
    kind, factor = _UNITS[unit[2]]
    if unit[1] or unit[3]:
        return Quantity(value, f"{kind}^2 or 3")  # an area or a volume is no length
    return Quantity(value * factor, kind, unit=factor)


def _of_digits(text: str) -> float:
    if (power := re.fullmatch(r"([+-]?)10\s*\^\s*([+-]?\d+)", text)) is not None:
        return float(f"{power[1]}1e{power[2]}")
    if re.search(r"\.\d{3},\d", text):  # 1.000,5 as much of Europe writes it
        text = text.replace(".", "").replace(",", ".")
    base, _, exponent = re.sub(r"\s*[x*×]\s*10\s*\^\s*", "e", re.sub(r"[, ](?=\d{3})", "", text)).partition("e")
    return float(f"{base}e{exponent}") if exponent else float(base)


def _of_words(text: str) -> float:
    total, group, half = 0.0, 0.0, text.endswith("half")
    for word in re.findall(_WORD, text):
        if word not in _SCALES:
            if group % 100 and not (_WORDS[word] < 10 and group % 100 >= 20 and group % 10 == 0):
                break  # "one two three" is one, and goes on
            group += _WORDS[word]
        elif word == "hundred":
            group = (group or 1) * 100
        else:
            total, group = total + (group or 1) * _SCALES[word], 0.0
    return total + group + 0.5 * half
