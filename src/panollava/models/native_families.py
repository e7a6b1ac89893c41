"""Native vision-language models by family: what differs between them, defined once.

A row is only needed where a family differs from the plain case: one picture becomes tokens row by row, prefixes can be
shared, the whole tower counts. Each row was tried on a folder of its own format (tests/unit/tiny_vlms.py). A family
without a row is tried by the same probes as the others (`native_processing`, `native`), and the log says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class NativeFamily:
    """What differs between families.

    `untiled` are options of the processor's call that keep a view one picture. `any_size`: the tower takes views of any
    size that its patches divide. `merges`: the tower's tokens come in groups, one after the other, of those that
    become one token of the prompt. `prefix_lm`: the question sees the pictures and they see it, so nothing can be read
    before it. `fewest_views`: with fewer, tiling cannot be switched off. `refused`: why it cannot be used at all.
    """

    name: str
    untiled: Mapping[str, Any] = field(default_factory=dict)
    any_size: bool = False
    merges: bool = False
    prefix_lm: bool = False
    fewest_views: int = 1
    refused: str | None = None
    tried: bool = True


_CROPS = {"crop_to_patches": False}
_SPLITS = {"do_image_splitting": False}
_TILES = (
    "its processor always cuts a picture into tiles and glues them with tokens of its own, so that a view cannot be "
    "seen as it was rendered"
)

# model_type of config.json -> family
NATIVE_FAMILIES: dict[str, NativeFamily] = {
    "qwen2_vl": NativeFamily("Qwen2-VL", any_size=True, merges=True),
    "qwen2_5_vl": NativeFamily("Qwen2.5-VL", any_size=True, merges=True),
    "qwen3_vl": NativeFamily("Qwen3-VL", any_size=True, merges=True),
    "qwen3_5": NativeFamily("Qwen3.5", any_size=True, merges=True),
    "glm4v": NativeFamily("GLM-4V", any_size=True, merges=True),
    "internvl": NativeFamily("InternVL", _CROPS),
    "gemma3": NativeFamily("Gemma 3", {"do_pan_and_scan": False}),
    "smolvlm": NativeFamily("SmolVLM", _SPLITS),
    "idefics3": NativeFamily("Idefics3", _SPLITS),
    "llava": NativeFamily("LLaVA"),
    "llava_onevision": NativeFamily("LLaVA-OneVision", fewest_views=2),
    "paligemma": NativeFamily("PaliGemma", prefix_lm=True),
    "mistral3": NativeFamily("Mistral 3", any_size=True),
    "aya_vision": NativeFamily("Aya Vision", _CROPS),
    "cohere2_vision": NativeFamily("Command A Vision", _CROPS),
    "lfm2_vl": NativeFamily("LFM2-VL", _SPLITS, any_size=True),
    "llava_next": NativeFamily("LLaVA-NeXT", refused=_TILES),
    "granite4_vision": NativeFamily("Granite 4 Vision", refused=_TILES),
    "mllama": NativeFamily(
        "Llama 3.2 Vision", refused="it reads pictures through cross attention, whose features it does not hand out"
    ),
}


def family_of(model_type: str) -> NativeFamily:
    """The row of a model type; one that is only tried, with every known switch against tiling, where there is none."""
    every = {**_CROPS, **_SPLITS, "do_pan_and_scan": False, "vision_input_type": "vanilla"}
    return NATIVE_FAMILIES.get(model_type) or NativeFamily(model_type, every, tried=False)
