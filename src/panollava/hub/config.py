"""config.json of an exported model as transformers' configuration."""

from __future__ import annotations

from typing import Any

from transformers.configuration_utils import PretrainedConfig

from panollava.hub import MODEL_TYPE


class PanollavaConfig(PretrainedConfig):
    """`model` holds the settings (`ModelConfig.to_json`), `origin` where the model comes from."""

    model_type = MODEL_TYPE

    def __init__(
        self, model: dict[str, Any] | None = None, origin: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.model, self.origin = model or {}, origin
