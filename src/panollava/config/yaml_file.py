"""A YAML file read as a plain dictionary, with the line of every key.

Read with libyaml's safe parser. On top of it: `1e-5` is a number (PyYAML's YAML 1.1 calls it text), a duplicate
key is an error, dates and times stay text, tags are refused, and so are numbers that YAML 1.1 and 1.2 read
differently (`017`). Files from strangers cannot blow up: size, depth and what aliases unfold to are limited. The price:
a mapping is walked in Python instead of being built in C, about 1 ms for an experiment's file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from panollava.errors import ConfigError

_SAFE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FLOAT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", re.ASCII)
_INT = re.compile(r"[-+]?\d[\d_]*|0x[0-9a-fA-F]+", re.ASCII)
_TAGGED = re.compile(r"(&\S+\s+)?(![^\s,\]}]*)")
_FAR_RIGHT = re.compile(r"^[ ?-]{50}", re.MULTILINE)
_MAX_BYTES = 2**20
_MAX_DEPTH = 50
_MAX_VALUES = 20_000  # a configuration has some 150
_MAX_DIGITS = 100
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "yes": True, "on": True}
_WORDS |= {"false": False, "no": False, "off": False}


@dataclass
class YamlFile:
    """What a file says: its values, the line (from 1) of each dotted key, and how unquoted values are written there."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)

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
        with open(path, "rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{shown}: no such file") from None
    except UnicodeDecodeError as error:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ConfigError(f"{shown}: UTF-16 or UTF-32 text. Save it as UTF-8") from None
        line = 1 + content.count(b"\n", 0, error.start)
        found = f"byte 0x{content[error.start]:02x}"
        raise ConfigError(f"{shown}:{line}: not UTF-8 text ({found}). Save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{shown}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL character in the path
        raise ConfigError(f"{shown!r}: cannot be read: {error}") from None
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{shown}: larger than {_MAX_BYTES // 2**20} MiB, which no configuration is")
    return parse_yaml(text, shown)


def parse_yaml(text: str, shown_as: str) -> YamlFile:
    """The same for text that was read already."""
    try:
        _refuse_depth(text, shown_as)
        root = yaml.compose(text, Loader=_SAFE)
    except yaml.reader.ReaderError as error:
        line = 1 + text.count("\n", 0, max(0, text.find(chr(error.character))))
        problem = f"the character U+{error.character:04X} is not allowed"
        raise ConfigError(f"{shown_as}:{line}: not valid YAML: {problem}. Is it text in UTF-8?") from None
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_one_line(error, text, shown_as)) from None
    except (yaml.YAMLError, RecursionError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "nested too deeply"
        raise ConfigError(f"{shown_as}: not valid YAML: {first}") from None
    found = YamlFile(shown_as)
    if root is None:
        return found
    walker = _Walker(found, text)
    walker.refuse_tag(root)
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{shown_as}:1: expected `key: value` lines at the top, got {_kind(root)}")
    found.values = walker.mapping(root, "")
    return found


def _refuse_depth(text: str, shown_as: str) -> None:
    """Before a document is composed, which recurses: brackets, and columns in which something may begin, nest."""
    if text.count("[") + text.count("{") <= _MAX_DEPTH and not _FAR_RIGHT.search(text):
        return
    depth = 0
    for event in yaml.parse(text, Loader=_SAFE):
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > _MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise ConfigError(f"{shown_as}:{line}: nested more than {_MAX_DEPTH} levels deep")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


class _Walker:
    def __init__(self, found: YamlFile, text: str) -> None:
        self.found = found
        self.text = text
        self.count = 0
        self.open: set[int] = set()

    def fail(self, node: yaml.Node, problem: str) -> ConfigError:
        return ConfigError(f"{self.found.path}:{node.start_mark.line + 1}: {problem}")

    def value(self, node: yaml.Node, key: str) -> Any:
        self.count += 1
        if self.count > _MAX_VALUES:  # a few aliases of aliases stand for billions
            raise self.fail(node, f"more than {_MAX_VALUES} values, counting what aliases (*name) stand for")
        self.refuse_tag(node)
        if isinstance(node, yaml.ScalarNode):
            if not _quoted(node):
                self.found.written[key] = node.value
            return self.scalar(node)
        if id(node) in self.open:
            raise self.fail(node, f"{key} contains itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, key)
            return [self.value(item, f"{key}.{index}") for index, item in enumerate(node.value)]
        finally:
            self.open.discard(id(node))

    def refuse_tag(self, node: yaml.Node) -> None:
        if tag := _TAGGED.match(self.text, node.start_mark.index):
            raise self.fail(node, f"the tag {tag[2]} is not allowed")

    def mapping(self, node: yaml.MappingNode, key: str) -> dict[str, Any]:
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
                    name_node, f"{dotted} appears twice (first in line {first_line[name]}). Keep one of them"
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
        if _quoted(node):
            return text
        if (lower := text.lower()) in _WORDS and node.tag != "tag:yaml.org,2002:str":
            return _WORDS[lower]
        if not _FLOAT.fullmatch(text) and not _INT.fullmatch(text):
            return text
        if len(text) > _MAX_DIGITS:
            raise self.fail(node, f"a number of {len(text)} characters")
        bare = text.replace("_", "").lower()
        if bare.startswith("0x"):
            return int(bare, 16)
        if re.fullmatch(r"[-+]?0\d+", bare):
            meant = f"Write {int(bare, 10)}, or put it in quotes where text is meant"
            raise self.fail(node, f"{text} has a leading zero, which some programs read as octal. {meant}")
        if _INT.fullmatch(text):
            return int(bare, 10)
        return float(bare.replace(".inf", "inf").replace(".nan", "nan"))


def _quoted(node: yaml.ScalarNode) -> bool:
    """In quotes, or a block of text."""
    return node.style in ("'", '"', "|", ">")


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
        return f"{shown_as}:{line}: a tab where YAML expects spaces. Replace it by spaces"
    problem = " ".join(str(error.problem or error.context).split())
    return f"{shown_as}:{line}: not valid YAML: {problem}. The line: {written.strip()[:80]!r}"
