"""What Pillow leaves unread of a JPEG 2000 file: its XMP packet, its ICC profile, the depth of its channels.

Source: ISO/IEC 15444-1, annexes A (code stream) and I (boxes); Adobe's XMP Specification Part 3 (XMP's box).
"""

from __future__ import annotations

from panollava.views.containers import boxes

CODE_STREAM = b"\xff\x4f\xff\x51"
"""What a code stream, which may be all of a file, begins with."""
STARTS = (CODE_STREAM, b"\0\0\0\x0cjP  ")

_XMP_UUID = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
_COMPONENTS = 40
"""Where a code stream says how many channels it has, 2 bytes; the first one's depth follows."""
_ICC_METHODS = (2, 3)


def xmp_packets(content: bytes) -> list[bytes]:
    """The XMP packets of a file, in order; of a bare code stream none."""
    if content.startswith(CODE_STREAM):
        return []
    return [body[16:] for kind, body in boxes(content) if kind == b"uuid" and body[:16] == _XMP_UUID]


def icc_profile(content: bytes) -> bytes | None:
    """The ICC profile of a file, None where it has none."""
    if content.startswith(CODE_STREAM):
        return None
    for kind, body in boxes(content):
        if kind == b"jp2h":
            for inner, colour in boxes(body):
                if inner == b"colr" and colour[:1] and colour[0] in _ICC_METHODS:
                    return colour[3:]
    return None


def channels_and_depth(content: bytes) -> tuple[int, int] | None:
    """Number of channels and bits of the first one; None where the code stream does not come so far."""
    start = content.find(CODE_STREAM)
    stated = content[start + _COMPONENTS : start + _COMPONENTS + 3] if start >= 0 else b""
    return (int.from_bytes(stated[:2], "big"), stated[2] % 128 + 1) if len(stated) == 3 else None
