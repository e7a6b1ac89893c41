"""config/ablations/NAME.yaml: a grid of experiments in one file. It becomes named cells.

    experiment_name: lora          # begins every cell's name; the file's stem where it is absent
    base: EXP1                     # an experiment whose settings every cell starts from; default.yaml's where absent
    models:                        # one cell per entry ...
      - {name: mini, latent_dimension: 128}
    lora_configs:                  # ... times one per entry ...
      - {lora_r: 4, lora_alpha: 8, lora_dropout: 0.0}
    vary:                          # ... times one per value of each key
      training.seed: [1, 2]
    training:                      # any other section or dotted key holds for every cell; a list for a setting that
      num_workers: 1               # takes one value is a list of values to vary

A cell is an ordinary experiment: only its settings are here instead of in a file of its own. Reading an ablation
checks its form and names its cells; settings are validated when a cell is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import combinations, product
from math import prod
from pathlib import Path
from typing import Any, get_args, get_origin

from panollava.config.cell_labels import checked_label, shortest_name, value_label, word
from panollava.config.legacy import PREFIX
from panollava.config.loading import shown_path
from panollava.config.messages import unknown_key
from panollava.config.names import check_name
from panollava.config.schema import KEYS, Section, Settings
from panollava.config.yaml_file import YamlFile, read_yaml
from panollava.errors import ConfigError
from panollava.settings.wording import shown

ABLATIONS_FOLDER = Path("config/ablations")
MOST_CELLS = 10_000
"""More are a slip of the pen: nobody waits for so many trainings, and planning them takes minutes."""
_OWN_KEYS = ("experiment_name", "base", "models", "lora_configs", "vary")
_LORA_NAMES = {"lora_r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout"}


@dataclass(frozen=True)
class Cell:
    """One experiment of a grid. `file` holds its settings and their lines, as an experiment's own YAML would."""

    name: str
    model: str | None
    file: YamlFile
    path: Path
    base: str | None


@dataclass(frozen=True)
class Ablation:
    """`varied` are the dotted settings in which cells may differ, in the order of the file."""

    name: str
    path: Path
    cells: tuple[Cell, ...]
    varied: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    """One entry of an axis: its part of a cell's name, its settings, and the line of each."""

    label: str
    settings: dict[str, Any]
    lines: dict[str, int]


Axis = list[_Choice]


def read_ablation(path: Path, root: Path) -> Ablation:
    """Read one file and name its cells. Raises ConfigError naming file and line."""
    file = read_yaml(path, shown_path(path, root))
    _check_words(file)
    prefix = _text_of(file, "experiment_name") or path.stem
    base = _text_of(file, "base")
    axes: list[Axis] = []
    plain = {key: value for key, value in file.values.items() if key not in _OWN_KEYS}
    has_models = isinstance(file.values.get("models"), list)
    if has_models:
        axes.append([_model(file, index, entry) for index, entry in _entries(file, "models")])
    elif file.values.get("models") is not None:
        plain["models"] = file.values["models"]
    if file.values.get("lora_configs") is not None:
        axes.append(_lora_axis(file))
    fixed, varied = _plain_settings(file, plain)
    axes += _value_axes(file, varied)
    _check_axes(file, axes)
    cells = []
    for choices in product(*axes):
        name = "_".join([prefix, *(choice.label for choice in choices)])
        settings, lines = dict(fixed.settings), {**fixed.lines, "base": file.line_of("base") or 1}
        for choice in choices:
            settings |= choice.settings
            lines |= choice.lines
        model = choices[0].label if has_models else None
        cells.append(Cell(_checked(file, name), model, YamlFile(file.path, _nested(file, settings), lines), path, base))
    _check_names(file, cells)
    keys = dict.fromkeys(key for axis in axes for choice in axis for key in choice.settings)
    return Ablation(path.stem, path, tuple(cells), tuple(keys))


# ---- the parts of the file -----------------------------------------------------------------------
def _check_words(file: YamlFile) -> None:
    """Keys at the top must be an ablation's own or begin with a section of the configuration."""
    words = (*_OWN_KEYS, *Settings.model_fields)
    for key in file.values:
        if key.partition(".")[0] not in words:
            near = get_close_matches(key, words, n=1)
            hint = f"Nearest valid key: {near[0]}" if near else f"Valid: {', '.join(words)}"
            raise _error(file, key, f"{key} is not a key of an ablation. {hint}")


