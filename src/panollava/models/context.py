"""Does a prompt fit into the language model's context? Answered from configurations and tokenizer, before any weight.

In: a model's configuration and the texts' lengths by the key that bounds them. Out: nothing, or a ConfigError with the
numbers and the key to change. Traded away: queries, whose length nobody bounds; `generate` counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from panollava.errors import ConfigError
from panollava.models.config import ModelConfig
from panollava.models.language import positions_of
from panollava.models.language_weights import refuse_quantisation, refuse_stray_adapter, text_config
from panollava.models.native_prompt import native_prompt
from panollava.models.prompt import ChatPrompt
from panollava.models.shapes import count_image_tokens, plan_model_views
from panollava.models.tokenizer import load_tokenizer
from panollava.models.vision import checkpoint_config


def planned_positions(config: ModelConfig) -> int | None:
    """How many tokens a sequence of this model may have, from its config.json; None where that states no limit."""
    source = config.vlm_source if config.is_native else config.language_source
    return positions_of(checkpoint_config(source, config.trust_remote_code))


def checked_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a composed model's language model; what can be checked of the two without weights is checked."""
    source = config.language_source
    refuse_stray_adapter(source)
    text_part = text_config(source, checkpoint_config(source, config.trust_remote_code))
    refuse_quantisation(source, text_part)
    return load_tokenizer(source, getattr(text_part, "vocab_size", None), config.trust_remote_code)


def prompt_of(config: ModelConfig) -> ChatPrompt:
    """The prompt of a model with this configuration, from its tokenizer and its numbers alone: no weights are loaded.

    Raises CheckpointError or OSError where the language model's files are not to be had.
    """
    if config.is_native:
        return native_prompt(config, plan_model_views(config))
    return ChatPrompt(checked_tokenizer(config), count_image_tokens(config), config.system_message)


def check_context(config: ModelConfig, text: Mapping[str, int]) -> str:
    """Refuse a picture, a system message or a text that exceeds the context; else one line for the log.

    `text` maps keys of the experiment's configuration to the most tokens that each allows behind picture and template.
    Refused are also a language model and a tokenizer that cannot be used, as far as no weight says so.
    Raises ConfigError; CheckpointError or OSError where the language model's files are not to be had.
    """
    name, positions = config.answering_name, planned_positions(config)
    views, image = len(plan_model_views(config)), count_image_tokens(config)
    if config.is_native:
        template = len(native_prompt(config, plan_model_views(config)).generation("").input_ids) - image
    else:
        tokenizer = checked_tokenizer(config)
        template = len(ChatPrompt(tokenizer, 1, config.system_message).generation("").input_ids) - 1
    shown = f"{image:,} image tokens ({views} view{'s' * (views > 1)}) and {template:,} of template and system message"
    if positions is None:
        return f"prompt: {shown}; {name} states no limit"
    room = positions - image - template
    limit = f"the {positions:,} positions of {name} (max_position_embeddings)"
    if room < 1:
        raise ConfigError(
            f"a prompt does not fit: {shown} leave no room for text in {limit}. Lower image_processing.image_size or "
            "the number of views (fov_deg, overlap_ratio, anyres_max_patches), set image_processing.stitching_mode to "
            "drop_overlap or stride_views, or let a resampler gather tokens: models.resampler_type: qformer"
        )
    for key, tokens in text.items():
        if tokens > room:
            raise ConfigError(
                f"a prompt does not fit: {shown} and {tokens:,} of text ({key}) are {image + template + tokens:,} "
                f"tokens, more than {limit}. Lower {key} to at most {room:,}, or the number of image tokens"
            )
    return f"prompt: {shown}, room for {room:,} of text in {limit}"
