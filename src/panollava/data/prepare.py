"""Input CSVs enter; the prepared CSV, `rejected.csv` and a summary leave.

Every image is found (or fetched), read once and fully decoded, so that nothing behind this step meets a damaged
panorama. Rows keep their order and their text; a row that cannot be used is dropped with its source line and the
reason, never repaired by guess, swapped or given a black image. Doubled rows stay: references may repeat.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from panollava.data.download import DownloadError
from panollava.data.samples import PREPARED_COLUMNS
from panollava.data.tables import Table, TableRow, is_url, read_table, resolve_image, write_table
from panollava.errors import DataError
from panollava.logs import LOGGER
from panollava.progress import track
from panollava.views.cache import available_cores
from panollava.views.panorama import PanoramaError, load_panorama

_REJECTED_COLUMNS = ("source_csv", "source_line", "reason")
_DOWNLOADS_AT_ONCE = 8
_REJECTED_SHOWN = 10

Fetch = Callable[[str], Path]


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
    max_rejected_fraction: float = 0.05,
    root: str | Path = ".",
    fetch: Fetch | None = None,
    surviving_csv: str | Path | None = None,
    progress: bool = True,
) -> PrepareSummary:
    """Concatenate and check CSVs; write `image_path,query,annotation` and what was rejected.

    Image paths are written relative to `root` where they lie below it, else absolute. `fetch` turns an http(s) URL
    into a file (`download.ImageCache`); without it such rows are rejected. Raises DataError where a CSV cannot be
    read, where no row is left or where more than `max_rejected_fraction` were rejected: then `rejected_csv` stands,
    and its copy `surviving_csv` outside a job's outputs, but no prepared CSV, not even an older one.
    """
    tables = [read_table(path, columns) for path in csv_paths]
    rows = [row for table in tables for row in table.rows]
    images = _check_images(rows, Path(root), fetch, progress)

    accepted: list[tuple[str, str, str]] = []
    rejected: list[tuple[TableRow, str]] = []
    for row in rows:
        if row.problem is not None:
            rejected.append((row, row.problem))
            continue
        image = images[row.source_csv, row.image_path]
        if image.problem is not None:
            rejected.append((row, image.problem))
        else:
            accepted.append((image.written, row.query, row.annotation))

    summary = _summary(accepted, rejected)
    LOGGER.info("%s", summary)
    for row, reason in rejected[:_REJECTED_SHOWN]:
        LOGGER.warning("%s, line %d rejected: %s", row.source_csv, row.source_line, reason)
    header, lines = _rejected_lines(tables, rejected)
    write_table(rejected_csv, header, lines)
    if surviving_csv is not None:
        Path(surviving_csv).unlink(missing_ok=True)
    if not accepted or len(rejected) / len(rows) > max_rejected_fraction:
        Path(output_csv).unlink(missing_ok=True)
        if surviving_csv is not None:
            write_table(surviving_csv, header, lines)
        raise DataError(
            f"{summary}. At most {max_rejected_fraction:.1%} may be rejected (data.max_rejected_fraction). "
            f"Each row and its reason: {surviving_csv or rejected_csv}"
        )
    write_table(output_csv, PREPARED_COLUMNS, accepted)
    return summary


@dataclass(frozen=True)
class _Image:
    written: str = ""
    problem: str | None = None


def _check_images(
    rows: Sequence[TableRow], root: Path, fetch: Fetch | None, progress: bool
) -> dict[tuple[str, str], _Image]:
    """What each (CSV, image path) means; every file is fetched and decoded once, many at a time."""
    named = dict.fromkeys((row.source_csv, row.image_path) for row in rows if row.problem is None)
    files: dict[tuple[str, str], str] = {}  # what each name stands for: a URL or a file
    for csv_path, image_path in named:
        if is_url(image_path):
            files[csv_path, image_path] = image_path
        elif (found := resolve_image(image_path, csv_path, root)) is not None:
            files[csv_path, image_path] = _plain(found)

    distinct = list(dict.fromkeys(files.values()))
    some_urls = any(is_url(file) for file in distinct)
    checked: dict[str, _Image] = {}
    with ThreadPoolExecutor(max(available_cores(), _DOWNLOADS_AT_ONCE if some_urls else 1)) as pool:
        futures = {pool.submit(_check_image, file, root, fetch): file for file in distinct}
        try:
            for future in track(as_completed(futures), len(distinct), "Checking images", enabled=progress):
                checked[futures[future]] = future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    missing = _Image(problem="image missing")
    return {name: checked[files[name]] if name in files else missing for name in named}


def _check_image(file: str, root: Path, fetch: Fetch | None) -> _Image:
    try:
        if not is_url(file):
            load_panorama(file, min_width=1)  # the smallest scale still reads the file to its end
        elif fetch is None:
            return _Image(problem="download failed: no image cache was given")
        else:
            file = _plain(_fetch_panorama(file, fetch))
    except DownloadError as error:
        return _Image(problem=f"download failed: {error}")
    except PanoramaError as error:
        return _Image(problem=f"{error.reason}: {error.detail}" if error.detail else error.reason)
    below_root = Path(file).is_relative_to(_plain(root))
    return _Image(Path(file).relative_to(_plain(root)).as_posix() if below_root else Path(file).as_posix())


def _fetch_panorama(url: str, fetch: Fetch) -> Path:
    """The verified file of a URL; a damaged one is fetched again, once."""
    file = fetch(url)
    try:
        load_panorama(file, min_width=1)
    except PanoramaError as error:
        if error.reason == "not about 2:1":
            raise
        file.unlink(missing_ok=True)
        file = fetch(url)
        load_panorama(file, min_width=1)
    return file


def _plain(path: Path) -> str:
    """The absolute path without `..`; links stay as they are, unless a `..` steps out of one."""
    plain = os.path.normpath(path.absolute())
    same = ".." not in path.parts or os.path.realpath(plain) == os.path.realpath(path)
    return plain if same else os.path.realpath(path)


def _summary(accepted: Sequence[tuple[str, str, str]], rejected: Sequence[tuple[TableRow, str]]) -> PrepareSummary:
    return PrepareSummary(
        num_rows=len(accepted) + len(rejected),
        num_accepted=len(accepted),
        num_rejected=len(rejected),
        num_images=len({image for image, _, _ in accepted}),
        num_samples=len({(image, query) for image, query, _ in accepted}),
        reasons=dict(Counter(reason.split(": ", 1)[0] for _, reason in rejected).most_common()),
    )


def _rejected_lines(
    tables: Sequence[Table], rejected: Sequence[tuple[TableRow, str]]
) -> tuple[list[str], list[list[str]]]:
    """The header and lines of rejected.csv: source, line, reason, then the row's fields under their own names.

    Of several CSVs it has all columns; fields beyond a row's header go into unnamed columns at the end.
    """
    headers = {str(table.path): table.header for table in tables}
    if len(set(headers.values())) == 1:
        names = list(tables[0].header)
        places = {names_of: list(range(len(names_of))) for names_of in headers.values()}
    else:
        names = list(dict.fromkeys(name for table in tables for name in table.header))
        places = {names_of: [names.index(name) for name in names_of] for names_of in headers.values()}
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
    return [*_REJECTED_COLUMNS, *names, *[""] * surplus], lines
