"""What a model is built from: one frozen object of plain values.

It is made from the settings of one stage, or from the `model_config` of a stage folder. Every builder takes it apart,
and no class below a builder sees it. It holds no tensors and imports neither torch nor transformers, so that a wrong
value is found before anything heavy is loaded.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from panollava.models.choices import ResamplerName as ResamplerName
from panollava.models.choices import Stage as Stage
from panollava.models.choices import VisionLoss
from panollava.settings.model import BimambaSettings as BimambaSettings
from panollava.settings.model import (
    DenseclSettings,
    ModelParts,
    OverlapLossSettings,
    VicregSettings,
    ViewReadingSettings,
)
from panollava.settings.model import LoraSettings as LoraSettings
from panollava.settings.model import QuerySettings as QuerySettings
from panollava.settings.problems import field_at, problem
from panollava.settings.section import Section
from panollava.settings.values import image_size, listed
from panollava.views.rendering import Rendering


def _height_and_width(value: Any) -> Any:
    """N or [height, width] as (height, width)."""
    value = image_size(listed(value))
    return (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, list) else value


class ModelConfig(OverlapLossSettings, DenseclSettings, VicregSettings, ViewReadingSettings, ModelParts):
    """The settings that a model's weights, inputs and prompt depend on: those of `settings.model`, and these.

    `vlm_name` names a native vision-language model, which replaces encoder, resampler and language model.
    `vision_path`, `language_path`, `vlm_path` and `adapter_path` are the local folders that the names resolve to (None:
    the name itself is a hub id or a folder). `image_size` is (height, width) of one view in pixels, None for the vision
    model's own; `vicreg_projector_dim` None means `latent_dimension`. Angles are degrees.
    Raises ValueError that says what was expected.

    >>> ModelConfig(overlap_ratio=1.5)
    Traceback (most recent call last):
    ValueError: overlap_ratio must be in (0, 1), got 1.5. Typical range: [0.3, 0.7]
    >>> ModelConfig.from_json(ModelConfig(resampler_type="perceiver").to_json()).resampler_options["layers"]
    2
    """

    image_size: Annotated[tuple[int, int] | None, BeforeValidator(_height_and_width)] = None  # type: ignore[assignment]
    vision_path: str | None = None
    language_path: str | None = None
    vlm_path: str | None = None
    adapter_path: str | None = None
    system_message: str = ""
    max_text_length: int = Field(128, ge=1)
    use_lora: bool = True
    lora: LoraSettings = LoraSettings()
    full_finetune: bool = False
    vision_loss: VisionLoss = "vicreg"

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ValueError("\n".join(_problems(error))) from None

    @field_validator("lora")
    @classmethod
    def _parts_in_order(cls, lora: LoraSettings) -> LoraSettings:
        """Folders name each part once and in one order, however the configuration lists them."""
        return lora.model_copy(update={"parts": list(lora.ordered_parts)})

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> ModelConfig:
        heads = 1 if self.vlm_name else self.resampler_options.get("heads", 1)
        if self.latent_dimension % heads:
            raise ValueError(
                f"latent_dimension must be a multiple of {self.resampler_type}.heads ({heads}), "
                f"got {self.latent_dimension}"
            )
        return self

    @property
    def resampler_options(self) -> dict[str, Any]:
        """The options of the resampler that is chosen, by name."""
        chosen = getattr(self, self.resampler_type, None)  # None: it has no options
        return chosen.model_dump() if isinstance(chosen, Section) else {}

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

    def changed(self, **settings: Any) -> ModelConfig:
        """A copy with other values of some settings. Raises ValueError."""
        return ModelConfig(**{**dict(self), **settings})

    def to_json(self) -> dict[str, Any]:
        """Plain values that JSON keeps exactly; `from_json` returns an equal object."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelConfig:
        """The inverse of `to_json`. Raises ValueError for keys that no model has."""
        unknown = sorted(set(document) - set(cls.model_fields))
        if unknown:
            raise ValueError(f"unknown model settings {unknown}; known are {sorted(cls.model_fields)}")
        return cls(**document)


def _problems(error: ValidationError) -> list[str]:
    """One line per error: the setting, what is allowed, what was found."""
    found = []
    for detail in error.errors(include_url=False):
        name, field, _ = field_at(ModelConfig, [str(part) for part in detail["loc"]])
        if field is not None:
            found.append(f"{name} {problem(detail, field)}")
        elif not name:  # a check of several settings, which names them
            found.append(str(detail["ctx"]["error"]))
        else:
            known = ModelConfig.inner.get(name)
            wanted = f"must be {known.__name__} or a mapping of its keys" if known else "is no setting of a model"
            found.append(f"{name} {wanted}, got {detail['input']!r}{'' if known else _near(name)}")
    return found


def _near(name: str) -> str:
    """The setting whose name is most like one that no model has."""
    section, _, last = name.rpartition(".")
    near = get_close_matches(last, ModelConfig.inner.get(section, ModelConfig).model_fields, n=1)
    return f". Did you mean {section and f'{section}.'}{near[0]}?" if near else ""
