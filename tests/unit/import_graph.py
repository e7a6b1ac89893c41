"""Which of panollava's modules imports which, read from the source: at once, inside functions, for types alone."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/panollava"

AT_ONCE, IN_FUNCTION, FOR_TYPES = "at once", "in a function", "for types"


@functools.cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        parts = ("panollava", *file.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@functools.cache
def parsed(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imports(tree: ast.AST, kind: str = AT_ONCE) -> Iterator[tuple[str, str]]:
    """(module, kind) of every import of panollava's modules below `tree`."""
    if isinstance(tree, ast.ImportFrom) and (tree.module or "").partition(".")[0] == "panollava":
        assert tree.level == 0 and tree.module is not None
        for alias in tree.names:
            whole = f"{tree.module}.{alias.name}"
            yield (whole if whole in modules() else tree.module), kind
    elif isinstance(tree, ast.Import):
        yield from ((alias.name, kind) for alias in tree.names if alias.name.partition(".")[0] == "panollava")
    elif isinstance(tree, ast.If) and "TYPE_CHECKING" in ast.dump(tree.test):
        for child in tree.body:
            yield from imports(child, FOR_TYPES)
    else:
        inner = kind
        if isinstance(tree, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            inner = IN_FUNCTION
        for child in ast.iter_child_nodes(tree):
            yield from imports(child, inner)


@functools.cache
def graph(*kinds: str) -> dict[str, frozenset[str]]:
    """Each module and the modules that it imports in one of these ways."""
    return {
        name: frozenset(other for other, kind in imports(parsed(name)) if kind in kinds and other != name)
        for name in modules()
    }


def circles(edges: dict[str, frozenset[str]]) -> list[set[str]]:
    """Groups of nodes that reach each other."""
    reach: dict[str, set[str]] = {}
    for node in edges:
        seen, todo = set[str](), [node]
        while todo:
            new = edges.get(todo.pop(), frozenset()) - seen
            seen |= new
            todo += new
        reach[node] = seen
    groups = {frozenset(o for o in reach[node] if node in reach.get(o, ())) for node in edges if node in reach[node]}
    return [set(group) for group in groups]


def by_package(edges: dict[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """The same between packages: `panollava.views.jpeg` -> `views`; a module of the top counts as one."""
    found: dict[str, set[str]] = {}
    for name, others in edges.items():
        found.setdefault(package_of(name), set()).update(package_of(other) for other in others)
    return {name: frozenset(others - {name}) for name, others in found.items()}


def package_of(module: str) -> str:
    return ".".join(module.split(".")[1:2]) or "panollava"
