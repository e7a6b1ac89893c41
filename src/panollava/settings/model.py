"""The settings of a model, each once: name, type, default, range, meaning, and which models read it in which stages.

The schema of experiments (`config.schema`) and a model's own configuration (`models.config`) are made of these
sections. Which slices hold a key follows from its marks: `of` "composed" or "native" models alone, in the stages of
"text" (resampler, finetune) or "vision" alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from panollava.models.choices import (
    LORA_PARTS,
    MINIATURE_LANGUAGE,
    MINIATURE_VISION,
    MINIATURE_VLM,
    LoraPart,
    OverlapFeatures,
    PanoramaPositions,
    Quantization,
    ResamplerName,
    StitchingMode,
    VicregMode,
)
from panollava.settings.section import Section, key
from panollava.settings.values import ImageSize, Text, choice_or_list, listed, miniature_or
from panollava.views.rendering import Renderer
from panollava.views.strategies import RANGES, CropStrategy, Level


def model_key(
    default: Any,
    about: str | None = None,
    *,
    of: Literal["composed", "native"] | None = None,
    stages: Literal["text", "vision"] | None = None,
    **bounds: Any,
) -> Any:
    """A setting of the model; without marks every model reads it, in every stage."""
    field = key(default, about, **bounds)
    field.json_schema_extra |= {"of": of, "stages": stages}
    return field


def names(section: type[Section], **marks: str | None) -> tuple[str, ...]:
    """The names of a section's keys that have these marks.

    >>> names(ModelParts, of="native", stages="text")
    ('panorama_positions',)
    """
    found = []
    for name, field in section.model_fields.items():
        given = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        if all(given.get(mark) == value for mark, value in marks.items()):
            found.append(name)
    return tuple(found)


# ---- models --------------------------------------------------------------------------------------
class QuerySettings(Section):
    """Options of `qformer` and of `perceiver`."""

    num_queries: int | None = key(
        None,
        "Visual tokens of a view, best a product of two similar numbers (a grid); null takes a quarter of its patches.",
        ge=1, le=4096, typical="[4, 144]",
    )  # fmt: skip
    layers: int = key(2, "Number of layers.", ge=1, le=48, typical="[1, 6]")
    heads: int = key(8, "Attention heads; latent_dimension is a multiple of it.", ge=1, le=256)


class BimambaSettings(Section):
    """Options of `bimamba`."""

    layers: int = key(1, "Number of layers.", ge=1, le=48, typical="[1, 6]")
    heads: int = key(8, "Heads, each with its own decay; latent_dimension is a multiple of it.", ge=1, le=256)
    state_size: int = key(64, "Numbers that each channel remembers.", ge=1, le=1024, typical="[16, 128]")
    expand: int = key(2, "Width inside a layer, in multiples of latent_dimension.", ge=1, le=8)


class ModelParts(Section):
    """`models.*`: what a model is made of. A section of a resampler's name holds its options."""

    vision_name: Annotated[Text, BeforeValidator(miniature_or(MINIATURE_VISION))] = model_key(
        "google/siglip-base-patch16-224",
        f"Vision encoder: hub id, local folder, or `{MINIATURE_VISION}` (built by the DAG).",
        of="composed",
    )
    language_model_name: Annotated[Text, BeforeValidator(miniature_or(MINIATURE_LANGUAGE))] = model_key(
        "Qwen/Qwen2.5-0.5B",
        f"Language model: hub id, local folder, or `{MINIATURE_LANGUAGE}` (built by the DAG).",
        of="composed",
        stages="text",
    )
    vlm_name: Annotated[Text | None, BeforeValidator(miniature_or(MINIATURE_VLM))] = model_key(
        None,
        f"Native vision-language model: hub id, local folder, or `{MINIATURE_VLM}` (built by the DAG). It "
        "replaces vision_name, language_model_name, resampler_type and latent_dimension; null composes a model.",
        of="native",
    )
    adapter: Text | None = model_key(
        None,
        "LoRA adapters (peft) of a native model to start from or to evaluate as they are: hub id or folder.",
        of="native",
    )
    panorama_positions: PanoramaPositions = model_key(
        "native",
        "Positions of a native model's visual tokens: its own, or panorope, those of the directions that they show.",
        of="native",
        stages="text",
    )
    quantization: Quantization | None = model_key(
        None,
        "Hold a native model's base weights in 8bit or 4bit (extra `quant`, on a GPU); null does not.",
        of="native",
    )
    resampler_type: ResamplerName = model_key("mlp", "What turns patch features into visual tokens.", of="composed")
    qformer: QuerySettings = model_key(QuerySettings(), of="composed")
    perceiver: QuerySettings = model_key(QuerySettings(), of="composed")
    bimamba: BimambaSettings = model_key(BimambaSettings(), of="composed")
    latent_dimension: int = model_key(
        768, "Width of the resampler's output.", of="composed", ge=1, le=65536, typical="[128, 1536]"
    )
    vicreg_projector_dim: int | None = model_key(
        None, "Width of the VICReg projector's output; null takes latent_dimension.", stages="vision", ge=1, le=65536,
        typical="[128, 2048]",
    )  # fmt: skip
    use_projection_positional_encoding: bool = model_key(
        True,
        "Tell the language model where each visual token looks (yaw and place in the view).",
        of="composed",
        stages="text",
    )
    trust_remote_code: bool = model_key(
        False, "Run Python code that comes with a hub model. Only for models you trust."
    )


