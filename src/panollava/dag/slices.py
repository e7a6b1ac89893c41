"""What a node of the DAG depends on, as one document: the reason why exactly the stale parts run again.

A slice is made from an experiment's configuration and a node's name:

    {"node", "code_version",
     "config":   the settings that this node reads, nested as in the configuration,
     "inputs":   fingerprints of the files from outside the DAG that it reads,
     "upstream": {node: digest of its slice}}

Slices are cumulative through `upstream`: a failed or killed stage cannot hide behind an older result. A job gets
nothing but its slice, so a slice holds every setting that the job needs, and none that it does not read. Settings
that another one switches off have their default in it (`effective`); settings that joined the schema later are part of
it only where they differ from it (`always`), and `JobSlice` gives them to the job all the same. Nodes of the shared
caches know no experiment and no split: equal content, equal key. No node is named here.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from panollava.config.dotted import differing, nested
from panollava.config.effective import DEFAULTS
from panollava.config.schema import KEYS
from panollava.dag.always import ALWAYS
from panollava.dag.node import Node, Parent, Parents
from panollava.dag.nodes import KINDS, NODES, TABLE
from panollava.errors import ConfigError
from panollava.files import text_and_digest

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


class Slice(NamedTuple):
    """What a node depends on. Nobody changes the document."""

    document: dict[str, Any]
    text: str
    """The same as canonical JSON: the one parameter of the node's rule."""
    digest: str
    """16 hexadecimal digits that name it."""


_SHARED: dict[str, Slice] = {}
"""Slices by their digest: of thousands of experiments most are equal, and each is held once."""


class Slices:
    """The slices of one experiment, each built once. `own_data`: stage and split of each stage with data of its own."""

    def __init__(self, experiment: WorkflowConfig, own_data: frozenset[tuple[str, str]]) -> None:
        self._experiment, self._own_data = experiment, own_data
        self._parents: dict[tuple[str, str | None], Parents] = {}
        self._configs: dict[str, dict[str, Any]] = {}
        self._slices: dict[tuple[str, str | None], Slice] = {}

    def of(self, node: str, stage: str | None = None) -> Slice:
        """The node's slice; `stage` asks for prepared data and views of a stage with data of its own.

        Raises ConfigError for a CSV that does not exist and for a stage that the experiment does not train.
        """
        key = self._key(node, stage)
        if key not in self._slices:
            document = self._build(*key)
            text, digest = text_and_digest(document)
            self._slices[key] = _SHARED.setdefault(digest, Slice(document, text, digest))
        return self._slices[key]

    def document(self, node: str, stage: str | None = None) -> dict[str, Any]:
        return self.of(node, stage).document

    def text(self, node: str, stage: str | None = None) -> str:
        return self.of(node, stage).text

    def digest(self, node: str, stage: str | None = None) -> str:
        return self.of(node, stage).digest

    def parents(self, node: str, stage: str | None = None) -> list[Parent]:
        """The nodes before, each with the stage whose own data it concerns."""
        key = self._key(node, stage)
        found = TABLE[KINDS[node]].parents
        if found is None:
            return []
        if key not in self._parents:
            self._parents[key] = found(self._experiment, *key)
        return self._parents[key][1]

    def _key(self, node: str, stage: str | None) -> tuple[str, str | None]:
        """`stage` counts where it has data of its own for the node's split; else it shares the experiment's."""
        own = (
            stage is not None
            and node in KINDS
            and TABLE[KINDS[node]].splits
            and (stage, node.rpartition("_")[2]) in self._own_data
        )
        return node, stage if own else None

    def _build(self, name: str, stage: str | None) -> dict[str, Any]:
        if name not in KINDS:
            raise ConfigError(f"{name} is not a node of the DAG; nodes are {', '.join(NODES)}")
        node = TABLE[KINDS[name]]
        if node.document is not None:
            return node.document(self._experiment)
        if (name, stage) not in self._parents and node.parents is not None:
            self._parents[name, stage] = node.parents(self._experiment, name, stage)
        inputs, upstream = self._parents.get((name, stage), ({}, []))
        return {
            "node": node.name,
            "code_version": node.code_version,
            "config": self._config(node),
            "inputs": inputs,
            "upstream": {
                parent if node.tells_splits else KINDS[parent]: self.digest(parent, for_stage)
                for parent, for_stage in upstream
            },
        }

    def _config(self, node: Node) -> dict[str, Any]:
        """The settings in a node's slices, the same for all its splits: nobody changes them."""
        if node.name not in self._configs:
            read = [key for key in node.reads if key in ALWAYS or key in self._changed]
            config = self._configs[node.name] = nested(self._experiment.effective, read)
            if node.adjust is not None:
                node.adjust(self._experiment, config)
        return self._configs[node.name]

    @cached_property
    def _changed(self) -> frozenset[str]:
        """The later settings that are not at their default."""
        later = (key for key in KEYS if key not in ALWAYS)
        return frozenset(differing(self._experiment.effective, DEFAULTS, later))
