"""A slice as its job reads it: with every setting that the node reads, also those left out at their default."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from panollava.config.dotted import set_at, value_at
from panollava.config.effective import DEFAULTS, with_names_of_today
from panollava.dag.always import ALWAYS
from panollava.files import digest_of_text


@dataclass(frozen=True)
class JobSlice:
    """`text` is the slice as canonical JSON, `reads` are the settings that its node reads."""

    text: str
    reads: tuple[str, ...] = ()

    @cached_property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text)
        return complete(document, self.reads)

    @property
    def digest(self) -> str:
        """Of the text: settings left out at their default do not count."""
        return digest_of_text(self.text)

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = self.document["config"]
        return found

    @property
    def upstream(self) -> dict[str, str]:
        found: dict[str, str] = self.document["upstream"]
        return found


def complete(document: dict[str, Any], reads: Sequence[str]) -> dict[str, Any]:
    """A slice with the defaults of the settings that it leaves out (`always`)."""
    if "config" not in document:
        return document
    config = deepcopy(document["config"])
    for key in reads:
        if key not in ALWAYS and not _holds(config, key):
            set_at(config, key, deepcopy(value_at(DEFAULTS, key)))
    with_names_of_today(config)
    return {**document, "config": config}


def _holds(config: dict[str, Any], key: str) -> bool:
    try:
        value_at(config, key)
    except KeyError:
        return False
    return True
