"""What GPano XMP says about a panorama: its projection, the part of the sphere that it covers, the camera's pose.

Source: Google's Photo Sphere XMP metadata (https://developers.google.com/streetview/spherical-metadata). docs/views.md
has the table of what is read, with the signs, beside what other tools do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from PIL import Image

from panollava.views.xmp import XmpError, properties, xmp_packets

NAMESPACE = "http://ns.google.com/photos/1.0/panorama/"
EQUIRECTANGULAR = "equirectangular"
_CROP = (
    "FullPanoWidthPixels", "FullPanoHeightPixels", "CroppedAreaImageWidthPixels", "CroppedAreaImageHeightPixels",
    "CroppedAreaLeftPixels", "CroppedAreaTopPixels",
)  # fmt: skip
_REMOVE = "If they are wrong, `exiftool -XMP-GPano:all= FILE` removes them"


class GPanoError(ValueError):
    """GPano metadata that cannot be followed. `reason` is one of `PanoramaError`'s."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Crop:
    """Where an image of `width` x `height` pixels lies in a full panorama, all in the image's own pixels."""

    full_width: int
    full_height: int
    left: int
    top: int
    width: int
    height: int

    @property
    def whole(self) -> bool:
        return (self.full_width, self.full_height) == (self.width, self.height)

    def scaled(self, numerator: int, denominator: int) -> Crop:
        """All lengths times numerator / denominator, which must leave whole numbers."""
        sides = (self.full_width, self.full_height, self.left, self.top, self.width, self.height)
        return Crop(*(side * numerator // denominator for side in sides))

    def divides(self, numerator: int, denominator: int) -> bool:
        """Whether `scaled` leaves whole numbers."""
        sides = (self.full_width, self.full_height, self.left, self.top, self.width, self.height)
        return all(side * numerator % denominator == 0 for side in sides)


@dataclass(frozen=True)
class Pose:
    """The camera's pose: its picture's centre looked along heading (from north, to the right) and pitch (up), and
    the camera was turned clockwise about that axis by roll, in degrees. Applied in the order roll, pitch, heading."""

    heading_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0

    def wanted(self, level: str, north: bool) -> Pose:
        """What is left of it where `level` is "off" (pitch and roll do not count), or not `north` (nor heading)."""
        levelled = self if level == "auto" else Pose(self.heading_deg)
        return levelled if north else replace(levelled, heading_deg=0.0)

    @property
    def upright(self) -> bool:
        return self.pitch_deg == 0 and self.roll_deg == 0 and self.heading_deg % 360 == 0


@dataclass(frozen=True)
class GPano:
    """A file's GPano properties, of which `stated` says whether there are any."""

    values: dict[str, str]

    @property
    def stated(self) -> bool:
        return bool(self.values)

    @property
    def says_equirectangular(self) -> bool:
        return self.values.get("ProjectionType", "").casefold() == EQUIRECTANGULAR

    def refuse_projection(self) -> None:
        """Raises GPanoError where the projection is stated and is not equirectangular."""
        projection = self.values.get("ProjectionType", EQUIRECTANGULAR)
        if projection.casefold() != EQUIRECTANGULAR:
            raise GPanoError(
                "not equirectangular",
                f"GPano:ProjectionType is {projection!r}, expected 'equirectangular'. Export it as an equirectangular "
                "panorama, or convert cube faces with `panollava prepare --from cubemap`",
            )

    def crop(self, width: int, height: int) -> Crop:
        """Where an image of that size lies in its full panorama; the whole of it where the metadata say nothing.

        The image may have been resized with its metadata left as they were. Raises GPanoError.
        """
        named = [name for name in _CROP if name in self.values]
        if not named:
            return Crop(width, height, 0, 0, width, height)
        full_width, full_height, crop_width, crop_height, left, top = (self._length(name) for name in _CROP)
        full_width = full_width or (2 * full_height if full_height else None)
        full_height = full_height or (full_width // 2 if full_width else None)
        if full_width is None or full_height is None:
            if not {"CroppedAreaLeftPixels", "CroppedAreaTopPixels"} & set(named) or (not left and not top):
                return Crop(width, height, 0, 0, width, height)  # only the image's own size is given
            raise self._missing("FullPanoWidthPixels", named)
        crop_width, crop_height = crop_width or full_width, crop_height or full_height
        if (crop_width, crop_height) == (full_width, full_height) and not left and not top:
            return Crop(width, height, 0, 0, width, height)
        across, down = width / crop_width, height / crop_height
        if abs(across / down - 1) > 0.01 + 1 / min(width, height):
            raise GPanoError(
                "contradictory metadata",
                f"GPano says that {crop_width} x {crop_height} pixels of {full_width} x {full_height} were taken, the "
                f"image has {width} x {height}, of another shape. {_REMOVE}",
            )
        for name, place, length, full in (
            ("CroppedAreaLeftPixels", left, crop_width, full_width),
            ("CroppedAreaTopPixels", top, crop_height, full_height),
        ):
            if place is None and length < full:
                raise self._missing(name, named)
        left, top = left or 0, top or 0
        if left + crop_width > full_width or top + crop_height > full_height:
            raise GPanoError(
                "contradictory metadata",
                f"GPano's crop of {crop_width} x {crop_height} pixels at left {left}, top {top} leaves its full "
                f"panorama of {full_width} x {full_height}. {_REMOVE}",
            )
        placed_left, placed_top = round(left * across), round(top * down)
        return Crop(
            max(round(full_width * across), placed_left + width),
            max(round(full_height * down), placed_top + height),
            placed_left,
            placed_top,
            width,
            height,
        )

    def pose(self) -> Pose:
        """The camera's pose; 0 where the metadata give none. Raises GPanoError."""
        return Pose(*(self._number(f"Pose{name}Degrees") or 0.0 for name in ("Heading", "Pitch", "Roll")))

    def _missing(self, name: str, named: list[str]) -> GPanoError:
        listed = ", ".join(f"{key} {self.values[key]}" for key in named)
        return GPanoError("contradictory metadata", f"GPano:{name} is missing beside {listed}. {_REMOVE}")

    def _length(self, name: str) -> int | None:
        number = self._number(name)
        if number is None:
            return None
        least = 0 if name in ("CroppedAreaLeftPixels", "CroppedAreaTopPixels") else 1
        if number != round(number) or number < least:
            raise GPanoError(
                "contradictory metadata",
                f"GPano:{name} is {self.values[name]!r}, expected a whole number of at least {least}. {_REMOVE}",
            )
        return round(number)

    def _number(self, name: str) -> float | None:
        if name not in self.values:
            return None
        try:
            number = float(self.values[name])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise GPanoError(
                "contradictory metadata", f"GPano:{name} is {self.values[name]!r}, expected a number. {_REMOVE}"
            )
        return number


def read_gpano(image: Image.Image, content: bytes) -> GPano:
    """The GPano properties of an opened image file. Raises GPanoError.

    A packet that cannot be read is an error where it speaks of GPano, and of no interest otherwise.
    """
    values: dict[str, str] = {}
    try:
        packets = xmp_packets(image, content)
    except XmpError as error:
        raise GPanoError("contradictory metadata", f"its XMP cannot be read: {error}") from error
    for packet in packets:
        if NAMESPACE.encode() not in packet.replace(b"\0", b""):
            continue
        try:
            found = properties(packet, NAMESPACE)
        except XmpError as error:
            raise GPanoError(
                "contradictory metadata",
                f"its XMP speaks of GPano and cannot be read: {error}. `exiftool -XMP:all= FILE` removes it",
            ) from error
        for name, value in found:
            if not value:
                continue
            if values.setdefault(name, value) != value and (name in _CROP or name.startswith(("Pose", "Projection"))):
                raise GPanoError(
                    "contradictory metadata", f"GPano:{name} is said twice, {values[name]!r} and {value!r}. {_REMOVE}"
                )
    return GPano(values)
