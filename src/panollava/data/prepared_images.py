"""What the pictures of a prepared CSV were when it was made: `images.json` beside it, image path -> SHA-256.

Who reads a picture or its cached views later compares: a picture that was edited since is refused, and one that only
moved is found again by its content.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from panollava.errors import DataError
from panollava.files import digest_of, read_json, write_json
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


def digests_of_pictures(contents: Mapping[str, str], paths: Iterable[str]) -> dict[str, str] | None:
    """Two digests of the pictures at `paths`, for comparisons: with their paths, and of what they show alone, so that
    renamed ones are still the same. None where the content of one is not known.
    """
    named = set(paths)
    if not named <= contents.keys():
        return None
    pairs = sorted((path, contents[path]) for path in named)
    return {"by_path": digest_of(pairs), "by_content": digest_of(sorted({content for _, content in pairs}))}


def shared_pictures(first: Mapping[str, str], second: Mapping[str, str]) -> list[tuple[str, str]]:
    """(path in `second`, its path in `first`) of each picture that both hold, by content, in the order of `second`."""
    places: dict[str, str] = {}
    for path, content in first.items():
        places.setdefault(content, path)
    return [(path, places[content]) for path, content in second.items() if content in places]


def leakage(train: Mapping[str, str], other: Mapping[str, str], names: tuple[str, str]) -> str | None:
    """A line for the log where the set `other` shows pictures of `train`; `names` are what the two sets are called."""
    shared = shared_pictures(train, other)
    if not shared:
        return None
    path, there = shared[0]
    example = path if path == there else f"{path}, there {there}"
    return (
        f"{len(shared):,} of the {len(other):,} panoramas of the {names[1]} set are in the {names[0]} set too, by "
        f"their content (for instance {example}): its numbers say little about panoramas that were never seen"
    )


def views_of_csv(folder: str | Path, csv_path: str | Path) -> ViewCache:
    """The cached views of a prepared CSV's pictures, by content: of each the very picture that was prepared.

    Raises DataError where the cache holds other pictures.
    """
    return ViewCache(folder, read_images(csv_path))
