"""Which weights of a model carry LoRA adapters, and their attachment by peft.

In: any transformers model, the part of it that is to be adapted (its language part, a vision tower), and what
`lora.target_modules` says. Out: full names of linear layers and of stacked expert weights, found by what the modules
are and where they lie, and the reason for each layer that is left out. Names of families appear nowhere.

A linear layer is adapted as it is; a router that is a linear layer too. Stacked experts (one tensor [experts, in, out])
are adapted through peft's `target_parameters`, which knows neither dropout nor DoRA. Routers that are bare parameters
stay as they are: their output is a choice. Traded away: convolutions, norms and embeddings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from panollava.errors import CheckpointError, ConfigError
from panollava.logs import LOGGER
from panollava.models.gradient_reach import without_reach
from panollava.settings.model import LoraSettings


@dataclass(frozen=True)
class Targets:
    """What is adapted: full names of modules and of parameters; what is not: full name -> reason."""

    modules: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)


def blocks_of(part: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of each block: the members of the outermost module lists, but for lists of single layers."""
    lists: list[str] = []
    for name, module in part.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{outer}.") for outer in lists):
            continue
        lists.append(name)
        for number, block in enumerate(module):
            if not is_linear(block) and any(True for _ in block.children()):
                yield f"{name}.{number}" if name else str(number), block


def block_linears(model: nn.Module, part: nn.Module | None = None) -> list[str]:
    """Full names in `model` of every linear layer inside the blocks of `part` (None: of the whole model)."""
    inside = {id(module) for _, block in blocks_of(part or model) for module in block.modules()}
    return [name for name in linears(model) if id(model.get_submodule(name)) in inside]


def linears(model: nn.Module, part: nn.Module | None = None) -> list[str]:
    """Full names in `model` of every linear layer of `part`, its output head too."""
    inside = None if part is None else {id(module) for module in part.modules()}
    return [
        name for name, module in model.named_modules() if is_linear(module) and (inside is None or id(module) in inside)
    ]


def block_experts(model: nn.Module, part: nn.Module | None = None) -> list[str]:
    """Full names in `model` of the stacked weights [experts, …, …] inside the blocks of `part`."""
    inside = {id(module) for _, block in blocks_of(part or model) for module in block.modules()}
    return [
        f"{name}.{weight}"
        for name, module in model.named_modules()
        if id(module) in inside and "expert" in f"{name}.{type(module).__name__}".lower()
        for weight, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3
    ]


def is_linear(module: nn.Module) -> bool:
    """Whether a module maps x to x·W + b (also quantised), and nothing else: some routers inherit from nn.Linear."""
    if isinstance(module, Conv1D) or (hasattr(module, "qweight") and hasattr(module, "in_features")):
        return True
    if not isinstance(module, nn.Linear):
        return False
    own = type(module).forward is not nn.Linear.forward and type(module).__module__.startswith("transformers.models.")
    return not own or _computes_linear(module)


@torch.no_grad()
def _computes_linear(module: nn.Linear) -> bool:
    weight = module.weight
    x = torch.linspace(-1, 1, 2 * module.in_features, device=weight.device, dtype=weight.dtype)
    x = x.view(1, 2, module.in_features)
    try:
        found = module(x)
    except (RuntimeError, ValueError, TypeError, IndexError):  # it expects another shape: not a plain linear layer
        return False
    wanted = nn.functional.linear(x, weight, module.bias)
    return isinstance(found, Tensor) and found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-3)


def find_targets(
    model: nn.Module,
    settings: LoraSettings,
    part: nn.Module | None = None,
    run: Callable[[], Tensor] | None = None,
) -> Targets:
    """What `settings.target_modules` means for the blocks of `part` in `model`.

    "auto": every linear layer and stacked expert weight of the blocks. "all-linear": those outside of the blocks too,
    but the output head. Else names, full or their ends. `run` computes something differentiable from an input that
    requires a gradient; what no gradient reaches is left out. Raises ConfigError for a name that matches nothing.
    """
    names = settings.targets
    if names == ("auto",):
        modules, parameters = block_linears(model, part), block_experts(model, part)
    elif names == ("all-linear",):
        head = _head_of(model)
        modules = [name for name in linears(model, part) if model.get_submodule(name) is not head]
        parameters = block_experts(model, part)
    else:
        modules, parameters = _named(model, part, names)
    left_out = {name: why for name in modules if (why := _refused_by_peft(model, name)) is not None}
    if run is not None:
        holders = {name: name for name in modules} | {name: name.rpartition(".")[0] for name in parameters}
        dead = without_reach(model, set(holders.values()), run)
        left_out = {name: dead[holder] for name, holder in holders.items() if holder in dead} | left_out
    # Names that peft takes for those of experts in an older layout: it would adapt other weights in their place.
    renamed = [name for name in modules if name not in left_out and _rewritten_by_peft(model, name)]
    stacked = [*parameters, *(f"{name}.weight" for name in renamed)]
    if settings.use_dora:
        left_out |= {name: "peft has no DoRA for stacked weights" for name in parameters if name not in left_out}
        left_out |= dict.fromkeys(renamed, "peft has no DoRA for a layer of this name in this family")
        stacked = []
    found = Targets(
        tuple(name for name in modules if name not in left_out and name not in renamed),
        tuple(name for name in stacked if name not in left_out),
        left_out,
    )
    if not found.modules and not found.parameters:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:4]) or "there are none"
        raise ConfigError(
            f"lora.target_modules {settings.target_modules!r} leaves nothing to adapt in {type(model).__name__}: "
            f"{reasons}"
        )
    return found


