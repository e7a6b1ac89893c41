"""Settings that a command gives for every experiment that it is asked for: `snakemake --config`, `--configfile`.

Collects what Snakemake read from the command line and from the files into settings by dotted key. A later command
without them uses the configuration as written, so results that they changed are stale to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.config.messages import unknown_key
from panollava.config.schema import KEYS
from panollava.config.yaml_file import parse_yaml, read_yaml
from panollava.errors import ConfigError

SHOWN = "--config"
_NAMES = ("experiment.name", "experiment.auto_name", "experiment.siglip_include_patch_res")
_KEYS = frozenset(KEYS)


def command_settings(config: Mapping[str, Any], files: Sequence[Path]) -> dict[str, Any]:
    """`config` is what --config gives, over the `files` of --configfile, of which a later one counts.

    Sections nest (`training: {seed: 3}`) or are dotted keys (`training.seed: 3`). Raises ConfigError for a key
    that the schema does not have, with the nearest one, and for those that name experiments.
    """
    found: dict[str, Any] = {}
    for path in files:
        file = read_yaml(path)
        found |= dict(_flat(file.values, file.path))
    found |= {key: _typed(value) for key, value in _flat(config, SHOWN)}
    for key in _NAMES:
        if key in found:
            raise ConfigError(f"{SHOWN}: {key} belongs in an experiment's file: an experiment is asked for by its name")
    return found


def _flat(document: Mapping[str, Any], where: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of the settings in a document whose keys nest or hold dots."""
    for name, value in document.items():
        key = f"{above}{name}"
        if key in _KEYS:
            yield key, value
        elif any(one.startswith(f"{key}.") for one in _KEYS):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: {key} is a section: write {key}.KEY, or {key}: {{KEY: VALUE}}")
            yield from _flat(value, where, f"{key}.")
        else:
            raise ConfigError(f"{where}: {unknown_key(key)}")


def _typed(value: Any) -> Any:
    """A value of the command line as it would be read from YAML: Snakemake leaves `1e-3` in a section as text."""
    if isinstance(value, Mapping):
        return {name: _typed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_typed(one) for one in value]
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(f"value: {value}", SHOWN).values["value"]
    except ConfigError:  # a text that is no YAML by itself
        return value
