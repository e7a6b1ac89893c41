"""Parquet files, folders of them, and what `datasets.save_to_disk` writes. Needs the extra `datasets` (pyarrow).

The image column holds paths or image files themselves, as Hugging Face's image feature does (`{"bytes", "path"}`). A
column of several types (4 beside "four", content that is a text or a list) is one of JSON texts since datasets 5. A
ClassLabel of datasets is read as the name of its class, within lists and mappings too.
Rows are read in small batches, and of pictures no more than the digest is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from panollava.data.formats.pictures import EmbeddedImage, files_in
from panollava.data.formats.records import Record, table_of
from panollava.data.formats.rows import Columns, Format, Table
from panollava.errors import DataError
from panollava.files import read_json

_MAGIC = b"PAR1"
_STATE, _DICT = "state.json", "dataset_dict.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_ROWS_AT_ONCE = 32
_JSON = "arrow.json"
_LABEL = "ClassLabel"


def read_parquet(path: Path, columns: Columns) -> Table:
    """Raises DataError that names the file and what was found."""
    records = [
        Record(number, {name: _without_bytes(value) for name, value in row.items()})
        for number, row in enumerate(_rows(path), start=1)
    ]
    return table_of(path, records, columns)


def _embedded(path: Path) -> Iterator[bytes]:
    for row in _rows(path):
        for value in row.values():
            yield from files_in(value)


def _without_bytes(value: Any) -> Any:
    """A value in which an EmbeddedImage stands for each image file."""
    if isinstance(value, bytes):
        return EmbeddedImage.of(value)
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes):
            return EmbeddedImage.of(value["bytes"])
        if set(value) == {"bytes", "path"}:
            return value["path"]
        return {name: _without_bytes(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_bytes(one) for one in value]
    return value


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file or folder, a few in memory at a time."""
    arrow = _pyarrow()
    for file in _files(path):
        try:
            yield from _rows_of_parquet(file) if file.suffix != ".arrow" else _rows_of_arrow(file)
        except (arrow.ArrowException, OSError) as error:
            raise DataError(f"{file} cannot be read: {error}") from error


def _rows_of_parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(file) as source:
        yield from _dictionaries(source.schema_arrow, source.iter_batches(batch_size=_ROWS_AT_ONCE))


def _rows_of_arrow(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow

    with pyarrow.memory_map(str(file)) as memory, pyarrow.ipc.open_stream(memory) as source:
        few = (
            batch.slice(start, _ROWS_AT_ONCE) for batch in source for start in range(0, batch.num_rows, _ROWS_AT_ONCE)
        )
        yield from _dictionaries(source.schema, few)


def _dictionaries(schema: Any, batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """The rows of record batches; JSON texts as what they say, class labels as their names."""
    with_json = [field for field in schema if _JSON in str(field.type) or _is_json(field)]
    labelled = _labelled(schema.metadata or {})
    for batch in batches:
        for row in batch.to_pylist():
            yield (
                row
                | {field.name: _decoded(row[field.name], field) for field in with_json}
                | {column: _with_names(row[column], feature) for column, feature in labelled.items() if column in row}
            )


def _labelled(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """The features of the columns that hold class labels, at any depth, as datasets notes them."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):  # another program's, or none
        return {}
    columns = features.items() if isinstance(features, dict) else ()
    return {column: feature for column, feature in columns if _LABEL in json.dumps(feature)}


def _with_names(value: Any, feature: Any) -> Any:
    """A value in which names of classes stand for their numbers; None where a class has none (datasets writes -1).

    A feature is `{"_type": "ClassLabel", "names": [...]}`, a mapping of a struct's fields, or a list:
    `{"_type": "List", "feature": ...}`, before datasets 4 "Sequence" (of a struct's fields, a struct of lists) or
    `[...]`.
    """
    if isinstance(feature, list):
        return _with_names(value, feature[0]) if feature else value
    if not isinstance(feature, dict):
        return value
    kind = feature.get("_type")
    if isinstance(kind, str) and "feature" in feature:
        return _with_names(value, feature["feature"])
    if isinstance(value, list):
        return [_with_names(one, feature) for one in value]
    if isinstance(value, dict) and not isinstance(kind, str):
        return {name: _with_names(one, feature.get(name)) for name, one in value.items()}
    names = feature.get("names")
    if kind != _LABEL or not isinstance(value, int) or not isinstance(names, list) or not names:
        return value
    return names[value] if 0 <= value < len(names) else None


def _is_json(field: Any) -> bool:
    """Whether a field is of Arrow's type for JSON; a pyarrow older than 19 has only the field's metadata for it."""
    name = (
        getattr(field.type, "extension_name", None) or (field.metadata or {}).get(b"ARROW:extension:name", b"").decode()
    )
    return bool(name == _JSON)


def _decoded(value: Any, field: Any) -> Any:
    if _is_json(field) and isinstance(value, str):
        try:
            said = json.loads(value)
        except ValueError:
            return value  # datasets leaves a text that looks like a number as it was: 007
        return value if isinstance(said, int | float) else said  # 3.50 stays as it is written
    kind = field.type
    if isinstance(value, dict):
        return {part.name: _decoded(value[part.name], part) for part in map(kind.field, range(kind.num_fields))}
    if isinstance(value, list) and getattr(kind, "value_field", None) is not None:
        return [_decoded(one, kind.value_field) for one in value]
    return value


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
    except ImportError as error:
        raise DataError(
            "Parquet files and folders of datasets.save_to_disk need pyarrow, the extra datasets: "
            "`pip install -e '.[datasets]'`"
        ) from error
    return pyarrow


def _files(path: Path) -> list[Path]:
    """The files with rows, in order. Raises DataError for a folder of several splits."""
    if not path.is_dir():
        return [path]
    if (path / _DICT).is_file():
        splits = read_json(path / _DICT).get("splits", [])
        if len(splits) == 1:
            return _files(path / splits[0])
        listed = ", ".join(str(path / split) for split in splits)
        raise DataError(f"{path} holds several splits. Name one of them: {listed}")
    if (path / _STATE).is_file():
        try:
            return [path / file["filename"] for file in read_json(path / _STATE)["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path / _STATE} is damaged: {error!r}") from error
    files = sorted(path.glob("*.parquet"))
    splits = sorted({_SHARD.sub("", file.stem) for file in files})
    if len(splits) > 1:
        raise DataError(f"{path} holds the Parquet files of several tables ({', '.join(splits)}). Name one file of it")
    return files


def _matches(path: Path) -> bool:
    if path.is_dir():
        return (path / _STATE).is_file() or (path / _DICT).is_file() or any(path.glob("*.parquet"))
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(_MAGIC)) == _MAGIC


PARQUET = Format("parquet", matches=_matches, read=read_parquet, files=_files, embedded=_embedded)
