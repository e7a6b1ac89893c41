"""A YAML file enters; a plain dictionary and the line of every key leave.

Read with libyaml's safe parser. On top of it: `1e-5` is a number (PyYAML's YAML 1.1 calls it text), a key that
stands twice is an error, dates and times stay text, tags are refused. The price: a mapping is walked in Python
instead of being built in C, about 1 ms for an experiment's file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from panollava.errors import ConfigError

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INT = re.compile(r"[-+]?\d[\d_]*|0x[0-9a-fA-F]+|0o[0-7]+")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "yes": True, "on": True}
_WORDS |= {"false": False, "no": False, "off": False}


@dataclass
class YamlFile:
    """What a file says: its values, and the line (from 1) of each dotted key."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    def line_of(self, key: str) -> int | None:
        """The line of `key`, or of the nearest part of it that the file has."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return self.lines.get(key)

    def where(self, key: str) -> str:
        line = self.line_of(key)
        return f"{self.path}:{line}" if line else self.path


def read_yaml(path: str | Path, shown_as: str | None = None) -> YamlFile:
    """Read the mapping in `path`. Raises ConfigError naming file and line: missing, not UTF-8, broken, doubled keys."""
    shown = shown_as or str(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{shown}: not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from None
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown_as: str) -> YamlFile:
    """The same for text that was read already."""
    try:
        root = yaml.compose(text, Loader=_SAFE)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_one_line(error, text, shown_as)) from None
    except (yaml.YAMLError, RecursionError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "nested too deeply"
        raise ConfigError(f"{shown_as}: not valid YAML: {first}") from None
    found = YamlFile(shown_as)
    if root is None:
        return found
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{shown_as}:1: expected `key: value` lines at the top, got {_kind(root)}")
    found.values = _Walker(found).mapping(root, "")
    return found


class _Walker:
    def __init__(self, found: YamlFile) -> None:
        self.found = found
        self.problems: list[str] = []
        self.open: set[int] = set()

    def fail(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.found.path}:{node.start_mark.line + 1}: {problem}")

    def value(self, node: yaml.Node, key: str) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        if id(node) in self.open:
            raise self.fail(node, f"{key} contains itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, key)
            if node.tag != "tag:yaml.org,2002:seq":
                raise self.fail(node, f"the tag {node.tag} is not allowed")
            return [self.value(item, f"{key}.{index}") for index, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
        if node.tag != "tag:yaml.org,2002:map":
            raise self.fail(node, f"the tag {node.tag} is not allowed")
        own: dict[str, Any] = {}
        inherited: dict[str, Any] = {}
        first_line: dict[str, int] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if name_node.tag == "tag:yaml.org,2002:merge":
                inherited |= self.inherit(value_node, key)
                continue
            if not isinstance(name_node, yaml.ScalarNode):
                raise self.fail(name_node, "a key must be a word")
            name = name_node.value
            dotted = f"{key}.{name}" if key else name
            if name in first_line:
                raise self.fail(
                    name_node, f"{dotted} stands twice (first in line {first_line[name]}). Keep one of them"
                )
            first_line[name] = line
            self.found.lines[dotted] = line
            own[name] = self.value(value_node, dotted)
        return inherited | own

    def inherit(self, node: yaml.Node, key: str) -> dict[str, Any]:
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            if not isinstance(source, yaml.MappingNode):
                raise self.fail(source, "`<<` takes a mapping")
            merged |= self.value(source, key)
        return merged

    def scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if node.style in ("'", '"', "|", ">") and not node.tag.startswith("!"):
            return text
        if node.tag.startswith("!") or node.tag.startswith("tag:yaml.org,2002:python"):
            raise self.fail(node, f"the tag {node.tag} is not allowed")
        if node.tag == "tag:yaml.org,2002:str" and not _FLOAT.fullmatch(text):
            return text
        lower = text.lower()
        if lower in _WORDS:
            return _WORDS[lower]
        if _INT.fullmatch(text):
            bare = text.replace("_", "")
            return int(bare, 0) if bare[:2] in ("0x", "0o") else int(bare, 10)
        if _FLOAT.fullmatch(text):
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
        return text


def _kind(node: yaml.Node) -> str:
    return "a list" if isinstance(node, yaml.SequenceNode) else f"{str(node.value)[:40]!r}"


def _one_line(error: yaml.MarkedYAMLError, text: str, shown_as: str) -> str:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines() or [""]
    line = min(mark.line + 1 if mark else 1, len(lines))
    while line > 1 and not lines[line - 1].strip():  # something is missing at the end: show where the text ends
        line -= 1
    written = lines[line - 1]
    indent = written[: len(written) - len(written.lstrip())]
    if "\t" in indent or (mark and written[mark.column : mark.column + 1] == "\t"):
        return f"{shown_as}:{line}: a tab stands where YAML wants spaces. Replace it by spaces"
    problem = " ".join(str(error.problem or error.context).split())
    return f"{shown_as}:{line}: not valid YAML: {problem}. The line: {written.strip()[:80]!r}"
