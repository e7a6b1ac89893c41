"""Prepare input CSVs: write the prepared CSV, `rejected.csv` and a summary.

Every image is found (or fetched), read once and fully decoded, so that nothing behind this step meets a damaged
panorama. Rows keep their order and their text; a row that cannot be used is dropped with its source line and the
reason, never repaired by guess, swapped or given a black image. Doubled rows stay: references may repeat.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from panollava.config.fingerprints import PlannedSource
from panollava.data.details import NO_DETAILS, Details, columns_of
from panollava.data.download import DownloadError, ImageCache
from panollava.data.embedded import write_embedded
from panollava.data.formats import Table, TableRow, read_source
from panollava.data.prepared_images import write_images
from panollava.data.prompting import instructed
from panollava.data.questions import check_places, needs_size
from panollava.data.samples import PREPARED_COLUMNS, Row, sample_key
from panollava.data.tables import REJECTED_COLUMNS, is_url, resolve_image, why_no_image, write_table
from panollava.errors import DataError, FileChanged
from panollava.files import sha256_file
from panollava.logs import LOGGER
from panollava.processes import available_cores
from panollava.progress import track
from panollava.views.panorama import PanoramaError, decode_panorama, load_panorama, read_image, warn_if_unstitched

_DOWNLOADS_AT_ONCE = 8
_REASONS_SHOWN = 10
_WAITING = 256
"""Pictures that wait to be checked: the work for minutes, and no memory."""


@dataclass(frozen=True)
class PrepareSummary:
    """What became of the rows. `reasons` counts rejected rows by the reason's name (the text before `: `)."""

    num_rows: int
    num_accepted: int
    num_rejected: int
    num_images: int
    num_samples: int
    reasons: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        text = (
            f"{self.num_rows} rows: {self.num_accepted} prepared ({self.num_samples} samples, "
            f"{self.num_images} images), {self.num_rejected} rejected"
        )
        listed = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"{text} ({listed})" if listed else text


def prepare_csv(
    csv_paths: Sequence[str | Path],
    output_csv: str | Path,
    rejected_csv: str | Path,
    *,
    columns: Mapping[str, str | None] | None = None,
    format: str = "auto",
    max_rejected_fraction: float = 0.05,
    root: str | Path = ".",
    fetch: ImageCache | None = None,
    surviving_csv: str | Path | None = None,
    planned: Sequence[PlannedSource] = (),
    progress: bool = True,
    within: Sequence[Path] | None = None,
    instruct: bool = True,
) -> PrepareSummary:
    """Concatenate and check sources of any format; write a prepared CSV (`samples`) and what was rejected.

    Image paths are written relative to `root` where they lie below it, else absolute. `fetch` turns an http(s) URL
    into a verified file; without it such rows are rejected. `within` are the only folders from which a CSV of others
    may have pictures opened. `instruct` (`evaluation.answer_instruction`) has the prompt of a question with a right
    answer say which kind of answer is wanted. Raises DataError where a CSV cannot be read, where no row is left or
    where more than `max_rejected_fraction` were rejected: then `rejected_csv` exists, and its copy `surviving_csv`
    outside a job's outputs, but no prepared CSV, not even an older one. Raises FileChanged, before anything is written,
    where a CSV or a picture that was read is not the one in `planned`. What the pictures were, images.json
    beside the prepared CSV says (`prepared_images`).
    """
    tables = [read_source(path, columns, format) for path in csv_paths]
    for note in dict.fromkeys(f"{table.path}: {note}" for table in tables for note in table.notes):
        LOGGER.warning("%s", note)
    rows = tables[0].rows if len(tables) == 1 else tuple(row for table in tables for row in table.rows)
    embedded = write_embedded(csv_paths, format, rows, fetch.folder if fetch else Path(root) / "cache/images")
    images = _check_images(rows, Path(root), fetch, progress, within, embedded)
    _refuse_changed(images, planned)

    accepted: list[Row] = []
    digests: dict[str, str] = {}
    rejected: list[tuple[TableRow, str]] = []
    for row in rows:
        if row.problem is not None:
            rejected.append((row, row.problem))
            continue
        image = images[row.source_csv, row.image_path]
        if image.problem is not None:
            rejected.append((row, image.problem))
        else:
            try:
                details = _completed(row, root, image.written, instruct)
            except ValueError as error:
                rejected.append((row, f"question not usable: {error}"))
                continue
            accepted.append(Row(image.written, row.query, row.annotation, details))
            digests[image.written] = image.sha256

    summary = _summary(accepted, rejected)
    if fetch is not None and (downloads := fetch.summary()):
        LOGGER.info("%s", downloads)
    LOGGER.info("%s", summary)
    _log_reasons(rejected)
    header, lines = _rejected_lines(tables, rejected)
    write_table(rejected_csv, header, lines)
    if surviving_csv is not None:
        Path(surviving_csv).unlink(missing_ok=True)
    if not accepted or len(rejected) / len(rows) > max_rejected_fraction:
        Path(output_csv).unlink(missing_ok=True)
        if surviving_csv is not None:
            write_table(surviving_csv, header, lines)
        limit = f"At most {max_rejected_fraction:.1%} may be rejected (data.max_rejected_fraction)"
        causes = [] if fetch is None else fetch.given_up
        if causes:
            causes = ["; ".join(causes), "What was downloaded is kept: run the same command again"]
        where = f"Each row and its reason: {surviving_csv or rejected_csv}"
        raise DataError(". ".join([str(summary), limit if accepted else "No row is left", *causes, where]))
    _write_prepared(output_csv, accepted)
    write_images(output_csv, digests)
    return summary


