"""Build one `torch.optim.Optimizer` from named parameters and their learning rates.

`adamw` trains everything with AdamW. `muon` trains the matrices inside the networks with Muon (Jordan et al. 2024,
"Muon: an optimizer for hidden layers"; `torch.optim.Muon`) and the rest with AdamW: embeddings, output heads,
adapters, positions, convolutions, norms and biases, for which an orthogonal step means nothing or too much. Both
halves live in one optimiser, so that schedulers, automatic optimisation and checkpoints see a single object.
On a GPU AdamW runs as one fused kernel.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from panollava.errors import ConfigError
from panollava.training.full_finetune import MasterAdamW, has_half_precision

_NOT_HIDDEN = re.compile(r"embed|(^|\.)(lm_head|head|lora_\w+|positional|queries)(\.|$)")
_SMALLEST_SIDE = 32  # narrower matrices gain nothing from an orthogonal step


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon and AdamW side by side: one list of parameter groups, one state, each half steps its own groups.

    A group with `muon: True` belongs to Muon. The halves share groups and state with this object, so that a
    scheduler's change of `lr` reaches them and `state_dict` / `load_state_dict` are exact.
    """

    def __init__(self, muon_groups: list[dict[str, Any]], adamw_groups: list[dict[str, Any]]) -> None:
        self._muon = torch.optim.Muon(muon_groups)
        self._adamw = torch.optim.AdamW(adamw_groups)
        for group in self._muon.param_groups:
            group["muon"] = True
        for group in self._adamw.param_groups:
            group["muon"] = False
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})
        self._share()

    def _share(self) -> None:
        self._muon.param_groups = [group for group in self.param_groups if group["muon"]]
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._muon.state = self._adamw.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # what `load_state_dict` ends with: groups and state are new objects now
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor | float] | None = None) -> Any:
        """One step of both halves; `closure` recomputes the loss and is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        self._adamw.step()
        return loss


def build_optimizer(
    named_parameters: Iterable[tuple[str, Tensor]],
    *,
    optimizer: Literal["adamw", "muon"] = "adamw",
    lr: float,
    muon_lr: float | None = None,
    weight_decay: float = 0.01,
    betas: tuple[float, float] = (0.9, 0.98),
    fused: bool | None = None,
) -> torch.optim.Optimizer:
    """The optimiser of those parameters that require gradients.

    `lr` is AdamW's rate, `muon_lr` Muon's (needed for `muon`; its update has unit spectral norm times
    sqrt(max(1, rows/columns))). `weight_decay` spares vectors and scalars. A parameter that occurs twice (tied
    weights) is taken once, under its first name. `fused` None: where all parameters are on a GPU. Raises ConfigError
    for wrong settings and where nothing trains.
    """
    if optimizer not in ("adamw", "muon"):
        raise ConfigError(f"optimizer must be adamw or muon, got {optimizer!r}")
    if optimizer == "muon" and muon_lr is None:
        raise ConfigError("optimizer: muon needs muon_lr. Typical range: [0.005, 0.05]")
    hidden, decayed, spared = [], [], []
    seen: set[int] = set()
    for name, parameter in named_parameters:
        if not parameter.requires_grad or id(parameter) in seen:
            continue
        seen.add(id(parameter))
        if optimizer == "muon" and is_hidden_matrix(name, parameter):
            hidden.append(parameter)
        elif parameter.ndim >= 2:
            decayed.append(parameter)
        else:
            spared.append(parameter)
    if not seen:
        raise ConfigError("nothing to train: no parameter requires a gradient")
    if fused is None:
        fused = all(parameter.is_cuda for parameter in (*hidden, *decayed, *spared))
    # Said by group: a fused optimiser as such unscales its gradients itself, and then Lightning would not clip them.
    adamw: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr, "betas": betas, "weight_decay": decay, "fused": fused or None}
        for parameters, decay in ((decayed, weight_decay), (spared, 0.0))
        if parameters
    ]
    if has_half_precision([*hidden, *decayed, *spared]):
        if hidden:
            raise ConfigError(
                "optimizer: muon does not step half-precision weights (training.full_finetune): use adamw"
            )
        return MasterAdamW([{**group, "fused": None} for group in adamw])
    if not hidden:
        return torch.optim.AdamW(adamw)
    muon = [{"params": hidden, "lr": muon_lr, "weight_decay": weight_decay}]
    return MuonWithAdamW(muon, adamw) if adamw else torch.optim.Muon(muon)


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon trains this parameter: a matrix of some size that maps hidden units to hidden units."""
    return parameter.ndim == 2 and min(parameter.shape) >= _SMALLEST_SIDE and not _NOT_HIDDEN.search(name)