def attach(model: Any, settings: LoraSettings, targets: Targets, task: str | None = "CAUSAL_LM") -> Any:
    """`model` with trainable adapters on exactly the `targets`, as a peft model. Dropout is 0 where experts need it."""
    if targets.parameters and settings.dropout:
        LOGGER.warning(
            "lora.dropout %g is set to 0: peft adapts weights that are stacked or wrapped (%s, …) without dropout only",
            settings.dropout, targets.parameters[0],
        )  # fmt: skip
        settings = settings.model_copy(update={"dropout": 0.0})
    everything = [name for name, _ in model.named_modules()]
    weights = [name for name, _ in model.named_parameters()]
    alpha: Any = settings.alpha  # peft computes with it; its annotation says int
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=alpha,
        lora_dropout=settings.dropout,
        target_modules=_shortest(targets.modules, everything),
        target_parameters=_shortest(targets.parameters, weights) or None,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        task_type=task,
    )
    adapted = get_peft_model(model, config)
    found = Counter(adapted_names(adapted))
    if found != Counter([*targets.modules, *targets.parameters]):
        other = sorted({*found} ^ {*targets.modules, *targets.parameters})
        raise ConfigError(
            f"peft does not adapt what was asked of it in {type(model).__name__}; different: {', '.join(other[:8])}. "
            "Name the layers in lora.target_modules"
        )
    return adapted


def adapted_names(adapted: nn.Module) -> list[str]:
    """Full names in the base model of the layers and stacked weights that carry adapters."""
    names = []
    for name, module in adapted.named_modules():
        if isinstance(module, BaseTunerLayer):
            own = re.sub(r"(\.base_layer)+$", "", name.removeprefix("base_model.model."))
            parameter = getattr(module, "parameter_name", None)
            names.append(own if parameter is None else f"{own}.{parameter}")
    return names


