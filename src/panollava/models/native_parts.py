"""The parts of a native model, found by what they are and where they lie: no family's names.

    vision_tower      what the model calls its image encoder, without what joins it to the language model
    connector         everything between tower and language model, also where it lies inside the tower (Qwen's merger)
    language_model    the decoder and the output head
    vision_lora, connector_lora, lora     the adapters in them
    vicreg_projector  ours, for the vision stage's loss alone

Adapters sit in every linear layer of a part's blocks; a layer that no gradient reaches (the blocks behind the one that
LLaVA reads) is never adapted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from panollava.errors import ConfigError

LORA_NAMES = {"language": "lora", "vision": "vision_lora", "connector": "connector_lora"}
_HOSTS = {"language": "language_model", "vision": "vision_tower", "connector": "connector"}
_JOINS = (
    "merger",
    "projector",
    "projection",
    "downsample",
    "adapter",
    "aligner",
)  # children of a tower behind its blocks


class NativeParts:
    """Which modules of a transformers model belong to which part; `core` is the model without any wrapper."""

    def __init__(self, core: Any, name: str) -> None:
        self.core = core
        try:
            self.decoder, self.tower = core.get_decoder(), core.get_encoder("image")
        except (AttributeError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{name}: {type(core).__name__} does not distinguish its encoder from its decoder"
            ) from error
        if self.tower is None or self.tower is core or self.tower is getattr(core, "model", None):
            raise ConfigError(f"{name}: {type(core).__name__} has no image encoder of its own")
        self._prefixes = {id(module): path for path, module in core.named_modules()}
        head = core.get_output_embeddings()
        self._language = [self._path(self.decoder), *([self._path(head)] if head is not None else [])]
        self._joins = [
            f"{self._path(self.tower)}.{child}"
            for child, _ in self.tower.named_children()
            if any(word in child.lower() for word in _JOINS)
        ]
        self.blocks = longest_list(self.tower)

    def host_of(self, key: str) -> str:
        """The part without adapters that a parameter of the core belongs to."""
        if any(key == path or key.startswith(f"{path}.") for path in self._language):
            return "language_model"
        inside = key.startswith(f"{self._path(self.tower)}.")
        if inside and not any(key.startswith(f"{path}.") for path in self._joins):
            return "vision_tower"
        return "connector"

    def linears(self, part: str) -> list[str]:
        """Full names in the core of the linear layers that adapters of "language", "vision" or "connector" sit in."""
        if part == "connector":
            inside = {id(module) for blocks in (self.blocks, longest_list(self.decoder)) for module in blocks.modules()}
            return [
                path
                for path, module in self._linear_modules()
                if self.host_of(f"{path}.weight") == "connector" and id(module) not in inside
            ]
        blocks = longest_list(self.decoder) if part == "language" else self.blocks[: len(self.blocks) - self._unread()]
        inside = {id(module) for module in blocks.modules()}
        return [path for path, module in self._linear_modules() if id(module) in inside]

    def _unread(self) -> int:
        """Blocks at the end of the tower whose output nothing reads (LLaVA takes the last but one)."""
        layers = getattr(self.core.config, "vision_feature_layer", None)
        if layers is None:
            return 0
        numbers = [layers] if isinstance(layers, int) else list(layers)
        count = len(self.blocks)
        last = max(number if number >= 0 else count + 1 + number for number in numbers)  # 0: before the first block
        return max(0, count - last)

    def _linear_modules(self) -> Iterator[tuple[str, nn.Module]]:
        head = self.core.get_output_embeddings()
        for path, module in self.core.named_modules():
            if isinstance(module, nn.Linear) and module is not head and ".lora_" not in path:
                yield path.removesuffix(".base_layer"), module

    def _path(self, module: nn.Module) -> str:
        return self._prefixes[id(module)]


def longest_list(part: nn.Module) -> nn.ModuleList:
    """The blocks of a transformer: its longest list of modules. Raises ConfigError where there is none."""
    lists = [module for module in part.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ConfigError(f"{type(part).__name__} has no list of blocks")
    return max(lists, key=len)


def part_of_adapter(host: str) -> str:
    """The name of the adapters in a part."""
    return next(LORA_NAMES[part] for part, name in _HOSTS.items() if name == host)
