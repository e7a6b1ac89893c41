"""LoRA adapters of a native model, through peft: attached by parts, read from folders of others, written.

A folder of others names the layers that it adapts as its own model had them; which parts of this model those are is
seen in the model, so that a checkpoint and the log can say it.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import save_file

from panollava.errors import CheckpointError, ConfigError
from panollava.files import atomic_path
from panollava.logs import LOGGER
from panollava.models import adapters
from panollava.models.adapters import Targets, block_experts
from panollava.models.choices import LORA_PARTS
from panollava.models.finite import refuse_not_finite
from panollava.models.native_parts import LORA_NAMES, NativeParts, part_of_adapter
from panollava.settings.model import LoraSettings


def attach(model: Any, parts: NativeParts, settings: LoraSettings) -> tuple[Any, tuple[str, ...]]:
    """The model with trainable adapters, and the parts that have them. They change nothing until they are trained.

    Raises ConfigError for a part without linear layers, and for names that no layer of the parts has.
    """
    modules: list[str] = []
    experts: list[str] = []
    for part in settings.ordered_parts:
        found = _chosen(parts.linears(part), settings.targets, part)
        if not found:
            raise ConfigError(f"lora.parts names {part}, which has no linear layer in {type(parts.core).__name__}")
        modules += found
        stacked = (
            block_experts(parts.core, parts.decoder) if part == "language" and found == parts.linears(part) else []
        )
        if stacked and settings.use_dora:
            LOGGER.warning("LoRA: %d stacked expert weights stay as they are: peft has no DoRA for them", len(stacked))
            stacked = []
        experts += stacked
        weights = sum(parts.core.get_submodule(name).weight.numel() for name in found)
        weights += sum(parts.core.get_parameter(name).numel() for name in stacked)
        kinds = dict.fromkeys(name.rpartition(".")[2] for name in (*found, *stacked))
        whole = sum(
            one.numel()
            for name, one in parts.core.named_parameters()
            if part_of_adapter(parts.host_of(name)) == LORA_NAMES[part]
        )
        LOGGER.info(
            "LoRA: adapters on %d linear layers%s of %s (%s), which hold %.1f %% of the part's %s weights",
            len(found), f" and {len(stacked)} stacks of experts" if stacked else "", part, ", ".join(kinds),
            100 * weights / whole, f"{whole:,}",
        )  # fmt: skip
    adapted = adapters.attach(model, settings, Targets(tuple(modules), tuple(experts)), task=None)
    return adapted, settings.ordered_parts


def load_adapter(model: Any, parts: NativeParts, folder: str) -> Any:
    """The model with the adapters of a peft folder or hub id. Raises CheckpointError where they do not fit."""
    try:
        config = PeftConfig.from_pretrained(folder)
        if config.peft_type != "LORA":
            raise ConfigError(f"models.adapter: {folder} is {config.peft_type}, but only LoRA adapters are read")
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=True, autocast_adapter_dtype=True)
        _refuse_other_tensors(adapted, folder, type(parts.core).__name__)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        message = " ".join(str(error).split())[:400]
        raise CheckpointError(
            f"models.adapter: {folder} does not fit {type(parts.core).__name__}: {message}"
        ) from error
    found = parts_with_adapters(adapted, parts)
    if not found:
        raise CheckpointError(f"models.adapter: {folder} adapts no layer of {type(parts.core).__name__}")
    refuse_not_finite(folder, ((key, value) for key, value in adapted.named_parameters() if ".lora_" in key))
    LOGGER.info("adapters of %s, in %s", folder, ", ".join(found))
    return adapted


def _refuse_other_tensors(adapted: Any, folder: str, name: str) -> None:
    """Raise CheckpointError where the file lacks a tensor of the adapters that its configuration makes, which would
    add nothing, or holds one that no layer takes: peft at most warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = load_peft_weights(folder, device="cpu")
        result: Any = set_peft_model_state_dict(adapted, tensors)
    lacking = sorted(key for key in result.missing_keys if re.search(r"\.lora_|\.modules_to_save\.", key))
    for what, keys in (("lacks", lacking), ("holds, for no layer of this model,", sorted(result.unexpected_keys))):
        if keys:
            raise CheckpointError(
                f"models.adapter: {folder} does not fit {name}: its file {what} {len(keys)} tensors: "
                f"{', '.join(keys[:4])}{' …' if len(keys) > 4 else ''}"
            )


def parts_with_adapters(model: Any, parts: NativeParts) -> tuple[str, ...]:
    """The parts of `LORA_PARTS` in which a peft model has adapters."""
    hosts = {
        parts.host_of(f"{key.removeprefix('base_model.model.').partition('.lora_')[0]}.")
        for key, _ in model.named_parameters()
        if ".lora_" in key
    }
    names = {part_of_adapter(host) for host in hosts}
    return tuple(part for part in LORA_PARTS if LORA_NAMES[part] in names)


def save_adapter(model: Any, folder: str | Path, base_name: str | None) -> None:
    """Write adapter_config.json and adapter_model.safetensors as peft's `from_pretrained` reads them."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(model.peft_config["default"], inference_mode=True)
    config.base_model_name_or_path = base_name
    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    with atomic_path(folder / "adapter_model.safetensors") as path, torch.no_grad():
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, {"format": "pt"})
    config.save_pretrained(str(folder))


def _chosen(linears: Sequence[str], names: tuple[str, ...], part: str) -> list[str]:
    """The layers that `lora.target_modules` means: all of them, or those with one of the names."""
    if names in (("auto",), ("all-linear",)):
        return list(linears)
    absent = [name for name in names if not any(layer == name or layer.endswith(f".{name}") for layer in linears)]
    if absent:
        kinds = sorted({layer.rpartition(".")[2] for layer in linears})
        raise ConfigError(
            f"lora.target_modules names {absent}, which {part} does not have; it has {kinds}, or say 'auto'"
        )
    return [layer for layer in linears if any(layer == name or layer.endswith(f".{name}") for name in names)]
