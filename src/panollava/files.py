"""Files that appear whole or not at all, content digests, relative links and canonical JSON."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from panollava.errors import ConfigError, PanollavaError, StorageError
from panollava.processes import is_alive

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_ALLOWED = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it into place when the block ends without an error.

    Raises StorageError where the disk is full or the folder may not be written.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{platform.node()}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target)
        yield partial
        _to_disk(partial)
        os.replace(partial, target)
    except PanollavaError:
        raise
    except Exception as error:
        if problem := storage_error(error, target):
            raise problem from error
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_dir(folder: str | Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder` that takes its place when the block ends without an error."""
    folder = Path(folder)
    partial = folder.with_name(f".{folder.name}.{platform.node()}.{os.getpid()}.partial")
    remove_abandoned(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove_abandoned(target: Path) -> None:
    """Remove temporary files of `target` that killed processes of this machine left behind."""
    host = platform.node()
    for partial in target.parent.glob(f".{glob.escape(target.name)}.{glob.escape(host)}.*.partial"):
        pid = partial.name.removesuffix(".partial").rpartition(".")[2]
        if pid.isdigit() and not is_alive(int(pid)):
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)


def storage_error(error: BaseException, path: str | Path) -> StorageError | None:
    """The message for a user if `error` comes from a full disk or a folder that may not be written, else None.

    Libraries hide the system's error: it is looked for among the causes, too. `path` is what was being written; the
    error's own path counts where it has one and it is no temporary file.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for one in chain:
        if isinstance(one, StorageError):
            return one
        number = one.errno if isinstance(one, OSError) else None
        if number is None and "No space left on device" in str(one):  # safetensors
            number = errno.ENOSPC
        if number in _NO_ROOM + _NOT_ALLOWED:
            own = getattr(one, "filename", None)
            shown = own if isinstance(own, str) and not own.endswith(".partial") else str(path)
            remedy = "Make room there" if number in _NO_ROOM else "Allow writing there"
            return StorageError(f"{shown}: {os.strerror(number)}. {remedy}, then run the same command again.")
    return None


def refuse_overwriting(outputs: Iterable[str | Path], inputs: Iterable[str | Path]) -> None:
    """Raise ConfigError where a command would write over one of its own inputs."""
    written = {Path(path).resolve(): path for path in outputs}
    for path in inputs:
        if Path(path).resolve() in written:
            raise ConfigError(f"{path} is an input, and would be written over: choose another output folder")


def _to_disk(path: Path) -> None:
    """A renamed file must not be empty after a power failure."""
    if path.is_symlink() or not path.is_file():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8 with `\\n` newlines, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, document: Any) -> None:
    """Write `document` as indented JSON, atomically. Raises ValueError for NaN and infinity."""
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def canonical_json(document: Any) -> str:
    """The one text of a document: sorted keys, no spaces, whole floats as integers, NaN refused."""

    def normal(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): normal(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [normal(item) for item in value]
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return int(value)
        return value

    return json.dumps(normal(document), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest_of(document: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a document's canonical JSON."""
    return text_and_digest(document)[1]


def text_and_digest(document: Any) -> tuple[str, str]:
    """A document's canonical JSON, and `digest_of` it."""
    text = canonical_json(document)
    return text, digest_of_text(text)


def digest_of_text(text: str) -> str:
    """The same of a document that is canonical JSON already."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_folder(path: str | Path, without: Collection[str] = ()) -> str:
    """One SHA-256 over the names and contents of all files below `path` (dot files and those `without` left out)."""
    return digest_of_files({name: sha256_file(file) for name, file in files_below(path) if name not in without})


def files_below(folder: str | Path) -> list[tuple[str, Path]]:
    """All files below a folder but dot files and what lies in dot folders: posix path from it, and path; sorted."""
    top = Path(folder)
    files = sorted(path for path in top.rglob("*") if path.is_file())
    named = [(path.relative_to(top), path) for path in files]
    return [(name.as_posix(), path) for name, path in named if not any(part.startswith(".") for part in name.parts)]


def digest_of_files(digests: Mapping[str, str | None]) -> str:
    """`sha256_folder` from the digests of the folder's files by their posix paths from it."""
    rows = [[name, digests[name]] for name in sorted(digests, key=PurePosixPath)]
    return hashlib.sha256(canonical_json(rows).encode()).hexdigest()


def relative_link(link: str | Path, target: str | Path) -> None:
    """Point `link` at `target` by a relative path, replacing what was there in one step."""
    link = Path(link)
    with atomic_path(link) as partial:
        partial.symlink_to(os.path.relpath(target, link.parent))