def _completed(row: TableRow, root: str | Path, panorama: str, instruct: bool) -> Details:
    """The row's details with the panorama's size where its answer needs it, and what the prompt says of answers.

    Raises ValueError where the answer is no place in the panorama.
    """
    details = row.details
    if details is NO_DETAILS:
        return details
    if needs_size(row.annotation, details):
        height, width = _size_of(str(Path(root) / panorama))
        details = replace(details, width=width, height=height)
    check_places(row.annotation, details)
    return instructed(row.annotation, details, instruct)


@lru_cache(maxsize=1024)
def _size_of(panorama: str) -> tuple[int, int]:
    """Height and width of the full panorama."""
    height, width = load_panorama(panorama).shape[:2]
    return height, width


def _write_prepared(path: str | Path, rows: Sequence[Row]) -> None:
    """The canonical columns, and of the further ones those that some row needs."""
    further = columns_of(row.details for row in rows)

    def lines() -> Iterator[list[str]]:
        for row in rows:
            details = row.details.to_fields() if further else {}
            yield [row.image_path, row.query, row.annotation, *(details.get(name, "") for name in further)]

    write_table(path, [*PREPARED_COLUMNS, *further], lines())


@dataclass(frozen=True, slots=True)
class _Image:
    """What a row's picture is: its path in the prepared CSV, the SHA-256 of what was read of it ("" where nothing
    was), and why it cannot be used."""

    written: str = ""
    problem: str | None = None
    try_again: bool = False
    sha256: str = ""


def _check_images(
    rows: Sequence[TableRow],
    root: Path,
    fetch: ImageCache | None,
    progress: bool,
    within: Sequence[Path] | None,
    embedded: Mapping[str, Path],
) -> dict[tuple[str, str], _Image]:
    """What each (CSV, image path) means; every file is fetched and decoded once, many at a time."""
    named = dict.fromkeys((row.source_csv, row.image_path) for row in rows if row.problem is None)
    files: dict[tuple[str, str], str] = {}  # what each name means: a URL or a file
    missing: dict[tuple[str, str], _Image] = {}
    for csv_path, image_path in named:
        if is_url(image_path):
            files[csv_path, image_path] = image_path
        elif image_path in embedded:
            files[csv_path, image_path] = _plain(embedded[image_path])
        elif (found := resolve_image(image_path, csv_path, root, within)) is not None:
            files[csv_path, image_path] = _plain(found)
        elif within is not None and resolve_image(image_path, csv_path, root) is not None:
            problem = "image missing: outside of the folders that the CSV of a folder of others may name (--csv-input)"
            missing[csv_path, image_path] = _Image(problem=problem)
        else:
            detail = why_no_image(image_path, csv_path, root)
            missing[csv_path, image_path] = _Image(problem=f"image missing: {detail}" if detail else "image missing")

    checked = _check_files(list(dict.fromkeys(files.values())), root, fetch, progress)
    # What failed for the moment (a busy server) is tried once more when everything else is done.
    if again := [file for file, image in checked.items() if image.try_again]:
        LOGGER.info("Trying %d downloads again", len(again))
        checked |= _check_files(again, root, fetch, progress)
    return {name: missing[name] if name in missing else checked[files[name]] for name in named}


def _check_files(files: Sequence[str], root: Path, fetch: ImageCache | None, progress: bool) -> dict[str, _Image]:
    some_urls = any(is_url(file) for file in files)
    label = "Downloading and checking images" if some_urls else "Checking images"
    checked: dict[str, _Image] = {}
    with ThreadPoolExecutor(max(available_cores(), _DOWNLOADS_AT_ONCE if some_urls else 1)) as pool:
        try:
            for file, image in track(_in_turn(pool, files, root, fetch), len(files), label, enabled=progress):
                checked[file] = image
        except BaseException:
            if fetch is not None and some_urls:
                fetch.cancel()
                LOGGER.warning("interrupted: what was downloaded is kept, the same command goes on from there")
            pool.shutdown(cancel_futures=True)
            raise
    return checked


def _in_turn(
    pool: ThreadPoolExecutor, files: Sequence[str], root: Path, fetch: ImageCache | None
) -> Iterator[tuple[str, _Image]]:
    """Each file and what it is, as they are done; never more than _WAITING wait to be."""
    waiting: dict[Future[_Image], str] = {}
    done: SimpleQueue[Future[_Image]] = SimpleQueue()
    for file in files:
        if len(waiting) >= _WAITING:
            future = done.get()
            yield waiting.pop(future), future.result()
        future = pool.submit(_check_image, file, root, fetch)
        waiting[future] = file
        future.add_done_callback(done.put)
    while waiting:
        future = done.get()
        yield waiting.pop(future), future.result()


