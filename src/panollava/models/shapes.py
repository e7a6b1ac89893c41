"""What a model will see, before any of its weights is loaded: its views, and the number of its image tokens."""

from __future__ import annotations

import torch

from panollava.models.config import ModelConfig
from panollava.models.native_prompt import native_prompt
from panollava.models.resamplers import build_resampler
from panollava.models.stitching import Stitching
from panollava.models.vision import describe_vision
from panollava.views.strategies import View, plan_views


def plan_model_views(config: ModelConfig) -> tuple[View, ...]:
    """The views that a model with this configuration looks at."""
    return plan_views(
        config.crop_strategy,
        fov_deg=config.fov_deg,
        overlap_ratio=config.overlap_ratio,
        anyres_max_patches=config.anyres_max_patches,
        cubemap_poles=config.cubemap_poles,
    )


def count_image_tokens(config: ModelConfig) -> int:
    """T of a model with this configuration, from configurations and tokenizer alone: no weights are loaded."""
    if config.is_native:
        return native_prompt(config, plan_model_views(config)).num_image_tokens
    spec = describe_vision(config.vision_source, config.image_size, config.trust_remote_code)
    with torch.device("meta"):
        resampler = build_resampler(
            config.resampler_type, spec.hidden_size, config.latent_dimension, spec.grid, config.resampler_options
        )
    return Stitching(config.stitching_mode, plan_model_views(config), resampler.num_tokens, resampler.grid).num_tokens
