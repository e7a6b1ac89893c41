"""Load the vision encoder's weights, from a checkpoint of its own or as the vision tower of a larger model.

Takes a folder or hub id and the tower's configuration, and returns the model with all its weights. A tower inside a
full checkpoint is found by the names of its weights: the one prefix that all of them share.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Collection
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from panollava.errors import CheckpointError, ConfigError
from panollava.models.vision_families import VisionFamily

_TOWERS = ("VisionModel", "VisionTransformer")  # how transformers names the classes of towers
_WRAPPED = "vision_model."  # some versions of transformers wrap the tower once more


def tower_class(config: Any) -> Any:
    """What loads a tower of this configuration: AutoModel where it knows it, else the tower's class beside it.

    Raises ConfigError where there is none.
    """
    if type(config) in MODEL_MAPPING or not type(config).__module__.startswith("transformers.models."):
        return AutoModel
    module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    found = [
        kind
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, PreTrainedModel) and kind.config_class is type(config) and name.endswith(_TOWERS)
    ]
    if not found:
        raise ConfigError(f"transformers has no vision encoder for the model type {config.model_type!r}")
    return min(found, key=lambda kind: _TOWERS.index(next(end for end in _TOWERS if kind.__name__.endswith(end))))


def load_tower(source: str, config: Any, family: VisionFamily, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """The model and what `from_pretrained` says of its weights; `missing_keys` without those that nothing passes.

    Raises CheckpointError where two towers in a checkpoint have the same weights' names.
    """
    kind = tower_class(config)

    def load(**options: Any) -> tuple[Any, dict[str, Any]]:
        model, loading = kind.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # refused with their names
            output_loading_info=True,
            **dict(family.options),
            **options,
        )
        needed = [key for key in loading["missing_keys"] if not _plain(key).startswith(family.unused or ("\0",))]
        return model, {**loading, "missing_keys": needed}

    model, loading = load()
    if not loading["missing_keys"]:
        return model, loading
    prefix = _prefix_of(source, loading["missing_keys"], loading["unexpected_keys"])
    if prefix is None:
        return model, loading
    inside, own = prefix
    return load(key_mapping={f"^{re.escape(inside)}": own})


def _prefix_of(source: str, missing: Collection[str], unexpected: Collection[str]) -> tuple[str, str] | None:
    """The prefix in the checkpoint, and the one in the model, that differ; None where no prefix explains all."""
    there = set(unexpected)
    found = []
    for own in ("", _WRAPPED):
        names = [key.removeprefix(own) for key in missing if key.startswith(own)]
        if len(names) < len(missing):
            continue
        first = min(names)
        prefixes = {key.removesuffix(first) for key in there if key.endswith(f".{first}")}
        found += [(prefix, own) for prefix in sorted(prefixes) if all(f"{prefix}{name}" in there for name in names)]
    images = [one for one in found if "video" not in one[0]]  # Video-LLaVA has a tower for each
    if len(images) > 1:
        raise CheckpointError(
            f"{source} holds several vision towers of this shape ({', '.join(prefix for prefix, _ in images)}): save "
            "the one that is meant as a folder of its own"
        )
    return images[0] if images else None


def _plain(key: str) -> str:
    return key.removeprefix(_WRAPPED)
