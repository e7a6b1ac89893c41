"""JSON documents with any value in any place, as a damaged disk, an editor or a stranger leaves them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

ODD: tuple[Any, ...] = (None, "x", -1, 3.5, [], {}, True, ["a", 1])


def changed(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The document without each of its keys, and with each of `ODD` in the place of each value."""

    def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in children:
            yield (*path, key)
            yield from places(child, (*path, key))

    for path in places(document):
        for value in (..., *ODD):
            other = copy.deepcopy(document)
            node: Any = other
            for key in path[:-1]:
                node = node[key]
            if value is ...:
                del node[path[-1]]
            else:
                node[path[-1]] = copy.deepcopy(value)
            yield f"{'.'.join(map(str, path))} = {value}", other
