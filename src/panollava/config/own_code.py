"""Compute the digest of a custom metric's code: its own module and all project modules that it imports.

Takes a dotted name and the project's root. An edited helper changes the digest, so the scores are recomputed. Nothing
is imported or run: the source is read. Installed packages are not followed; their versions are recorded with the
scores.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from panollava.errors import ConfigError
from panollava.files import digest_of, sha256_file

_IMPORTERS = ("import_module", "__import__")


def code_digest(metric: str, root: Path) -> str | None:
    """Digest of `package.module:function` and its helpers below `root`; None where it is an installed package's.

    Raises ConfigError where there is neither: better now than after the training.
    """
    module = metric.partition(":")[0]
    if _file_of(module, root) is None:
        package = module.partition(".")[0]
        if find_spec(package) is None:
            raise ConfigError(
                f"evaluation.custom_metrics: {metric}: there is no {module.replace('.', '/')}.py in the project's "
                f"root, and no installed package {package}"
            )
        return None
    files: dict[str, str] = {}
    to_read = _with_packages(module)
    seen = set(to_read)
    while to_read:
        name = to_read.pop()
        file = _file_of(name, root)
        if file is None:
            continue
        stat = file.stat()
        digest, imported = _read(file, name, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)
        files[file.relative_to(root).as_posix()] = digest
        found = {one for name in imported for one in _with_packages(name)} - seen
        seen |= found
        to_read += sorted(found)
    return next(iter(files.values())) if len(files) == 1 else digest_of(sorted(files.items()))


def _file_of(module: str, root: Path) -> Path | None:
    path = root / module.replace(".", "/")
    return next((file for file in (path.with_name(f"{path.name}.py"), path / "__init__.py") if file.is_file()), None)


def _with_packages(module: str) -> list[str]:
    """A module and the packages that are imported with it."""
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


@lru_cache(maxsize=1024)
def _read(file: Path, module: str, *_: int) -> tuple[str, tuple[str, ...]]:
    """A file's SHA-256 and the modules that it may import. The further arguments change when the file does."""
    digest = sha256_file(file)
    try:
        tree = ast.parse(file.read_bytes(), os.fspath(file))
    except (SyntaxError, ValueError):  # its own failure, when it runs
        return digest, ()
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    return digest, tuple(dict.fromkeys(_imported(tree, package)))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".") if package else []
                above = parents[: len(parents) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base:
                yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if function in _IMPORTERS and isinstance(node.args[0].value, str):
                yield node.args[0].value.lstrip(".")
