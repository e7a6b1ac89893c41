"""Panoramas to begin with: local ones that the folder's own test set names, each with its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from panollava.checkpoints.loading import LoadedStage
from panollava.data.formats import read_source
from panollava.data.tables import is_url, resolve_image
from panollava.errors import DataError
from panollava.logs import LOGGER
from panollava.trust import find_inside
from panollava.views.panorama import PanoramaError, load_panorama

_MOST_QUESTIONS = 12
_THUMBNAIL_WIDTH = 320


@dataclass(frozen=True)
class Example:
    """A panorama, small, and the questions that a CSV asks about it, each once, in the order of the file."""

    path: Path
    questions: tuple[str, ...]
    thumbnail: Image.Image = field(repr=False)


def csv_of(loaded: LoadedStage) -> Path | None:
    """The folder's first test CSV, else its first validation CSV; None where neither is there any more."""
    for key in ("test_csv", "val_csv"):
        configured = loaded.metadata["dataset"].get(key)
        for name in [configured] if isinstance(configured, str) else configured or []:
            path = find_inside(name, [loaded.project_root, Path()])
            if path is None and loaded.made_here:
                path = loaded.project_root / name
            if path is not None and path.exists():
                return path
    return None


def find_examples(
    csv_path: Path,
    root: Path,
    columns: dict[str, str | None],
    format: str = "auto",
    most: int = 6,
    within: Sequence[Path] | None = None,
) -> list[Example]:
    """At most `most` panoramas that lie on this machine and can be read, spread over the file. A CSV that cannot be
    read gives none.

    Of a CSV that only a folder of others names, pictures outside of the folders `within` are not shown to anybody.
    """
    try:
        table = read_source(csv_path, columns, format)
    except DataError as error:
        LOGGER.warning("no examples: %s", error)
        return []
    questions: dict[str, dict[str, None]] = {}
    sources: dict[str, str] = {}
    for row in table.rows:
        if row.problem is None and not is_url(row.image_path):
            questions.setdefault(row.image_path, {})[row.query] = None
            sources[row.image_path] = row.source_csv
    names = list(questions)
    chosen = names[:: max(1, len(names) // most)][:most]
    found = [
        (resolve_image(name, sources[name], root, within), tuple(questions[name])[:_MOST_QUESTIONS]) for name in chosen
    ]
    shown = ((path, asked, _thumbnail(path)) for path, asked in found if path is not None)
    return [Example(path, asked, small) for path, asked, small in shown if small is not None]


def _thumbnail(path: Path) -> Image.Image | None:
    """None, and a warning, where the panorama cannot be read."""
    try:
        image = Image.fromarray(load_panorama(path, min_width=_THUMBNAIL_WIDTH))
    except PanoramaError as error:
        LOGGER.warning("no example: %s", error)
        return None
    return image.resize((_THUMBNAIL_WIDTH, _THUMBNAIL_WIDTH // 2), Image.Resampling.LANCZOS, reducing_gap=2.0)
