"""Adapters become part of the weights, and nothing else changes: what `export --merge-lora` relies on.

In: a language model with adapters. Out: the same without, whose logits on a few tokens are equal but for rounding.
Where they are not (a weight that other layers share, a layer whose weight is read past its adapter), the modules are
named and the model stays as it was. Traded away: merging one of several tied weights by untying them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from panollava.errors import ConfigError
from panollava.models.adapters import adapted_names


@torch.no_grad()
def merged(adapted: Any, run: Callable[[], Tensor]) -> Any:
    """transformers' model with the adapters' part added to its weights. Raises ConfigError where that changes it.

    `adapted` is peft's model in eval mode; `run` computes logits that depend on every adapter.
    """
    base = adapted.get_base_model()
    if shared := shared_weights(base, adapted_names(adapted)):
        raise ConfigError(
            "the adapters cannot be merged: "
            + "; ".join(f"the weight of {name} is also that of {', '.join(others)}" for name, others in shared.items())
            + ". Export without --merge-lora, which keeps the adapters beside the weights"
        )
    wanted, before = _watched(adapted, run)
    adapted.merge_adapter(safe_merge=True)
    found, after = _watched(adapted, run)
    apart = _apart(found, wanted)
    tolerance = 1e-3 if next(base.parameters()).dtype == torch.float32 else 0.1
    if apart > tolerance:
        changed = [name for name in before if name not in after or _apart(after[name], before[name]) > tolerance]
        adapted.unmerge_adapter()
        raise ConfigError(
            f"the adapters cannot be merged: logits move by {apart:.2g} standard deviations, first at "
            f"{', '.join(changed[:4]) or 'no adapted layer'}, whose weight is used otherwise than through the "
            "layer. Export without --merge-lora, or leave the layer out of lora.target_modules"
        )
    return adapted.unload()


def shared_weights(base: nn.Module, names: list[str]) -> dict[str, list[str]]:
    """Of the adapted layers in `names`, those whose weight belongs to another module as well, with that one's name."""
    owners: dict[int, list[str]] = {}
    for module_name, module in base.named_modules():  # a module that is used in several places comes once
        for name, parameter in module.named_parameters(recurse=False):
            plain = re.sub(r"(\.base_layer)+(?=\.|$)", "", f"{module_name}.{name}")
            owners.setdefault(id(parameter), []).append(plain)
    shared = {}
    for places in owners.values():
        for name in names:
            weight = next((place for place in places if place in (name, f"{name}.weight")), None)
            if weight is not None and len(places) > 1:
                shared[name] = [place.removesuffix(".weight") for place in places if place != weight]
    return shared


def _watched(adapted: Any, run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """What `run` returns, and the first output of each adapted layer, in the order of the computation."""
    found: dict[str, Tensor] = {}
    handles = []
    base = adapted.get_base_model()
    for name in dict.fromkeys(adapted_names(adapted)):
        holder = name if _module(base, name) is not None else name.rpartition(".")[0]
        module = _module(base, holder)
        if module is not None:
            handles.append(module.register_forward_hook(_keeper(found, name)))
    try:
        return run(), found
    finally:
        for handle in handles:
            handle.remove()


def _keeper(found: dict[str, Tensor], name: str) -> Any:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor = output[0] if isinstance(output, (tuple, list)) else output
        if isinstance(tensor, Tensor):
            found.setdefault(name, tensor.detach().clone())

    return keep


def _module(base: nn.Module, name: str) -> nn.Module | None:
    try:
        return base.get_submodule(name)
    except AttributeError:
        return None


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Largest distance in standard deviations of `wanted`."""
    found, wanted = found.float(), wanted.float()
    finite = torch.isfinite(wanted)
    return float((found - wanted)[finite].abs().max() / wanted[finite].std().clamp_min(1e-9))
