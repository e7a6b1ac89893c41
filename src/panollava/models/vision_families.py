"""What differs between vision encoders, one row a family. No torch: the plan reads it, too.

The features are always the last hidden state's patch tokens, row by row; prefix tokens (class, distillation, summary
and register tokens) precede them. An encoder without a row is tried before it is used (`vision_probe`).
"""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class VisionFamily:
    """Prefix tokens, the norm after the last block, inputs, other image sizes, pixel scale.

    `prefix` counts the tokens before the patches but for `num_register_tokens`, which come on top where a configuration
    states them; a text names the configuration's key that counts all of them; None: seen at the first picture only.
    `unused` are parameters that patch tokens never pass: they stay frozen, and a checkpoint may lack them. `sizes` says
    which image sizes it takes: `any` by itself, `interpolated` when forward is asked to, or the name of a switch in the
    configuration without which it takes its own size alone. `options` go to the model's constructor.
    """

    name: str
    prefix: int | str | None
    final_norm: str | None = None  # None: no norm touches the patch tokens after the last block
    unused: tuple[str, ...] = ()
    sizes: str = "any"
    patchified: bool = False  # takes flattened patches with their grid's shape, instead of pixels
    masked: bool = False  # leaves patches out and shuffles the rest unless it is asked not to
    statistics: tuple[Triple, Triple] | None = None  # published mean and std of pixels in [0, 1]
    options: tuple[tuple[str, object], ...] = ()


_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_AS_IT_IS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_MASK = ("embeddings.mask_token",)
_POOLED = ("post_layernorm.",)
_NO_POOLER = (("add_pooling_layer", False),)


def _clip(name: str) -> VisionFamily:
    """CLIP's own shape: the norm behind the last block serves the pooled class token alone."""
    return VisionFamily(name, 1, unused=_POOLED, sizes="interpolated", statistics=_CLIP)


def _vit(name: str, prefix: int = 1, **options: object) -> VisionFamily:
    kept = {"unused": _MASK, "sizes": "interpolated", **options}
    return VisionFamily(name, prefix, "layernorm", **kept)  # type: ignore[arg-type]


def _blip(name: str) -> VisionFamily:
    return VisionFamily(name, 1, "post_layernorm", sizes="interpolated", statistics=_CLIP)


def _idefics(name: str) -> VisionFamily:
    """SigLIP's blocks; each patch's position is looked up by where it lies in the picture."""
    return VisionFamily(name, 0, "post_layernorm", statistics=_HALF)


# model_type of config.json (for a full checkpoint: of its vision tower) -> family
FAMILIES: dict[str, VisionFamily] = {
    # SigLIP, and SigLIP2 of fixed resolution, whose checkpoints have the same architecture
    "siglip_vision_model": VisionFamily(
        "SigLIP", 0, "post_layernorm", unused=("head.",), sizes="interpolated", statistics=_HALF
    ),
    "siglip2_vision_model": VisionFamily(
        "SigLIP2 NaFlex", 0, "post_layernorm", unused=("head.",), patchified=True, statistics=_HALF
    ),
    "clip_vision_model": _clip("CLIP"),
    "metaclip_2_vision_model": _clip("MetaCLIP 2"),
    "chinese_clip_vision_model": _clip("Chinese-CLIP"),
    "altclip_vision_model": _clip("AltCLIP"),
    "dinov2": VisionFamily("DINOv2", 1, "layernorm", unused=_MASK, statistics=_IMAGENET),
    "dinov2_with_registers": VisionFamily("DINOv2", 1, "layernorm", unused=_MASK, statistics=_IMAGENET),
    "dinov3_vit": VisionFamily("DINOv3", 1, "norm", unused=_MASK, statistics=_IMAGENET),
    # MLCD and RICE-ViT; the second name is used in folders of their authors
    "mlcd_vision_model": VisionFamily("MLCD", 1, unused=_POOLED, statistics=_CLIP),
    "mlcd": VisionFamily("MLCD", 1, unused=_POOLED, statistics=_CLIP),
    "aimv2_vision_model": VisionFamily("AIMv2", 0, "rms_norm", unused=("head.",), sizes="is_native", statistics=_CLIP),
    # its input conditioner normalises the pixels; class, summary and register tokens are counted by the configuration
    "radio": VisionFamily("RADIO", "num_summary_tokens", statistics=_AS_IT_IS),
    "tipsv2_vision_model": VisionFamily("TIPSv2", 1, "layernorm", unused=_MASK),
    "vit": _vit("ViT", statistics=_HALF, options=_NO_POOLER),
    "deit": _vit("DeiT", 2, statistics=_IMAGENET, options=_NO_POOLER),
    "vit_msn": _vit("ViT-MSN", statistics=_IMAGENET),
    "vit_mae": _vit("ViT-MAE", statistics=_IMAGENET, masked=True),
    "ijepa": _vit("I-JEPA", 0, options=_NO_POOLER),
    "beit": _vit("BEiT", statistics=_HALF, options=_NO_POOLER),
    "data2vec-vision": _vit("Data2Vec", options=_NO_POOLER),
    "blip_vision_model": _blip("BLIP"),
    "blip_2_vision_model": _blip("BLIP-2"),
    "instructblip_vision_model": _blip("InstructBLIP"),
    "janus_vision_model": VisionFamily("Janus", 0, "post_layernorm", sizes="interpolated", statistics=_HALF),
    "idefics2_vision": _idefics("Idefics2"),
    "idefics3_vision": _idefics("Idefics3"),
    "smolvlm_vision": _idefics("SmolVLM"),
    "internvl_vision": VisionFamily("InternViT", 1, "layernorm", unused=_MASK, statistics=_IMAGENET),
}
TRIED = VisionFamily("tried when it is loaded", None)
"""An encoder that has no row: one of transformers, or one that brings code of its own."""
