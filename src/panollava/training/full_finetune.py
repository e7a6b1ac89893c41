"""Training all weights of the language part: half-precision weights with float32 masters, and what memory that takes.

AdamW on bfloat16 weights alone would lose most of its steps to rounding. So each half-precision parameter has a float32
copy that the optimiser steps, and the parameter is its rounding. What that takes is known before a step is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from panollava.errors import ConfigError
from panollava.memory import machine_memory

_HALF = (torch.bfloat16, torch.float16)
_SHARE = 0.9  # of the memory, for weights, gradients and optimiser; activations need the rest


class MasterAdamW(torch.optim.Optimizer):
    """AdamW on float32 copies of half-precision parameters; float32 parameters are stepped as they are.

    Schedulers change `lr` in `param_groups`; `state_dict` holds the copies, so that a resumed training goes on exactly.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})
        self._masters = [[_master(parameter) for parameter in group["params"]] for group in self.param_groups]
        own = [
            {**{key: value for key, value in group.items() if key != "params"}, "params": masters}
            for group, masters in zip(self.param_groups, self._masters, strict=True)
        ]
        self._adamw = torch.optim.AdamW(own)
        for group, inner in zip(self.param_groups, self._adamw.param_groups, strict=True):
            for key, value in inner.items():
                if key != "params":
                    group.setdefault(key, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float] | None = None) -> Any:
        """One step; `closure` recomputes the loss and is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, inner, masters in zip(self.param_groups, self._adamw.param_groups, self._masters, strict=True):
            inner["lr"] = group["lr"]
            for parameter, master in zip(group["params"], masters, strict=True):
                if master is not parameter:
                    master.grad = None if parameter.grad is None else parameter.grad.float()
        self._adamw.step()
        for group, masters in zip(self.param_groups, self._masters, strict=True):
            for parameter, master in zip(group["params"], masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
                    master.grad = None
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {
            "adamw": self._adamw.state_dict(),
            "masters": [master.detach() for masters in self._masters for master in masters],
            "param_groups": [{k: v for k, v in group.items() if k != "params"} for group in self.param_groups],
            "state": {},
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._adamw.load_state_dict(state_dict["adamw"])
        flat = [master for masters in self._masters for master in masters]
        for master, kept in zip(flat, state_dict["masters"], strict=True):
            master.copy_(kept)
        for group, kept in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update(kept)
        for group, masters in zip(self.param_groups, self._masters, strict=True):
            for parameter, master in zip(group["params"], masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)


def has_half_precision(parameters: Sequence[Tensor]) -> bool:
    """Whether any parameter is float16 or bfloat16."""
    return any(parameter.dtype in _HALF for parameter in parameters)


def training_bytes(parameters: Sequence[Tensor]) -> int:
    """Bytes that training these takes: weights, gradients, two moments, and masters of half-precision ones."""
    return sum(
        p.numel() * (2 * p.element_size() + 8 + (4 if p.dtype in _HALF else 0)) for p in parameters if p.requires_grad
    )


def refuse_without_memory(model: torch.nn.Module) -> None:
    """Raise ConfigError, with the numbers, where training all that trains cannot fit this machine's memory."""
    parameters = list(model.parameters())
    frozen = sum(p.numel() * p.element_size() for p in parameters if not p.requires_grad)
    needed, memory, where = training_bytes(parameters) + frozen, *_memory()
    if needed > _SHARE * memory:
        count = sum(p.numel() for p in parameters if p.requires_grad)
        raise ConfigError(
            f"training.full_finetune: {count:,} weights with gradients and optimiser take {needed / 2**30:,.1f} GiB, "
            f"and {where} has {memory / 2**30:,.1f} GiB. Train adapters instead (training.full_finetune: false), or a "
            "smaller model"
        )


def _memory() -> tuple[int, str]:
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory), "this GPU"
    return machine_memory(), "this machine"


def _master(parameter: Tensor) -> Tensor:
    if parameter.dtype not in _HALF:
        return parameter
    return parameter.detach().float().clone().requires_grad_(True)