def _text_of(file: YamlFile, key: str) -> str | None:
    value = file.values.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise _error(file, key, f"{key} must be text, got {shown(value)}")
    return value


def _entries(file: YamlFile, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    entries = file.values[key]
    if not isinstance(entries, list) or not entries:
        raise _error(file, key, f"{key} must be a list of at least one entry, got {shown(entries)}")
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict) or not entry:
            raise _error(file, key, f"each entry of {key} must hold `key: value` pairs, got {shown(entry)}")
        yield index, entry


def _model(file: YamlFile, index: int, entry: dict[str, Any]) -> _Choice:
    place = f"models.{index}"
    if "name" not in entry:
        raise _error(file, place, f"entry {index + 1} of models has no name, which its cells' names need")
    settings, lines = _settings_of_entry(file, place, entry, "models", {})
    return _Choice(_label(file, f"{place}.name", entry["name"]), settings, lines)


def _lora_axis(file: YamlFile) -> Axis:
    axis: Axis = []
    for index, entry in _entries(file, "lora_configs"):
        place = f"lora_configs.{index}"
        settings, lines = _settings_of_entry(file, place, entry, "lora", _LORA_NAMES)
        if "name" in entry:
            label = _label(file, f"{place}.name", entry["name"])
        elif settings.get("lora.use_lora") is False:
            label = "nolora"
        elif {"lora.rank", "lora.alpha"} <= settings.keys():
            label = f"r{word(settings['lora.rank'])}a{word(settings['lora.alpha'])}"
            if "lora.dropout" in settings and any(choice.label == label for choice in axis):
                label += f"d{word(settings['lora.dropout'])}"
        else:
            raise _error(file, place, f"entry {index + 1} of lora_configs needs lora_r and lora_alpha, or a name")
        axis.append(_Choice(label, settings, lines))
    return axis