def _check_image(file: str, root: Path, fetch: ImageCache | None) -> _Image:
    sha256 = ""
    try:
        if not is_url(file):
            content = read_image(file)
            sha256 = hashlib.sha256(content).hexdigest()
            # The smallest scale is the fastest.
            warn_if_unstitched(decode_panorama(content, file, min_width=1, to_the_end=True), file)
        elif fetch is None:
            return _Image(problem="download failed: no image cache was given")
        else:
            file = _plain(fetch(file))
            sha256 = sha256_file(file)
    except DownloadError as error:
        return _Image(problem=f"download failed: {error}", try_again=error.temporary)
    except PanoramaError as error:
        message = f"{error.reason}: {error.detail}" if error.detail else error.reason
        return _Image(problem=error.of_download if is_url(file) else message, sha256=sha256)
    below_root = Path(file).is_relative_to(_plain(root))
    written = Path(file).relative_to(_plain(root)).as_posix() if below_root else Path(file).as_posix()
    return _Image(written, sha256=sha256)


def _refuse_changed(images: Mapping[tuple[str, str], _Image], planned: Sequence[PlannedSource]) -> None:
    """Raise FileChanged for a picture whose content is not the planned one, or where the rows are others by now."""
    before = {name: digest for source in planned for name, digest in source.pictures.items()}
    for name in images.keys() & before.keys():
        image, digest = images[name], before[name] or ""
        unread = image.problem is not None and not image.sha256 and not image.problem.startswith("image missing")
        if not unread and digest != image.sha256:  # too large a file is not read at all
            raise FileChanged(f"{name[1]} of {name[0]}", "changed" if digest and image.sha256 else "came or went")
    for source in planned:
        source.check()


def _plain(path: Path) -> str:
    """The absolute path without `..`; links stay as they are, unless a `..` steps out of one."""
    plain = os.path.normpath(path.absolute())
    same = ".." not in path.parts or os.path.realpath(plain) == os.path.realpath(path)
    return plain if same else os.path.realpath(path)


def _log_reasons(rejected: Sequence[tuple[TableRow, str]]) -> None:
    """The commonest reasons, each with its first row."""
    first: dict[str, TableRow] = {}
    for row, reason in rejected:
        first.setdefault(reason, row)
    counts = Counter(reason for _, reason in rejected)
    for reason, count in counts.most_common(_REASONS_SHOWN):
        more = f" and {count - 1} more" if count > 1 else ""
        LOGGER.warning("%s, line %d%s rejected: %s", first[reason].source_csv, first[reason].source_line, more, reason)
    if len(counts) > _REASONS_SHOWN:
        LOGGER.warning("… and %d further reasons: see rejected.csv", len(counts) - _REASONS_SHOWN)


def _summary(accepted: Sequence[Row], rejected: Sequence[tuple[TableRow, str]]) -> PrepareSummary:
    return PrepareSummary(
        num_rows=len(accepted) + len(rejected),
        num_accepted=len(accepted),
        num_rejected=len(rejected),
        num_images=len({row.image_path for row in accepted}),
        num_samples=_num_samples(accepted),
        reasons=dict(Counter(reason.split(": ", 1)[0] for _, reason in rejected).most_common()),
    )


def _num_samples(rows: Sequence[Row]) -> int:
    """How many questions the rows are. Of millions only hashes are held, 64 bits each."""
    hashes = np.fromiter((hash(sample_key(row)) for row in rows), np.int64, len(rows))
    return len(np.unique(hashes))


def _rejected_lines(
    tables: Sequence[Table], rejected: Sequence[tuple[TableRow, str]]
) -> tuple[list[str], list[list[str]]]:
    """The header and lines of rejected.csv: source, line, reason, then the row's fields under their own names.

    Of several CSVs it has all columns, a name that occurs twice in a header twice; fields beyond a row's header go into
    unnamed columns at the end.
    """
    headers = {row.source_csv: table.header for table in tables for row in table.rows}
    columns = {
        header: [(name, header[:place].count(name)) for place, name in enumerate(header)] for header in headers.values()
    }
    order = {key: place for place, key in enumerate(dict.fromkeys(key for keys in columns.values() for key in keys))}
    places = {header: [order[key] for key in keys] for header, keys in columns.items()}
    names = [name for name, _ in order]
    surplus = max((len(row.fields) - len(headers[row.source_csv]) for row, _ in rejected), default=0)
    lines = []
    for row, reason in rejected:
        header = headers[row.source_csv]
        line = [""] * (len(names) + max(0, surplus))
        for place, text in zip(places[header], row.fields, strict=False):
            line[place] = text
        for place, text in enumerate(row.fields[len(header) :], start=len(names)):
            line[place] = text
        lines.append([row.source_csv, str(row.source_line), reason, *line])
    return [*REJECTED_COLUMNS, *names, *[""] * surplus], lines
