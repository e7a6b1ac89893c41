"""Panoramas whose colours tell directions, and what a view's colours say about them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

GPANO = "http://ns.google.com/photos/1.0/panorama/"


def direction_panorama(width: int = 1024, height: int | None = None) -> np.ndarray:
    """Red and green are sine and cosine of the longitude, blue is the latitude."""
    height = height or width // 2
    longitude = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    latitude = 0.5 - (np.arange(height) + 0.5) / height
    red, green, blue = np.broadcast_arrays(np.sin(longitude)[None], np.cos(longitude)[None], latitude[:, None])
    return np.rint(np.stack([127.5 + 127.5 * red, 127.5 + 127.5 * green, 255 * (blue + 0.5)], -1)).astype(np.uint8)


def shown(pixels: np.ndarray, row: float, column: float) -> tuple[float, float]:
    """Longitude and latitude, degrees, that a view [h, w, 3] shows at (row, column), each in [0, 1]."""
    height, width = pixels.shape[:2]
    y, x = min(int(row * height), height - 1), min(int(column * width), width - 1)
    red, green, blue = pixels[y, x].astype(float)
    return float(np.degrees(np.arctan2(red - 127.5, green - 127.5))), float((blue / 255 - 0.5) * 180)


def crop_of(full: tuple[int, int], left: int, top: int, size: tuple[int, int]) -> dict[str, object]:
    """GPano's properties of a part; sizes are (width, height)."""
    return {
        "FullPanoWidthPixels": full[0], "FullPanoHeightPixels": full[1], "CroppedAreaLeftPixels": left,
        "CroppedAreaTopPixels": top, "CroppedAreaImageWidthPixels": size[0], "CroppedAreaImageHeightPixels": size[1],
    }  # fmt: skip


def packet(properties: dict[str, object], form: str = "attributes", quote: str = '"') -> bytes:
    """An XMP packet in one of the forms that tools write."""
    q = quote
    namespace = f"xmlns:GPano={q}{GPANO}{q}"
    if form == "attributes":
        listed = " ".join(f"GPano:{name}={q}{value}{q}" for name, value in properties.items())
        descriptions = f"<rdf:Description rdf:about={q}{q} {namespace} {listed}/>"
    elif form == "elements":
        listed = "".join(f"<GPano:{name}>{value}</GPano:{name}>\n" for name, value in properties.items())
        descriptions = f"<rdf:Description rdf:about={q}{q} {namespace}>\n{listed}</rdf:Description>"
    else:  # two descriptions, the properties divided between them and behind another name space's
        items = list(properties.items())
        first = "".join(f"<GPano:{name}>{value}</GPano:{name}>" for name, value in items[::2])
        rest = " ".join(f"GPano:{name}={q}{value}{q}" for name, value in items[1::2])
        descriptions = (
            f"<rdf:Description rdf:about={q}{q} xmlns:dc={q}http://purl.org/dc/elements/1.1/{q}>"
            f"<dc:format>image/jpeg</dc:format></rdf:Description>"
            f"<rdf:Description rdf:about={q}{q} {namespace}>{first}</rdf:Description>"
            f"<rdf:Description rdf:about={q}{q} {namespace} {rest}/>"
        )
    return (
        f"<?xpacket begin={q}\ufeff{q} id={q}W5M0MpCehiHzreSzNTczkc9d{q}?>\n<x:xmpmeta xmlns:x={q}adobe:ns:meta/{q}>"
        f"<rdf:RDF xmlns:rdf={q}http://www.w3.org/1999/02/22-rdf-syntax-ns#{q}>{descriptions}</rdf:RDF></x:xmpmeta>\n"
        f"{' ' * 200}\n<?xpacket end={q}w{q}?>"
    ).encode()


def photo(pixels: np.ndarray, form: str = "JPEG", xmp: bytes | None = None, **options: Any) -> bytes:
    """An image file's bytes with an XMP packet in it."""
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    if form in ("JPEG", "AVIF", "WEBP"):
        options = {"quality": 95} | options
    if xmp is not None and form == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=bool(options.pop("zip", False)))
        options["pnginfo"] = text
    elif xmp is not None and form == "TIFF":
        options["tiffinfo"] = {700: xmp}
    elif xmp is not None:
        options["xmp"] = xmp
    image.save(stream, form, **options)
    return stream.getvalue()