def _settings_of_entry(
    file: YamlFile, place: str, entry: dict[str, Any], section: str, renamed: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """Settings of an entry: those of `section` by their own names, others with theirs."""
    absolute: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in entry.items():
        if key == "name":
            continue
        dotted = key if key.partition(".")[0] in Settings.model_fields else f"{section}.{renamed.get(key, key)}"
        if dotted in absolute:
            raise _error(file, f"{place}.{key}", f"{key} and {written[dotted].rpartition('.')[2]} are one setting")
        absolute[dotted], written[dotted] = value, f"{place}.{key}"
    settings: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for top, value in absolute.items():
        for dotted, inner in _leaves({top: value}):
            where = written[top] + dotted.removeprefix(top)
            _refuse_own(file, dotted, where)
            settings[dotted] = inner
            lines[dotted] = file.line_of(where) or 1
    return settings, lines


def _plain_settings(file: YamlFile, plain: dict[str, Any]) -> tuple[_Choice, dict[str, Any]]:
    """What holds for every cell, and the values to vary (by dotted key, those below `vary` last)."""
    fixed = _Choice("", {}, {})
    varied: dict[str, Any] = {}
    for dotted, value in _leaves(plain):
        _refuse_own(file, dotted, dotted)
        if dotted in fixed.settings or dotted in varied:
            raise _error(file, dotted, f"{dotted} appears twice: as a dotted key and within its section")
        if isinstance(value, list) and dotted in _settings() and not _takes_list(dotted):
            varied[dotted] = value
        else:
            fixed.settings[dotted] = value
            fixed.lines[dotted] = file.line_of(dotted) or 1
    below = file.values.get("vary")
    if below is None:
        return fixed, varied
    if not isinstance(below, dict):
        raise _error(file, "vary", f"vary must hold `key: [values]` lines, got {shown(below)}")
    for dotted, value in _leaves(below):
        _refuse_own(file, dotted, f"vary.{dotted}")
        if dotted not in _settings():
            raise _error(file, f"vary.{dotted}", unknown_key(dotted))
        if dotted in varied:
            raise _error(file, f"vary.{dotted}", f"{dotted} is varied twice")
        varied[dotted] = value
    return fixed, varied


def _value_axes(file: YamlFile, varied: dict[str, Any]) -> list[Axis]:
    axes = []
    for key, values in varied.items():
        line = file.line_of(f"vary.{key}") or file.line_of(key) or 1
        where = f"{file.path}:{line}"
        if not isinstance(values, (list, dict)) or not values:
            raise ConfigError(
                f"{where}: {key} must be a list of values to vary, or `label: value` lines, got {shown(values)}"
            )
        short = shortest_name(key, varied)
        labelled = values.items() if isinstance(values, dict) else ((value_label(short, v), v) for v in values)
        axes.append([_Choice(checked_label(where, str(label)), {key: value}, {key: line}) for label, value in labelled])
    return axes


# ---- checks --------------------------------------------------------------------------------------
def _refuse_own(file: YamlFile, dotted: str, place: str) -> None:
    """Settings that a cell cannot have of its own."""
    section = dotted.partition(".")[0]
    if dotted == PREFIX or (section == "experiment" and dotted != "experiment.description"):
        raise _error(file, place, f"{dotted} cannot be set in an ablation: experiment_name begins its cells' names")
    if section == "workflow":
        raise _error(file, place, f"{dotted} belongs in config/default.yaml: it concerns the whole project")


def _check_axes(file: YamlFile, axes: list[Axis]) -> None:
    if not axes:
        raise ConfigError(f"{file.path}: nothing is varied. Write models, lora_configs, or lists below `vary`")
    count = prod(len(axis) for axis in axes)
    if count > MOST_CELLS:
        sizes = " x ".join(str(len(axis)) for axis in axes)
        raise ConfigError(
            f"{file.path}: {sizes} values give {count:,} cells, at most {MOST_CELLS:,} in one file. "
            "Is a list longer than it was meant to be? Else use several files"
        )
    for one, other in combinations(axes, 2):
        for key in (key for choice in one for key in choice.settings):
            if line := next((choice.lines[key] for choice in other if key in choice.settings), None):
                first = next(choice.lines[key] for choice in one if key in choice.settings)
                raise ConfigError(
                    f"{file.path}:{line}: {key} is varied here and in line {first}. Keep it in one of them"
                )


def _checked(file: YamlFile, name: str) -> str:
    try:
        return check_name(name)
    except ConfigError:
        raise _error(
            file,
            "experiment_name",
            f"the cell's name {name!r} cannot be one: at most 100 letters, digits, '.', '_' and '-', a letter or digit "
            "first. Shorten experiment_name and names, or label values: `training.seed: {a: 1, b: 2}`",
        ) from None


def _check_names(file: YamlFile, cells: list[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        other = seen.setdefault(cell.name, cell)
        if other is not cell:
            lines = sorted({*other.file.lines.values()} ^ {*cell.file.lines.values()})
            where = f"{file.path}:{lines[-1]}" if lines else file.path
            raise ConfigError(
                f"{where}: two cells are called {cell.name}: {_described(other)} and {_described(cell)}. Name the "
                "entries of models and lora_configs apart (`name: …`), or label values: `training.seed: {a: 1, b: 2}`"
            )


def _described(cell: Cell) -> str:
    return ", ".join(f"{key}: {value}" for key, value in _leaves(cell.file.values)) or "no settings"


def _label(file: YamlFile, place: str, value: Any) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise _error(file, place, f"name must be text, got {shown(value)}")
    return checked_label(file.where(place), str(value))


# ---- settings ------------------------------------------------------------------------------------
def _leaves(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; a setting's own mapping (`label: value`) is not opened, an empty section is left out."""
    for name, value in values.items():
        dotted = f"{head}{name}"
        if isinstance(value, dict) and dotted not in _settings():
            yield from _leaves(value, f"{dotted}.")
        elif value is not None or not any(key.startswith(f"{dotted}.") for key in _settings()):
            yield dotted, value


def _nested(file: YamlFile, settings: Mapping[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for dotted, value in settings.items():
        *head, last = dotted.split(".")
        inner = document
        for name in head:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise _error(file, dotted, f"{dotted}: {name} must hold `key: value` lines, got {shown(inner)}")
        inner[last] = value
    return document


@cache
def _settings() -> frozenset[str]:
    return frozenset(KEYS)


def _takes_list(dotted: str) -> bool:
    """Whether the setting itself can be a list."""
    *head, last = dotted.split(".")
    section: type[Section] = Settings
    for name in head:
        section = section.inner[name]

    def has_list(annotation: Any) -> bool:
        return get_origin(annotation) is list or any(has_list(part) for part in get_args(annotation))

    return has_list(section.model_fields[last].annotation)


def _error(file: YamlFile, key: str, message: str) -> ConfigError:
    """An error at the line of `key`, of the first line below it, or of the nearest part above it."""
    below = [line for name, line in file.lines.items() if name == key or name.startswith(f"{key}.")]
    where = f"{file.path}:{min(below)}" if below else file.where(key)
    return ConfigError(f"{where}: {message}")
