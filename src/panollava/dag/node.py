"""What a node of the DAG is, and one job of it. The nodes themselves: `nodes`.

Paths are posix text, relative to the project's root. Templates of paths have fields: {cache}, {runs_dir},
{results_dir}, {logs_dir}, and those that are Snakemake's wildcards: {experiment}, {variant}, {key} of a folder of the
shared cache, {ablation}.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from panollava.files import digest_of_text

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

CACHE = "cache"
_LOGS = "{logs_dir}/{experiment}"

Files = Mapping[str, str | list[str]]
"""Files by name: one, or a list."""
Template = str | tuple[str, ...]
Parent = tuple[str, str | None]
"""A node's name, and the stage whose own data it concerns (None: the experiment's data)."""
Parents = tuple[dict[str, Any], list[Parent]]
"""Fingerprints of files from outside the DAG, by name, and the nodes before."""


@dataclass(frozen=True)
class Resources:
    """What a job takes. On a cluster memory and time are multiplied by the number of the attempt."""

    mem_mb: int
    runtime_min: int
    mem_mb_of_miniatures: int | None = None
    """The memory where all models of the experiment are miniatures; None: the same."""
    gpu: bool = False
    downloads: bool = False
    grows_in_time: bool = True


@dataclass(frozen=True)
class Report:
    """Where an output appears in `snakemake --report`. Labels are Snakemake's, with wildcards."""

    category: str
    caption: str
    labels: Mapping[str, str]
    subcategory: str | None = None


def no_inputs(task: Task) -> Files:
    return {}


def no_options(task: Task) -> Mapping[str, Any]:
    return {}


def no_pictures(anchor: Path) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Node:
    """A node of the DAG: an entry of `nodes.TABLE`.

    `rule` names its rule, its script in workflow/scripts, its log and its benchmark file. `job` is the function that
    does the work: it is given, by the names of its parameters, the slice, inputs, outputs and options.

    A slice holds the settings that the node `reads`, what `parents` gives, and `code_version`; a node without settings
    has a `document` instead, which makes its slice from its experiments. `recorded_by` is the output that says itself
    by which slice it was made; a node of the shared cache has none, because its key is its slice's digest.
    """

    name: str
    rule: str
    job: Callable[..., None]
    outputs: Mapping[str, Template]
    recorded_by: str | None = None
    cache: str | None = None
    """The kind of its folder below cache/, for nodes that all experiments share."""
    splits: tuple[str, ...] = ()
    """A node per split of the data: `prepare_train`, …"""
    code_version: int | None = None
    """Raise it when the code changes the meaning of what the node writes: then it runs again everywhere."""
    reads: tuple[str, ...] = ()
    parents: Callable[[WorkflowConfig, str, str | None], Parents] | None = None
    adjust: Callable[[WorkflowConfig, dict[str, Any]], None] | None = None
    """What else its slice's settings need, given those that it reads."""
    tells_splits: bool = True
    """Whether a parent's split is part of its slice: views of one CSV are the same whichever split it serves."""
    document: Callable[..., dict[str, Any]] | None = None
    inputs: Callable[[Task], Files] = no_inputs
    inputs_may_be_gone: bool = True
    """Whether a current result needs none of its inputs to be there still."""
    stands_alone: bool = False
    """Whether it is current by what it says itself, whatever became of the nodes before."""
    options: Callable[[Task], Mapping[str, Any]] = no_options
    """Arguments of the job that change no result."""
    resources: Resources | None = None
    """None: it takes a moment, and runs where Snakemake runs."""
    threads: Callable[[WorkflowConfig], int] | None = None
    log: str = ""
    resumes: bool = False
    """Whether its job goes on from a state of its own, unless it is asked for anew."""
    links: tuple[str, ...] = ()
    """Outputs that are links: one whose target is gone is removed before anybody stumbles over it."""
    folders: tuple[str, ...] = ()
    """Outputs that are folders."""
    further: tuple[str, ...] = ()
    """Files and folders beside the outputs that the job leaves too, where it does."""
    unread: tuple[str, ...] = ()
    """Names of files that are too large to be read again: they carry checksums of their own."""
    pictures: Callable[[Path], Mapping[str, str]] = no_pictures
    """The pictures that a result is about, by path, with their SHA-256: given its first output."""
    opens_pictures: bool = False
    """Whether its job opens the pictures themselves, not only their cached views."""
    beside: tuple[str, ...] = ()
    """Nodes whose results shall be there too where this one is asked for."""
    apart: tuple[str, ...] = ()
    """The same, where whoever asks for this one asks for them as well: a current result does not wait for them."""
    not_empty: tuple[str, ...] = ()
    """Outputs that a job must not leave empty."""
    report: Mapping[str, Report] = field(default_factory=dict)
    lower: str = ""
    """The setting that makes it need less memory."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}_{split}" for split in self.splits) or (self.name,)

    @property
    def wildcards(self) -> frozenset[str]:
        """The fields of its outputs' paths that differ between its jobs: experiment, key, …"""
        fields = {field for one in flat(self.outputs) for _, field, *_ in Formatter().parse(one) if field}
        return frozenset(fields - {"cache", "runs_dir", "results_dir"})

    @property
    def log_template(self) -> str:
        if self.log:
            return self.log
        return f"{{logs_dir}}/shared/{self.rule}_{{key}}.log" if self.cache else f"{_LOGS}/{self.rule}.log"

    @property
    def benchmark_template(self) -> str:
        return self.log_template.removesuffix(".log") + ".tsv"


def fill(template: Template, places: Mapping[str, str]) -> str | list[str]:
    """Paths from templates."""
    if isinstance(template, tuple):
        return [one.format_map(places) for one in template]
    return template.format_map(places)


def _no_key(kind: str, key: str) -> dict[str, Any]:
    raise KeyError(key)


@dataclass(frozen=True)
class Task:
    """One job: a node, its slice, and whose it is. `experiments` is empty for a folder of the shared cache.

    `slice_by_key` gives the slice of a folder of the shared cache, by kind and key.
    """

    node: Node
    document: dict[str, Any]
    slice_json: str
    places: Mapping[str, str]
    experiments: tuple[WorkflowConfig, ...] = ()
    slice_by_key: Callable[[str, str], dict[str, Any]] = _no_key

    @property
    def digest(self) -> str:
        return digest_of_text(self.slice_json)

    @property
    def experiment(self) -> WorkflowConfig:
        return self.experiments[0]

    def fill(self, template: str) -> str:
        return template.format_map(self.places)

    @property
    def outputs(self) -> dict[str, str | list[str]]:
        return {name: fill(template, self.places) for name, template in self.node.outputs.items()}

    @property
    def recorded_by(self) -> str | None:
        """The output that says by which slice it was made."""
        return (
            None if self.node.recorded_by is None else str(fill(self.node.outputs[self.node.recorded_by], self.places))
        )

    @property
    def log(self) -> str:
        return self.fill(self.node.log_template)

    @property
    def is_there(self) -> bool:
        """Whether all outputs exist. Those of the shared cache are then current: their key says what is in them."""
        return all(os.path.exists(path) for path in flat(self.outputs))

    def arguments(self) -> dict[str, Any]:
        """What the job is given beside its slice: inputs, outputs and options that its function has parameters for."""
        outputs = self.outputs
        given = {**self.node.inputs(self), **outputs, **self.node.options(self)}
        return {name: given[name] for name in inspect.signature(self.node.job).parameters if name in given}


def flat(files: Mapping[str, str | Sequence[str]]) -> list[str]:
    """All paths of files that are given by name."""
    return [path for one in files.values() for path in ([one] if isinstance(one, str) else one)]
