"""Which modules of a frozen model does a gradient pass on its way from the output to the input?

In: a model, names of modules, a function that computes something differentiable from an input that requires a gradient.
Out: the names whose output does not lie on that way, and why. An adapter on such a module would never train: cross
attention that nothing feeds, towers of absent pictures, indexers whose output is a choice. Costs one forward and
backward pass of the few tokens that the function feeds; the weights' own gradients are not computed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

NO_GRADIENT = "no gradient reaches it from the answer"
NOT_CALLED = "text alone never passes it, or its weight is read past the layer"


def without_reach(model: nn.Module, names: Collection[str], run: Callable[[], Tensor]) -> dict[str, str]:
    """Those of `names` that `run`'s gradient does not pass, with the reason.

    `run` returns a tensor; the model is in eval mode meanwhile. A module that got no input counts as its siblings do
    (the same name with other numbers): of many experts in a list, few tokens reach few.
    """
    called: set[str] = set()
    reached: set[str] = set()
    handles = []

    def watch(name: str) -> Callable[..., None]:
        def seen(module: nn.Module, inputs: Any, output: Any) -> None:
            called.add(name)
            for tensor in output if isinstance(output, (tuple, list)) else (output,):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(lambda gradient: reached.add(name))

        return seen

    modes = {module: module.training for module in model.modules()}
    model.eval()
    for name in names:
        handles.append(model.get_submodule(name).register_forward_hook(watch(name)))
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            run().float().square().sum().backward()
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode
    kinds = {_kind(name) for name in reached if _in_a_list(name)}
    dead = {name: NO_GRADIENT if name in called else NOT_CALLED for name in names if name not in reached}
    return {name: why for name, why in dead.items() if why == NO_GRADIENT or _kind(name) not in kinds}


def _kind(name: str) -> str:
    return re.sub(r"\d+", "*", name)


def _in_a_list(name: str) -> bool:
    """Whether a module is part of a list inside its block, as separate experts do."""
    return len(re.findall(r"(?:^|\.)\d+(?=\.|$)", name)) > 1
