"""Write pictures embedded in the data itself (Parquet, data: addresses) to files, named by their digest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from panollava.data.formats import TableRow, format_of
from panollava.data.formats.rows import EMBEDDED
from panollava.files import atomic_path

_SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"II*\0": ".tif", b"MM\0*": ".tif"}


def write_embedded(
    sources: Sequence[str | Path], format: str, rows: Sequence[TableRow], folder: Path
) -> dict[str, Path]:
    """Write the pictures that `rows` name into FOLDER/embedded; their places by the rows' image paths."""
    wanted = {row.image_path for row in rows if row.problem is None and row.image_path.startswith(EMBEDDED)}
    written: dict[str, Path] = {}
    for source in sources if wanted else ():
        for content in format_of(source, format).embedded(Path(source)):
            digest = hashlib.sha256(content).hexdigest()
            name = f"{EMBEDDED}{digest}"
            if name not in wanted or name in written:
                continue
            written[name] = path = folder / "embedded" / f"{digest}{_suffix(content)}"
            if not path.is_file() or path.read_bytes() != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as partial:
                    partial.write_bytes(content)
    return written


def _suffix(content: bytes) -> str:
    return next((suffix for start, suffix in _SUFFIXES.items() if content.startswith(start)), ".img")
