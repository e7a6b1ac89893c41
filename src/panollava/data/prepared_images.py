"""What the pictures of a prepared CSV were when it was made: `images.json` beside it, image path -> SHA-256.

Who reads a picture or its cached views later compares: a picture that was edited since is refused, and one that only
moved is found again by its content.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from panollava.errors import DataError
from panollava.files import read_json, write_json
from panollava.views.cache import ViewCache

IMAGES = "images.json"


def write_images(csv_path: str | Path, sha256: Mapping[str, str]) -> None:
    """Note the digests of a prepared CSV's pictures, in the order in which they first appear."""
    write_json(Path(csv_path).with_name(IMAGES), dict(sha256))


def read_images(csv_path: str | Path) -> dict[str, str] | None:
    """SHA-256 by image path; None where there is no such file (a CSV of an earlier version). Raises DataError."""
    path = Path(csv_path).with_name(IMAGES)
    remedy = f"Remove {path.parent} and run the same command again"
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. {remedy}") from error
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise DataError(f"{path} is damaged: expected a digest for each image path. {remedy}")
    return found


def views_of_csv(folder: str | Path, csv_path: str | Path) -> ViewCache:
    """The cached views of a prepared CSV's pictures, by content: of each the very picture that was prepared.

    Raises DataError where the cache holds other pictures.
    """
    return ViewCache(folder, read_images(csv_path))
