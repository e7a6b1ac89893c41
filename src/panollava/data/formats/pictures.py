"""The one panorama of a record of JSON or Parquet: a path, an address, or the bytes of an image file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

IMAGE_KEYS = ("image", "images", "image_path", "image_url", "url", "path")
OTHER_MEDIA = ("video", "videos", "audio", "audios", "sound")
_DATA_URL = "data:image/"


@dataclass(frozen=True)
class EmbeddedImage:
    """An image file that stands in the data itself, by its digest; its bytes are not kept (`Format.embedded`)."""

    sha256: str

    @classmethod
    def of(cls, content: bytes) -> EmbeddedImage:
        return cls(hashlib.sha256(content).hexdigest())


Picture = str | EmbeddedImage


def pictures_in(value: object) -> list[Picture]:
    """Every picture that a value names: text, a list, `{"path", "url"}`, `{"bytes"}` read as an EmbeddedImage.

    Raises ValueError for what names none in a way that is known.
    """
    if value is None or value == "":
        return []
    if isinstance(value, EmbeddedImage):
        return [value]
    if isinstance(value, str):
        return [_embedded_in_text(value)] if value.startswith(_DATA_URL) else [value]
    if isinstance(value, (list, tuple)):
        return [picture for one in value for picture in pictures_in(one)]
    if isinstance(value, Mapping):
        for key in ("bytes", "path", "url", "image_url", "image"):
            if value.get(key):
                return pictures_in(value[key])
        return []
    raise ValueError(f"image not readable: a {type(value).__name__}, expected a path, an address or image bytes")


def _embedded_in_text(text: str) -> EmbeddedImage:
    try:
        return EmbeddedImage.of(decode_data_url(text))
    except ValueError as error:
        raise ValueError(f"image not readable: its data: address cannot be decoded ({error})") from error


def decode_data_url(text: str) -> bytes:
    """The bytes of `data:image/…;base64,…`. Raises ValueError."""
    head, _, body = text.partition(",")
    if not head.endswith(";base64"):
        raise ValueError("it is not in base64")
    return base64.b64decode(body, validate=True)


def files_in(value: object) -> Iterator[bytes]:
    """The image files that stand in a record's values: bytes, and data: addresses that can be decoded."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, str) and value.startswith(_DATA_URL):
        with suppress(ValueError):  # the row is rejected with the reason
            yield decode_data_url(value)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from files_in(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from files_in(one)


def one_picture(pictures: list[Picture]) -> Picture | None:
    """The picture of a record; None where it has none. Raises ValueError where it has several."""
    distinct = list(dict.fromkeys(one.sha256 if isinstance(one, EmbeddedImage) else one for one in pictures))
    if len(distinct) > 1:
        raise ValueError(f"more than one image: {len(distinct)}, expected one panorama")
    return pictures[0] if pictures else None


def refuse_other_media(record: Mapping[str, Any]) -> None:
    """Raises ValueError for a record with a film or a sound."""
    for key in OTHER_MEDIA:
        if record.get(key):
            raise ValueError(f"{key}: not read, expected one panorama")
