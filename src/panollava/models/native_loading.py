"""A family's own weights as a transformers model, whole or quantised, frozen."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from panollava.errors import ConfigError
from panollava.extras import install
from panollava.logs import LOGGER
from panollava.models.config import ModelConfig
from panollava.models.finite import refuse_not_finite
from panollava.models.language_weights import refuse_quantisation, refuse_stray_adapter
from panollava.models.unused_weights import of_own_layers, refuse_unused
from panollava.models.vision import checkpoint_config, quiet_loading, readable_weights, refuse_missing_weights


def load_native(config: ModelConfig, dtype: torch.dtype) -> Any:
    """The family's model with its own weights, frozen, in eval mode. Raises CheckpointError where some are missing."""
    source = config.vlm_source
    options: dict[str, Any] = {}
    if config.quantization is not None:
        options["quantization_config"] = quantization_config(config.quantization, dtype)
        options["device_map"] = {"": torch.cuda.current_device()} if torch.cuda.is_available() else None
    refuse_stray_adapter(source, native=True)
    refuse_quantisation(source, checkpoint_config(source, config.trust_remote_code))
    with quiet_loading(), readable_weights(source):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=config.trust_remote_code,
            ignore_mismatched_sizes=True,  # refused below, with their names
            output_loading_info=True,
            **options,
        )
    model, loading = loaded
    refuse_missing_weights(source, loading)
    refuse_not_finite(source, model.named_parameters())
    refuse_unused(source, model, of_own_layers(model, loading["unexpected_keys"]))
    if loading["unexpected_keys"]:
        unread = sorted(loading["unexpected_keys"])
        LOGGER.warning("%s holds %d weights that %s does not read: %s%s", source, len(unread), type(model).__name__,
                       ", ".join(unread[:4]), ", …" if len(unread) > 4 else "")  # fmt: skip
    model.requires_grad_(False)
    return model.eval()


def quantization_config(bits: str, dtype: torch.dtype) -> Any:
    """bitsandbytes' settings for base weights of 8 or 4 bits. Raises ConfigError where library or device cannot."""
    reason = None
    if find_spec("bitsandbytes") is None:
        reason = f"the package bitsandbytes is not installed: {install('quant')}"
    elif not torch.cuda.is_available():
        reason = "this machine has no GPU that bitsandbytes computes on"
    if reason is not None:
        raise ConfigError(f"models.quantization: {bits} cannot be used: {reason}")
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )
