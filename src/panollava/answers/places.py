"""Points and boxes as text: yaw and pitch in degrees, or pixels of the panorama.

What is written in names (`yaw`, `x`) or with a unit (°, px) counts in that. A bare pair in square brackets, as boxes
are written, or with a value that no angle has counts in pixels; one with a negative value in degrees; any other bare
pair in whatever the reference counts in (`prefer`), degrees for a reference itself.
"""

from __future__ import annotations

import re

from panollava.answers.boxes import Box, FovBox, erp_box_of_pixels
from panollava.answers.direction import DECIMAL, read_direction
from panollava.answers.sphere import Direction, wrapped

Size = tuple[int, int]
"""(width, height) of the panorama in pixels; (0, 0) where it is not known."""

_LIST = re.compile(rf"[\[(]\s*({DECIMAL}(?:\s*,\s*{DECIMAL})*)\s*[\])]")
_BARE = re.compile(rf"({DECIMAL}(?:\s*[,;]\s*{DECIMAL})+)\.?")
_XY = re.compile(
    rf"(?<![a-z0-9_])x(?:_px)?[\"']?\s*[:=]\s*({DECIMAL})\W+(?:px\W+)?y(?:_px)?[\"']?\s*[:=]\s*({DECIMAL})"
)
_EDGES = [
    re.compile(rf"(?<![a-z0-9_])(?:{names})[\"']?\s*[:=]\s*({DECIMAL})")
    for names in ("x_?1|xmin|x_min|left", "y_?1|ymin|y_min|top", "x_?2|xmax|x_max|right", "y_?2|ymax|y_max|bottom")
]
_PIXELS = re.compile(r"(?<![a-z])(?:px|pixels?)(?![a-z])")
_DEGREES = re.compile(r"°|(?<![a-z])(?:deg|degrees?|yaw|pitch|azimuth|elevation|longitude|latitude)(?![a-z])")
_FOV = re.compile(
    rf"(?:fov|field\s+of\s+view)(?:_deg)?[\"']?\s*(?:is|of|[:=])?\s*[\[(]?\s*({DECIMAL})\s*°?(?:\s*(?:x|×|by|,)\s*({DECIMAL}))?"
)
_FOV_SIDES = [
    re.compile(rf"(?:{name})(?:_deg)?[\"']?\s*[:=]\s*({DECIMAL})") for name in ("hfov|fov_?[hx]", "vfov|fov_?[vy]")
]
_PERCENT_POINT = re.compile(r"<\s*point[^>]*\sx\s*=")  # Molmo's points count in percent of the picture


def read_point(text: str, size: Size, prefer: str = "degrees") -> Direction | None:
    """The direction of the one point that a plain text gives; None where it gives none, or several.

    >>> read_point("yaw 90, pitch -10", (0, 0)), read_point("[1023.5, 255.5]", (2048, 512))
    (Direction(yaw_deg=90.0, pitch_deg=-10.0), Direction(yaw_deg=0.0, pitch_deg=0.0))
    """
    if (found := _point(text, prefer)) is None:
        return None
    notation, a, b = found
    if notation == "degrees":
        return Direction(wrapped(a), b) if abs(a) <= 360 and abs(b) <= 90 else None
    width, height = _known(size)
    if not (0 <= a <= width and 0 <= b <= height):
        return None
    return Direction(wrapped(((a + 0.5) / width - 0.5) * 360), max(-90.0, (0.5 - (b + 0.5) / height) * 180))


def notation_of(text: str) -> str:
    """What the point of a reference counts in: `degrees` or `pixels`."""
    found = _point(text, "degrees")
    return found[0] if found else "degrees"


def read_box(text: str, size: Size) -> Box | None:
    """The region of the one box that a plain text gives; None where it gives none, or several different ones.

    `[x1, y1, x2, y2]` counts in pixels of the panorama. A centre with its field of view is yaw, pitch and `fov` in
    degrees.

    >>> read_box("[0, 0, 2048, 1024]", (2048, 1024)).area() > 12.56
    True
    """
    folded = text.casefold()
    if "fov" in folded or "field of view" in folded:
        return _fov_box(folded)
    edges = [pattern.search(folded) for pattern in _EDGES]
    lists = {values for found in _LIST.finditer(folded) if len(values := _numbers(found[1])) == 4}
    if not lists and all(edges):
        lists = {tuple(float(found[1]) for found in edges if found)}
    if not lists and (bare := _BARE.fullmatch(folded)) is not None:
        lists = {_numbers(bare[1])}
    if len(lists) != 1 or len(values := lists.pop()) != 4:
        return None
    x1, y1, x2, y2 = values
    return erp_box_of_pixels(x1, y1, x2, y2, *_known(size))


def _fov_box(folded: str) -> FovBox | None:
    fovs = _fovs(folded)
    rest = folded
    for pattern in (_FOV, *_FOV_SIDES):
        rest = pattern.sub(" ", rest)
    centre = read_direction(re.sub(r"[^\w\s.,°+-]", " ", rest)) or _first_pair(rest)
    if fovs is None or centre is None or not all(0 < fov < 180 for fov in fovs):
        return None
    return FovBox(centre, *fovs)


def _fovs(folded: str) -> tuple[float, float] | None:
    across, down = (pattern.search(folded) for pattern in _FOV_SIDES)
    if across and down:
        return float(across[1]), float(down[1])
    found = _FOV.search(folded)
    return None if found is None else (float(found[1]), float(found[2] or found[1]))


def _first_pair(text: str) -> Direction | None:
    pairs = [values for found in _LIST.finditer(text) if len(values := _numbers(found[1])) == 2]
    if len(pairs) != 1 or abs(pairs[0][0]) > 360 or abs(pairs[0][1]) > 90:
        return None
    return Direction(wrapped(pairs[0][0]), pairs[0][1])


def _point(text: str, prefer: str) -> tuple[str, float, float] | None:
    """(what it counts in, first value, second value) of the one point that is given."""
    folded = text.casefold()
    if _PERCENT_POINT.search(folded):
        return None
    if (named := _XY.search(folded)) is not None:
        return "pixels", float(named[1]), float(named[2])
    found = [(hit[0], _numbers(hit[1])) for hit in _LIST.finditer(folded)]
    if not found and re.fullmatch(DECIMAL, folded.strip()):
        return None  # one number is no point
    if not found and (bare := _BARE.fullmatch(_PIXELS.sub("", folded).strip())) is not None:
        found = [(bare[0], _numbers(bare[1]))]
    pairs = {values: written for written, values in found if len(values) == 2}
    if _DEGREES.search(folded) or not found:
        direction = read_direction(text)
        if direction is not None:
            return "degrees", direction.yaw_deg, direction.pitch_deg
    if len(pairs) != 1:
        return None
    (a, b), written = next(iter(pairs.items()))
    if _DEGREES.search(folded):
        return "degrees", a, b
    if _PIXELS.search(folded) or written.startswith("[") or abs(a) > 360 or abs(b) > 90:
        return ("degrees", a, b) if a < 0 or b < 0 else ("pixels", a, b)
    return ("degrees" if a < 0 or b < 0 else prefer), a, b


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(one) for one in re.findall(DECIMAL, text))


def _known(size: Size) -> Size:
    if min(size) < 1:
        raise ValueError("pixels of a panorama whose width and height are not known: the row needs both columns")
    return size