# ---- image_processing ----------------------------------------------------------------------------
class ViewSettings(Section):
    """Which views there are, and their pixels: what cached views depend on."""

    crop_strategy: CropStrategy = key(
        "anyres_e2p", "How a panorama becomes views; the anyres ones begin with a view of the whole."
    )
    fov_deg: float = key(90.0, "Horizontal field of view of a view, in degrees.", **RANGES["fov_deg"].bounds)
    overlap_ratio: float = key(0.5, "Share of a view that its neighbour sees too.", **RANGES["overlap_ratio"].bounds)
    image_size: ImageSize = key(None, "Size of a view in pixels: N or [height, width]; null takes the vision model's.")
    anyres_max_patches: int = key(
        9, "Most views of anyres and anyres_max, the global one included.", **RANGES["anyres_max_patches"].bounds
    )
    cubemap_poles: bool = key(True, "Whether cubemap has its up and down faces (6 views) or not (4).")
    antialias: bool = key(True, "Anti-aliased rendering; false samples points, as py360convert does.")
    level: Level = key(
        "auto", "Whether the camera's pitch and roll, which a panorama's GPano metadata state, are taken out of it."
    )
    north: bool = key(False, "Whether panoramas are turned so that north, by their GPano metadata, is in the middle.")
    renderer: Renderer = key(
        "panollava",
        "Who cuts perspective views; py360convert's e2p samples points by its own conventions, as the original project "
        "did (docs/views.md).",
    )


class ViewReadingSettings(ViewSettings):
    """The views, and how a model reads them."""

    stitching_mode: StitchingMode = model_key(
        "concat", "How the views' tokens become one sequence.", of="composed", stages="text"
    )
    view_labels: bool = model_key(
        False, "Say before each view of a native model where it looks: `view 2 of 9, 45° to the right:`.", of="native"
    )
    use_vision_processor: bool = model_key(
        True,
        "Take mean and std from the vision model's image processor; resizing and cropping are always ours.",
        of="composed",
    )


# ---- adapters and losses -------------------------------------------------------------------------
class LoraSettings(Section):
    """Low-rank adapters of the language model (LoRA, Hu et al. 2021, section 4); of a native model's other parts too.

    rsLoRA: Kalajdzievski 2023, section 3. DoRA: Liu et al. 2024, section 4.
    """

    parts: Annotated[list[LoraPart], Field(min_length=1), BeforeValidator(listed)] = key(
        ["language"], "Parts that get adapters: language; of a native model vision and connector too."
    )
    rank: int = key(16, "Rank of the adapters.", ge=1, le=4096, typical="[4, 64]")
    alpha: float = key(32, "Scale of the adapters: their output is multiplied by alpha / rank.", gt=0)
    dropout: float = key(0.1, "Dropout before the adapters.", ge=0, lt=1, typical="[0, 0.2]")
    target_modules: Annotated[Literal["auto"] | list[str], BeforeValidator(choice_or_list(None, "module"))] = key(
        "auto",
        "Names of the linear layers that get adapters, full or their ends; auto takes all of the blocks, experts too.",
    )
    use_rslora: bool = key(False, "Rank-stabilised: the output is multiplied by alpha / sqrt(rank) instead.")
    use_dora: bool = key(False, "DoRA: the adapted weights' size is trained apart from their direction.")

    @property
    def targets(self) -> tuple[str, ...]:
        """`target_modules` as a tuple, one word too."""
        wanted = self.target_modules
        return (wanted,) if isinstance(wanted, str) else tuple(wanted)

    @property
    def ordered_parts(self) -> tuple[LoraPart, ...]:
        """`parts`, each once, in the order of `LORA_PARTS`."""
        return tuple(part for part in LORA_PARTS if part in self.parts)


class VicregSettings(Section):
    vicreg_loss_weight: float = key(1.0, "Weight of the overlap loss (read in the vision stage).", ge=0)
    vicreg_mode: VicregMode = key(
        "pairwise", "What the overlap loss compares: each pair of views within itself, or over the batch."
    )
    vicreg_similarity_weight: float = key(25.0, "VICReg: weight of the invariance term.", ge=0)
    vicreg_variance_weight: float = key(25.0, "VICReg: weight of the variance term.", ge=0)
    vicreg_covariance_weight: float = key(1.0, "VICReg: weight of the covariance term.", ge=0)


class DenseclSettings(Section):
    densecl_temperature: float = key(
        0.2, "DenseCL: similarities are divided by it (read when loss is densecl).", gt=0, le=10, typical="[0.05, 0.5]"
    )


class OverlapLossSettings(Section):
    overlap_loss_weight: float = key(
        0.0, "Weight of an overlap loss beside the answers' loss; 0 leaves it out.", ge=0, typical="[0.01, 1]"
    )
    overlap_features: OverlapFeatures = key(
        "connector",
        "What the overlap loss compares: tokens of the vision tower, or those of the connector behind it (composed: "
        "the resampler).",
    )