def without_gradient(named_parameters: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Adapter tensors that the last backward pass has not reached.

    One of several experts in a list may have got no token: a tensor counts only if none of its siblings was reached.
    """
    adapters = {name: p for name, p in named_parameters if ".lora_" in name and p.requires_grad}
    reached = {_sibling_key(name) for name, p in adapters.items() if p.grad is not None}
    return [name for name, p in adapters.items() if p.grad is None and _sibling_key(name) not in reached]


def _sibling_key(name: str) -> str:
    """The name without its last number, where it has two: the block's and, inside, an expert's."""
    numbers = list(re.finditer(r"\.\d+\.", name))
    if len(numbers) < 2:
        return name
    return f"{name[: numbers[-1].start()]}.*.{name[numbers[-1].end() :]}"


def kind_of(name: str) -> str:
    """A layer's name inside its block: "model.layers.3.mlp.up_proj" -> "mlp.up_proj"."""
    inside = re.split(r"(?:^|\.)\d+\.", name, maxsplit=1)[-1]
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", inside)


def language_part(model: Any) -> nn.Module:
    """The decoder with its blocks: what `get_decoder` names, unless that is something else (ModernBERT's head)."""
    part = model.get_decoder() if hasattr(model, "get_decoder") else None
    return part if isinstance(part, nn.Module) and any(True for _ in blocks_of(part)) else model


def describe(model: nn.Module, targets: Targets, part: nn.Module | None = None) -> list[str]:
    """For the log, before adapters are attached: the adapted share of the blocks' weights, by kind of layer.

    Weights are those with two or more dimensions, in lists of blocks of which some are adapted: towers that lie inside
    of the part do not count. `model` is the one without adapters.
    """
    sizes, chosen = _block_weights(model, targets, part)
    total = max(1, sum(sizes.values()))
    outside = sorted(chosen - set(sizes))
    lines = [
        f"LoRA: adapters on {len(chosen)} layers, {_percent(sum(sizes.get(name, 0) for name in chosen), total)} of the "
        f"blocks' {total:,} weights{f'; outside of the blocks: {outside[:4]}' if outside else ''}"
    ]
    rows: dict[tuple[str, str], list[int]] = {}
    for name, size in sizes.items():
        state = "adapted" if name in chosen else f"left out: {targets.left_out.get(name, 'not a target')}"
        rows.setdefault((kind_of(name), state), []).append(size)
    lines += [
        f"  {kind}: {len(found)} layer{'s' * (len(found) > 1)}, {_percent(sum(found), total)}, {state}"
        for (kind, state), found in rows.items()
    ]
    return lines


def adapted_share(model: nn.Module, targets: Targets, part: nn.Module | None = None) -> float:
    """Adapted weights / all weights (of two or more dimensions) of the blocks, before adapters are attached."""
    sizes, chosen = _block_weights(model, targets, part)
    return sum(size for name, size in sizes.items() if name in chosen) / max(1, sum(sizes.values()))


def _block_weights(model: nn.Module, targets: Targets, part: nn.Module | None) -> tuple[dict[str, int], set[str]]:
    """Sizes of the weights in the blocks, by layer; the layers that are adapted."""
    chosen = {name.removesuffix(".weight") for name in (*targets.modules, *targets.parameters)}
    layers = {id(parameter): name.removesuffix(".weight") for name, parameter in model.named_parameters()}
    lists: dict[str, dict[str, int]] = {}
    for name, block in blocks_of(part or model):
        found = {layers[id(p)]: p.numel() for p in block.parameters() if p.ndim >= 2 and id(p) in layers}
        lists.setdefault(name.rpartition(".")[0], {}).update(found)
    return {name: size for found in lists.values() if chosen & set(found) for name, size in found.items()}, chosen


def _percent(some: int, total: int) -> str:
    return f"{100 * some / total:.1f} %"


def _head_of(model: Any) -> nn.Module | None:
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if isinstance(head, nn.Module) else None


def _named(model: nn.Module, part: nn.Module | None, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Modules and stacked weights that a user's names mean. Raises ConfigError for names that mean nothing."""
    layers, experts = linears(model, part), block_experts(model, part)
    if part is not None and part is language_part(model):  # the output head lies beside the decoder
        head = _head_of(model)
        layers += [name for name in linears(model) if model.get_submodule(name) is head and name not in layers]

    def matched(found: Iterable[str], name: str) -> list[str]:
        return [full for full in found if full == name or full.endswith(f".{name}")]

    absent = [name for name in names if not matched(layers, name) and not matched(experts, name)]
    if absent:
        present = sorted({name.rpartition(".")[2] for name in (*layers, *experts)})
        raise ConfigError(
            f"lora.target_modules names {absent}, which the language model does not have; "
            f"it has {present}, or say 'auto'"
        )
    wanted = {full for name in names for full in (*matched(layers, name), *matched(experts, name))}
    return [name for name in layers if name in wanted], [name for name in experts if name in wanted]


def _refused_by_peft(model: Any, name: str) -> str | None:
    """Why peft would not adapt a layer, None where it would: Mamba's kernels read some weights past the adapter."""
    from peft.tuners import tuners_utils

    check = getattr(tuners_utils, "_check_lora_target_modules_mamba", None)
    if check is None:
        return None
    try:
        check(LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return "peft refuses it: Mamba's kernels read its weight past an adapter"
    return None


def _rewritten_by_peft(model: Any, name: str) -> bool:
    """Whether peft takes this name for a layer of the family's older layout and adapts fused experts instead."""
    if find_spec("peft.utils.transformers_weight_conversion") is None or not hasattr(model, "config"):
        return False
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=[name])
    try:
        convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # "… without also targeting …": it takes the name for one of two fused ones
        return True
    return set(config.target_modules or ()) != {name}


def lost_by_peft(adapted: Any, tensors: Mapping[str, Tensor]) -> list[str]:
    """Of the saved adapter `tensors`, those that peft's reader renames away, as of the family's older layout.

    Raises CheckpointError where they are not the model's own: what was written is then not what is there.
    """
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    if set(own) != set(tensors) or any(not torch.equal(own[key].cpu(), tensors[key]) for key in own):
        raise CheckpointError("the adapters' file does not hold the model's adapters: please report it")
    if find_spec("peft.utils.transformers_weight_conversion") is None:
        return []
    from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers

    read = convert_peft_adapter_state_dict_for_transformers(adapted, adapted.peft_config["default"], dict(tensors))
    return sorted(set(tensors) - set(read))


def _shortest(chosen: Sequence[str], everything: Sequence[str]) -> list[str]:
    """The shortest ends of names that select exactly `chosen` among `everything`; full names where none do.

    peft matches the ends of names. Ends are what other readers of adapter_config.json expect, and they keep it small.
    """
    for length in (1, 2, 3):
        ends = list(dict.fromkeys(".".join(name.split(".")[-length:]) for name in chosen))
        tails = tuple(f".{end}" for end in ends)
        if {name for name in everything if name in ends or name.endswith(tails)} == set(chosen):
            return ends
    return list(chosen)
