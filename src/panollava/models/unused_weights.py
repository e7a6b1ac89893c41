"""Find the weights of a file that a model ignores although they change what it computes.

Of the names that `from_pretrained` found no place for, returns those that belong to layers which the model has: a bias
that the configuration switches off, the scale of a quantised weight, a block behind the last one. Without them the
layers compute something else. Further heads and towers in a file are nobody's loss, and are not named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn

from panollava.errors import CheckpointError

# Buffers and heads that files of older versions hold and nothing reads: whatever they say, the model is the same.
HARMLESS = (
    r"rotary_emb\.inv_freq$|rotary_pos_emb\.inv_freq$|rotary_embedding\.inv_freq$|original_inv_freq$",  # computed anew
    r"(^|\.)position_ids$|(^|\.)token_type_ids$|relative_position_index$",
    r"attn(ention)?\.(masked_)?bias$",  # causal masks of GPT-2, GPT-Neo, GPT-J, GPT-NeoX
    r"(^|\.)mtp(\.|_)|(^|\.)mtp_layers\.",  # heads that predict several tokens; transformers has none
)


def of_own_layers(model: nn.Module, unexpected: Iterable[str]) -> list[str]:
    """Those of `unexpected` that belong to a layer of `model`, or to a block behind the last one of a list of it."""
    layers = {name for name, module in model.named_modules() if not any(True for _ in module.children())}
    lists = {name: len(module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}

    def behind(key: str) -> bool:
        places = ((key[: found.start()], int(found[1])) for found in re.finditer(r"\.(\d+)\.", key))
        return any(number >= lists.get(name, number + 1) for name, number in places)

    own = (key for key in unexpected if key.rpartition(".")[0] in layers or behind(key))
    return harmful(model, own)


def harmful(model: Any, unexpected: Iterable[str]) -> list[str]:
    """`unexpected`, sorted, without buffers of older versions, heads for several tokens, and layers behind the last one
    that the configuration counts as such (`num_nextn_predict_layers`)."""
    found = sorted(key for key in unexpected if not any(re.search(pattern, key) for pattern in HARMLESS))
    config = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if config is not None else None
    extra, layers = getattr(text, "num_nextn_predict_layers", 0) or 0, getattr(text, "num_hidden_layers", None)
    if not extra or layers is None:
        return found
    further = {str(layers + number) for number in range(extra)}
    return [key for key in found if not further & set(re.findall(r"layers\.(\d+)\.", key))]


def refuse_unused(source: str, model: nn.Module, unused: list[str]) -> None:
    """Raise CheckpointError that names the weights, where there are some, and what may be wrong."""
    if not unused:
        return
    scales = any(re.search(r"(scale|zero|qweight|absmax)", key) for key in unused)
    hint = (
        "they look like scales of quantised weights, whose quantization_config is missing from config.json"
        if scales
        else "does config.json belong to these weights? A switch such as attention_bias may be missing in it"
    )
    raise CheckpointError(
        f"{source} holds {len(unused)} unexpected weights, which {type(model).__name__} does not use: "
        f"{', '.join(unused[:8])}{' …' if len(unused) > 8 else ''}; {hint}"
    )
