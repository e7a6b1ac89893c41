"""What a model is built from: one frozen dataclass of plain values.

In: the settings of one stage, or the `model_config` of a stage folder. Out: checked values that every
builder below takes apart; no class below a builder sees this object. It holds no tensors and imports
neither torch nor transformers, so that a wrong value is found before anything heavy is loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args

from panollava.models.choices import (
    LORA_PARTS,
    OverlapFeatures,
    PanoramaPositions,
    Quantization,
    StitchingMode,
    VicregMode,
    VisionLoss,
)
from panollava.models.choices import ResamplerName as ResamplerName
from panollava.models.choices import Stage as Stage
from panollava.views.rendering import Renderer, Rendering
from panollava.views.strategies import CropStrategy, Level


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank adapters of the language model (LoRA, Hu et al. 2021, section 4).

    `parts` are those that get adapters: "language", and of a native model "vision" and "connector" too.
    `target_modules` is "auto" (every linear layer of the decoder blocks) or names of modules. `use_rslora` scales by
    alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023, section 3); `use_dora` trains the size of the
    adapted weights apart from their direction (DoRA, Liu et al. 2024, section 4).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.1
    parts: tuple[str, ...] = ("language",)
    target_modules: str | tuple[str, ...] = "auto"
    use_rslora: bool = False
    use_dora: bool = False

    def __post_init__(self) -> None:
        _integer("lora.rank", self.rank, 1)
        _number("lora.alpha", self.alpha)
        if self.alpha <= 0:
            raise ValueError(f"lora.alpha must be > 0, got {self.alpha}. Typical: twice the rank")
        _number("lora.dropout", self.dropout)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout must be in [0, 1), got {self.dropout}. Typical range: [0, 0.1]")
        for name in ("use_rslora", "use_dora"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"lora.{name} must be true or false, got {getattr(self, name)!r}")
        if not isinstance(self.parts, (list, tuple)) or not self.parts or set(self.parts) - set(LORA_PARTS):
            raise ValueError(f"lora.parts must be a list of {', '.join(LORA_PARTS)}, got {self.parts!r}")
        object.__setattr__(self, "parts", tuple(part for part in LORA_PARTS if part in self.parts))
        targets = self.target_modules
        if isinstance(targets, list):
            object.__setattr__(self, "target_modules", tuple(targets))
        elif not isinstance(targets, (str, tuple)):
            raise TypeError(f"lora.target_modules must be 'auto' or a list of module names, got {targets!r}")
        if not self.target_modules:
            raise ValueError("lora.target_modules must name at least one module, or be 'auto'")


@dataclass(frozen=True)
class QueryOptions:
    """Options of `qformer` and of `perceiver`. `num_queries` a view; None: a quarter of its patches."""

    num_queries: int | None = None
    layers: int = 2
    heads: int = 8

    def __post_init__(self) -> None:
        if self.num_queries is not None:
            _integer("num_queries", self.num_queries, 1)
        for name in ("layers", "heads"):
            _integer(name, getattr(self, name), 1)


@dataclass(frozen=True)
class BimambaOptions:
    """Options of `bimamba`: `state_size` numbers a channel remembers, `expand` times wider inside."""

    layers: int = 1
    heads: int = 8
    state_size: int = 64
    expand: int = 2

    def __post_init__(self) -> None:
        for entry in fields(self):
            _integer(entry.name, getattr(self, entry.name), 1)


@dataclass(frozen=True)
class ModelConfig:
    """The settings that a model's weights, inputs and prompt depend on.

    `vlm_name` names a native vision-language model, which stands in the place of encoder, resampler and language model.
    `vision_path`, `language_path`, `vlm_path` and `adapter_path` are the local folders that the names resolve to (None:
    the name itself is a hub id or a folder). `image_size` is (height, width) of one view in pixels, None for the vision
    model's own; `vicreg_projector_dim` None stands for `latent_dimension`. Angles are degrees.
    Raises TypeError and ValueError that say what was expected.

    >>> ModelConfig(overlap_ratio=1.5)
    Traceback (most recent call last):
    ValueError: overlap_ratio must be in (0, 1), got 1.5. Typical range: [0.3, 0.7]
    >>> ModelConfig.from_json(ModelConfig(resampler_type="perceiver").to_json()).resampler_options["layers"]
    2
    """

    vision_name: str = "google/siglip-base-patch16-224"
    language_model_name: str = "Qwen/Qwen2.5-0.5B"
    vision_path: str | None = None
    language_path: str | None = None
    vlm_name: str | None = None
    vlm_path: str | None = None
    adapter: str | None = None
    adapter_path: str | None = None
    quantization: Quantization | None = None
    trust_remote_code: bool = False

    resampler_type: ResamplerName = "mlp"
    qformer: QueryOptions = field(default_factory=QueryOptions)
    perceiver: QueryOptions = field(default_factory=QueryOptions)
    bimamba: BimambaOptions = field(default_factory=BimambaOptions)
    latent_dimension: int = 768
    vicreg_projector_dim: int | None = None
    use_projection_positional_encoding: bool = True
    stitching_mode: StitchingMode = "concat"

    image_size: tuple[int, int] | None = None
    crop_strategy: CropStrategy = "anyres_e2p"
    fov_deg: float = 90.0
    overlap_ratio: float = 0.5
    anyres_max_patches: int = 9
    cubemap_poles: bool = True
    antialias: bool = True
    level: Level = "auto"
    north: bool = False
    renderer: Renderer = "panollava"
    use_vision_processor: bool = True

    panorama_positions: PanoramaPositions = "native"
    view_labels: bool = False

    system_message: str = ""
    max_text_length: int = 128

    use_lora: bool = True
    lora: LoraSettings = field(default_factory=LoraSettings)
    full_finetune: bool = False

    overlap_loss_weight: float = 0.0
    overlap_features: OverlapFeatures = "connector"
    vision_loss: VisionLoss = "vicreg"
    densecl_temperature: float = 0.2
    vicreg_mode: VicregMode = "pairwise"
    vicreg_loss_weight: float = 1.0
    vicreg_similarity_weight: float = 25.0
    vicreg_variance_weight: float = 25.0
    vicreg_covariance_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("vision_name", "language_model_name"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise TypeError(f"{name} must be a hub id or a folder, got {getattr(self, name)!r}")
        for name in ("vision_path", "language_path", "vlm_name", "vlm_path", "adapter", "adapter_path"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise TypeError(f"{name} must be text or None, got {getattr(self, name)!r}")
        if not isinstance(self.system_message, str):
            raise TypeError(f"system_message must be text, got {self.system_message!r}")
        _choice("resampler_type", self.resampler_type, get_args(ResamplerName))
        _choice("crop_strategy", self.crop_strategy, get_args(CropStrategy))
        _choice("level", self.level, get_args(Level))
        _choice("renderer", self.renderer, get_args(Renderer))
        _choice("stitching_mode", self.stitching_mode, get_args(StitchingMode))
        _choice("vision_loss", self.vision_loss, get_args(VisionLoss))
        _choice("vicreg_mode", self.vicreg_mode, get_args(VicregMode))
        _choice("panorama_positions", self.panorama_positions, get_args(PanoramaPositions))
        _choice("overlap_features", self.overlap_features, get_args(OverlapFeatures))
        if self.quantization is not None:
            _choice("quantization", self.quantization, get_args(Quantization))
        for name in ("trust_remote_code", "use_projection_positional_encoding", "cubemap_poles", "antialias", "north",
                     "use_vision_processor", "use_lora", "view_labels", "full_finetune"):  # fmt: skip
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be true or false, got {getattr(self, name)!r}")
        for name in ("latent_dimension", "anyres_max_patches", "max_text_length"):
            _integer(name, getattr(self, name), 1)
        if self.vicreg_projector_dim is not None:
            _integer("vicreg_projector_dim", self.vicreg_projector_dim, 1)
        _number("fov_deg", self.fov_deg)
        if not 0 < self.fov_deg < 180:
            raise ValueError(f"fov_deg must be in (0, 180), got {self.fov_deg}. Typical range: [60, 110]")
        _number("overlap_ratio", self.overlap_ratio)
        if not 0 < self.overlap_ratio < 1:
            raise ValueError(f"overlap_ratio must be in (0, 1), got {self.overlap_ratio}. Typical range: [0.3, 0.7]")
        for name in ("loss", "similarity", "variance", "covariance"):
            key = f"vicreg_{name}_weight"
            _number(key, getattr(self, key))
            if getattr(self, key) < 0:
                raise ValueError(f"{key} must be >= 0, got {getattr(self, key)}")
        _number("overlap_loss_weight", self.overlap_loss_weight)
        if self.overlap_loss_weight < 0:
            raise ValueError(f"overlap_loss_weight must be >= 0, got {self.overlap_loss_weight}. Typical: 0.1")
        _number("densecl_temperature", self.densecl_temperature)
        if self.densecl_temperature <= 0:
            raise ValueError(f"densecl_temperature must be > 0, got {self.densecl_temperature}. Typical: 0.2")
        if self.image_size is not None:
            object.__setattr__(self, "image_size", _image_size(self.image_size))
        for name, kind in (
            ("lora", LoraSettings), ("qformer", QueryOptions), ("perceiver", QueryOptions), ("bimamba", BimambaOptions),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, dict):
                object.__setattr__(self, name, kind(**value))
            elif not isinstance(value, kind):
                raise TypeError(f"{name} must be {kind.__name__} or a mapping of its keys, got {value!r}")
        heads = 1 if self.vlm_name else self.resampler_options.get("heads", 1)
        if self.latent_dimension % heads:
            raise ValueError(
                f"latent_dimension must be a multiple of {self.resampler_type}.heads ({heads}), "
                f"got {self.latent_dimension}"
            )

    @property
    def resampler_options(self) -> dict[str, Any]:
        """The options of the resampler that is chosen, by name."""
        chosen = getattr(self, self.resampler_type, None)  # None: it has no options
        return {} if chosen is None else asdict(chosen)

    @property
    def rendering(self) -> Rendering:
        """How panoramas become views."""
        return Rendering(self.antialias, self.level, self.north, self.renderer)

    @property
    def vicreg_dim(self) -> int:
        """Width of the VICReg projector's output."""
        return self.vicreg_projector_dim or self.latent_dimension

    @property
    def is_native(self) -> bool:
        """Whether the model is a native vision-language model."""
        return self.vlm_name is not None

    @property
    def vlm_source(self) -> str:
        """What `from_pretrained` gets for a native model and its processor."""
        return self.vlm_path or self.vlm_name or ""

    @property
    def adapter_source(self) -> str | None:
        """Where the adapter of others comes from that a native model starts with."""
        return self.adapter_path or self.adapter

    @property
    def answering_name(self) -> str:
        """What the configuration calls the model that writes the answers."""
        return self.vlm_name or self.language_model_name

    @property
    def vision_source(self) -> str:
        """What `from_pretrained` gets for the vision encoder."""
        return self.vision_path or self.vision_name

    @property
    def language_source(self) -> str:
        """What `from_pretrained` gets for the language model and its tokenizer."""
        return self.language_path or self.language_model_name

    def to_json(self) -> dict[str, Any]:
        """Plain values that JSON keeps exactly; `from_json` returns an equal object."""
        document = asdict(self)
        document["image_size"] = list(self.image_size) if self.image_size else None
        targets = self.lora.target_modules
        document["lora"]["target_modules"] = list(targets) if isinstance(targets, tuple) else targets
        document["lora"]["parts"] = list(self.lora.parts)
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`. Raises ValueError for keys that no model has."""
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(document) - known)
        if unknown:
            raise ValueError(f"unknown model settings {unknown}; known are {sorted(known)}")
        return cls(**document)


def _choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def _number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be finite, got {value}")


def _integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {value}")


def _image_size(value: object) -> tuple[int, int]:
    size = (value, value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"image_size must be a whole number or [height, width], got {value!r}")
    for side in size:
        _integer("image_size", side, 8)
    return int(size[0]), int(size[1])
