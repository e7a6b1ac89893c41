"""What a node of the DAG depends on, as one document: the reason why exactly the stale parts run again.

An experiment's configuration and a node's name enter; a slice leaves:

    {"node", "code_version",
     "config":   the settings that this node reads, nested as in the configuration,
     "inputs":   fingerprints of the files from outside the DAG that it reads,
     "upstream": {node: digest of its slice}}

Slices are cumulative through `upstream`: a failed or killed stage cannot hide behind an older result. A job gets
nothing but its slice, so a slice holds every setting that the job needs, and none that it does not read. Settings
that another one switches off stand in it with their default (`effective`); settings that joined the schema later stand
in it only where they differ from it (`always`), and `JobSlice` gives them to the job all the same. Nodes of the shared
caches know no experiment and no split: equal content, equal key. No node is named here.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from panollava.config.dotted import set_at, value_at
from panollava.config.effective import DEFAULTS
from panollava.dag.always import ALWAYS
from panollava.dag.nodes import NODES, TABLE, node_kind
from panollava.errors import ConfigError
from panollava.files import canonical_json, digest_of_text

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


class Slices:
    """The slices of one experiment, each built once."""

    def __init__(self, experiment: WorkflowConfig) -> None:
        self._experiment = experiment
        self._documents: dict[tuple[str, str | None], dict[str, Any]] = {}
        self._texts: dict[tuple[str, str | None], str] = {}
        self._digests: dict[tuple[str, str | None], str] = {}

    def document(self, node: str, stage: str | None = None) -> dict[str, Any]:
        """The slice; `stage` asks for prepared data and views of a stage with data of its own.

        Raises ConfigError for a CSV that does not exist and for a stage that the experiment does not train.
        """
        key = self._key(node, stage)
        if key not in self._documents:
            self._documents[key] = _build(self._experiment, *key)
        return self._documents[key]

    def text(self, node: str, stage: str | None = None) -> str:
        """The slice as canonical JSON: the one parameter of the node's rule."""
        key = self._key(node, stage)
        if key not in self._texts:
            self._texts[key] = canonical_json(self.document(node, stage))
        return self._texts[key]

    def digest(self, node: str, stage: str | None = None) -> str:
        """16 hexadecimal digits that name the slice."""
        key = self._key(node, stage)
        if key not in self._digests:
            self._digests[key] = digest_of_text(self.text(node, stage))
        return self._digests[key]

    def _key(self, node: str, stage: str | None) -> tuple[str, str | None]:
        """`stage` counts where it has data of its own for the node's split; else it shares the experiment's."""
        kind, _, split = node.partition("_")
        own = stage is not None and kind in TABLE and TABLE[kind].splits and self._experiment.has_own_csv(split, stage)
        return node, stage if own else None


def _build(cfg: WorkflowConfig, name: str, stage: str | None) -> dict[str, Any]:
    node = TABLE.get(node_kind(name))
    if node is None:
        raise ConfigError(f"{name} is not a node of the DAG; nodes are {', '.join(NODES)}")
    if node.document is not None:
        return node.document(cfg)
    inputs, upstream = node.parents(cfg, name, stage)
    config: dict[str, Any] = {}
    for key in node.reads:
        value = value_at(cfg.effective, key)
        if key in ALWAYS or value != value_at(DEFAULTS, key):
            set_at(config, key, deepcopy(value))
    node.adjust(cfg, config)
    return {
        "node": node.name,
        "code_version": node.code_version,
        "config": config,
        "inputs": inputs,
        "upstream": {
            parent if node.tells_splits else node_kind(parent): cfg.digest(parent, for_stage)
            for parent, for_stage in upstream
        },
    }
