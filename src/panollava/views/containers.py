"""How image files are cut into parts: a PNG's chunks, the boxes of JPEG 2000, AVIF and HEIC.

Source: W3C PNG third edition 5.3, ISO/IEC 14496-12 4.2 and 15444-1 annex I.
"""

from __future__ import annotations

from collections.abc import Iterator

PNG_START = b"\x89PNG\r\n\x1a\n"


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of the chunks of a PNG file, in order. Ends where they are damaged."""
    place = len(PNG_START)
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


def boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(kind, body) of the boxes of a file, or of a box that consists of boxes. Ends where they are damaged."""
    place = 0
    while place + 8 <= len(content):
        length, kind, header = int.from_bytes(content[place : place + 4], "big"), content[place + 4 : place + 8], 8
        if length == 1:
            length, header = int.from_bytes(content[place + 8 : place + 16], "big"), 16
        elif length == 0:
            length = len(content) - place
        if length < header:
            return
        yield kind, content[place + header : place + length]
        place += length
