"""Colours by number instead of by an ICC profile: `cICP` of PNG, `nclx` of AVIF and HEIC.

Source: ITU-T H.273 (the numbers), W3C PNG third edition 11.3.2.6, ISO/IEC 14496-12 12.1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import takewhile

from PIL import ImageCms

from panollava.views.containers import PNG_START, boxes, png_chunks

_SRGB_PRIMARIES = (1, 2, 5, 6, 7)  # BT.709 is sRGB's, BT.601's differ by less than cameras do; 2: not said
_SRGB_CURVES = (1, 2, 4, 5, 6, 13, 14, 15)
_P3 = 12
_PRIMARIES = {9: "BT.2020", 11: "DCI-P3", _P3: "Display P3"}
_CURVES = {8: "linear", 16: "PQ (HDR)", 18: "HLG (HDR)"}
_P3_COLORANTS = {  # adapted to D50, as ICC profiles state them
    b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189), b"bXYZ": (0.15710, 0.06657, 0.78407),
}  # fmt: skip


@dataclass(frozen=True)
class CodePoints:
    """Primaries and curve by their numbers in H.273."""

    primaries: int
    curve: int

    @property
    def srgb(self) -> bool:
        return self.primaries in _SRGB_PRIMARIES and self.curve in _SRGB_CURVES

    @property
    def display_p3(self) -> bool:
        return self.primaries == _P3 and self.curve in _SRGB_CURVES

    def __str__(self) -> str:
        primaries = _PRIMARIES.get(self.primaries, f"primaries {self.primaries}")
        return f"{primaries}, {_CURVES.get(self.curve, 'an ordinary curve')}"


def code_points(content: bytes) -> CodePoints | None:
    """What a file says of its colours by number, None where it says nothing or what it says is damaged."""
    if content.startswith(PNG_START):
        before = takewhile(lambda chunk: chunk[0] != b"IDAT", png_chunks(content))
        stated = next((body for kind, body in before if kind == b"cICP"), b"")
        return CodePoints(stated[0], stated[1]) if len(stated) == 4 else None
    if content[4:8] == b"ftyp":
        for colour in _nested(content, (b"meta", b"iprp", b"ipco", b"colr")):
            if colour[:4] == b"nclx" and len(colour) >= 10:
                return CodePoints(int.from_bytes(colour[4:6], "big"), int.from_bytes(colour[6:8], "big"))
    return None


def _nested(content: bytes, path: tuple[bytes, ...]) -> list[bytes]:
    """The bodies of the boxes at a path."""
    found = []
    for kind, body in boxes(content):
        if kind == path[0]:
            inner = body[4:] if kind == b"meta" else body  # behind its version
            found += _nested(inner, path[1:]) if path[1:] else [inner]
    return found


@cache
def display_p3_profile() -> bytes:
    """An ICC profile: sRGB's with the primaries of Display P3, whose curve is the same."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for entry in range(132, 132 + 12 * int.from_bytes(profile[128:132], "big"), 12):
        if colorants := _P3_COLORANTS.get(bytes(profile[entry : entry + 4])):
            place = int.from_bytes(profile[entry + 4 : entry + 8], "big") + 8
            packed = (round(value * 65536).to_bytes(4, "big", signed=True) for value in colorants)
            profile[place : place + 12] = b"".join(packed)
    return bytes(profile)
