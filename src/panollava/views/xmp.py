"""XMP packets of image files and the simple properties in them.

XMP is RDF in XML: a property is an attribute or an element of any of a packet's `rdf:Description`s, and a file may have
several packets. It comes from strangers: documents with a DTD are refused (no entities, so no entity bombs), sizes are
limited, and nothing outside the packet is ever opened.
Source: ISO 16684-1 (the data model), Adobe's XMP Specification Part 3 (where each file format keeps it).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from xml.parsers import expat

from PIL import Image

from panollava.views import jpeg2000
from panollava.views.containers import PNG_START, png_chunks

MAX_PACKET_BYTES = 2**24
"""The largest packet that is read: 16 MiB."""

_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_EXTENDED = b"http://ns.adobe.com/xmp/extension/\0"
_EXTENDED_HEADER = 40  # GUID [32], length of the whole and place of this part, 4 bytes each
_PNG_KEYWORD = b"XML:com.adobe.xmp"
_PNG_RAW = (b"Raw profile type xmp", b"Raw profile type APP1")
_TIFF_XMP_TAG = 700
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


class XmpError(ValueError):
    """A packet is not well-formed XML, has a DTD, or is too large."""


def xmp_packets(image: Image.Image, content: bytes) -> list[bytes]:
    """The packets of an opened image file of whose bytes `content` consists, in order; [] where it has none."""
    if content.startswith(PNG_START):
        found = list(_png_packets(content))
    elif image.format in ("JPEG", "MPO") and hasattr(image, "applist"):
        found = list(_jpeg_packets(image.applist))
    elif content.startswith(jpeg2000.STARTS):
        found = jpeg2000.xmp_packets(content)
    else:
        tags = getattr(image, "tag_v2", {})
        stored = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or tags.get(_TIFF_XMP_TAG) or b""
        found = [stored.encode() if isinstance(stored, str) else bytes(stored)]
        raw = image.info.get(_PNG_RAW[0].decode())
        found += [_raw_profile(raw.encode())] if isinstance(raw, str) else []
    return [packet for packet in found if packet.strip(b"\0 \t\r\n")]


def _jpeg_packets(segments: list[tuple[str, bytes]]) -> Iterator[bytes]:
    """The packet of an APP1 segment, and what did not fit into it: parts of a second packet in further segments."""
    parts: dict[bytes, dict[int, bytes]] = {}
    for name, segment in segments:
        if name != "APP1":
            continue
        if segment.startswith(_JPEG_XMP):
            yield segment[len(_JPEG_XMP) :]
        elif segment.startswith(_JPEG_EXTENDED):
            body = segment[len(_JPEG_EXTENDED) :]
            if len(body) > _EXTENDED_HEADER:
                _, place = struct.unpack(">II", body[32:_EXTENDED_HEADER])
                parts.setdefault(body[:32], {})[place] = body[_EXTENDED_HEADER:]
    for some in parts.values():
        yield b"".join(some[place] for place in sorted(some))


def _png_packets(content: bytes) -> Iterator[bytes]:
    """The texts that hold XMP, before or behind the pixels: iTXt by the standard, and those of converters."""
    for kind, body in png_chunks(content):
        keyword, _, rest = body.partition(b"\0")
        if kind == b"iTXt" and keyword == _PNG_KEYWORD:
            text = rest[2:].split(b"\0", 2)[-1]  # behind the language and the translated keyword
            yield _unpacked(text) if rest[:1] == b"\x01" else text
        elif kind in (b"tEXt", b"zTXt") and keyword in _PNG_RAW:
            packet = _raw_profile(_unpacked(rest[1:]) if kind == b"zTXt" else rest)
            if keyword == _PNG_RAW[0] or packet.startswith(_JPEG_XMP):
                yield packet.removeprefix(_JPEG_XMP)


def _unpacked(text: bytes) -> bytes:
    """Raises XmpError."""
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(text, MAX_PACKET_BYTES)
    except zlib.error as error:
        raise XmpError(f"its compressed text is damaged ({error})") from error
    if unpacker.unconsumed_tail:
        raise XmpError(f"more than {MAX_PACKET_BYTES} bytes")
    return text


def _raw_profile(text: bytes) -> bytes:
    """What ImageMagick and djxl write in hexadecimal digits behind a name and a length. Raises XmpError."""
    words = text.split()
    try:
        return bytes.fromhex(b"".join(words[2:]).decode("ascii"))
    except ValueError as error:
        raise XmpError(f"its raw profile is damaged ({error})") from error


def properties(packet: bytes, namespace: str) -> list[tuple[str, str]]:
    """(name, value) of all simple properties of a namespace, in the packet's order. Raises XmpError."""
    if len(packet) > MAX_PACKET_BYTES:
        raise XmpError(f"{len(packet)} bytes, at most {MAX_PACKET_BYTES} are read")
    found: list[tuple[str, str]] = []
    prefix, value = f"{namespace} ", f"{_RDF} value"
    open_elements: list[tuple[str, list[str]]] = []  # name and text of the elements around

    def start(name: str, attributes: dict[str, str]) -> None:
        open_elements.append((name, []))
        found.extend((key[len(prefix) :], text) for key, text in attributes.items() if key.startswith(prefix))
        if name.startswith(prefix) and value in attributes:
            found.append((name[len(prefix) :], attributes[value]))

    def text(data: str) -> None:
        if open_elements:
            open_elements[-1][1].append(data)

    def end(name: str) -> None:
        written = "".join(open_elements.pop()[1])
        if name == value and open_elements and open_elements[-1][0].startswith(prefix):
            name = open_elements[-1][0]
        if name.startswith(prefix) and written.strip():
            found.append((name[len(prefix) :], written))

    def refuse_dtd(*_: object) -> None:
        raise XmpError("it has a DTD, which XMP never has")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse_dtd
    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = start, text, end
    try:
        wide = b"\0" in packet[:4]  # UTF-16, where a NUL is half a character and no padding
        parser.Parse(packet if wide else packet.strip(b"\0 \t\r\n"), True)
    except expat.ExpatError as error:
        raise XmpError(f"not well-formed XML: {error}") from error
    return [(name, written.strip()) for name, written in found]
