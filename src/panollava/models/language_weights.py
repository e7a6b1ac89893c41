"""A causal language model from a folder or the hub, whole: nothing invented, nothing of it left lying.

In: a source and a dtype. Out: the model; of a multimodal checkpoint its text part, under the text part's own class.
What transformers would pass over in silence is refused here: weights that the architecture does not use, an adapter
that lies beside the weights, a quantisation that this version of transformers or this machine cannot load.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.quantizers.auto import AutoHfQuantizer
from transformers.utils import find_adapter_config_file

from panollava.errors import ConfigError
from panollava.logs import LOGGER
from panollava.models.finite import refuse_not_finite
from panollava.models.unused_weights import harmful, refuse_unused
from panollava.models.vision import checkpoint_config, quiet_loading, readable_weights, refuse_missing_weights

_TEXT_PARTS = {
    # where the text part of a multimodal checkpoint is, first the head (a model inside a model has none)
    r"^(model\.)?(language_model|text_model)\.lm_head\.": "lm_head.",
    r"^(model\.)?(language_model|text_model|text_decoder)\.(model\.)?": "{prefix}.",
}


def load_language(source: str, dtype: torch.dtype, trust_remote_code: bool, options: dict[str, Any]) -> Any:
    """The model, frozen by nobody yet, in `dtype`. Raises ConfigError and CheckpointError that name what is wrong."""
    outer = checkpoint_config(source, trust_remote_code)
    config = text_config(source, outer)
    refuse_stray_adapter(source)
    refuse_quantisation(source, config)
    multimodal = config is not outer
    if multimodal:
        prefix = causal_class(config).base_model_prefix
        options = {**options, "key_mapping": {k: v.format(prefix=prefix) for k, v in _TEXT_PARTS.items()}}
        LOGGER.info("%s is a %s: its text part is loaded (%s)", source, outer.model_type, config.model_type)
    with quiet_loading(), readable_weights(source):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,  # refused below, with their names
            output_loading_info=True,
            **options,
        )
    model, loading = loaded
    refuse_missing_weights(source, loading)
    refuse_not_finite(source, model.named_parameters())
    refuse_unused_weights(source, model, loading["unexpected_keys"], multimodal)
    if multimodal:  # the text part is saved as what it is, not under the names of the whole
        model._weight_conversions = None
    return model


def text_config(source: str, config: Any) -> Any:
    """The configuration of the language model: the checkpoint's own, or that of its text part.

    Raises ConfigError where transformers has no causal language model for it.
    """
    text = config.get_text_config(decoder=True)
    known = MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) in known and (text is config or type(text) not in known):
        return config
    if text is not config and type(text) in known:
        if hasattr(config, "tie_word_embeddings"):  # what holds for the whole is stated there, if anywhere
            text.tie_word_embeddings = config.tie_word_embeddings
        if getattr(config, "quantization_config", None) is not None:
            text.quantization_config = config.quantization_config
        return text
    if type(config).__module__.startswith("transformers_modules."):
        return config  # code of its own: its auto_map says which class
    what = f"the text part of a {config.model_type}" if text is not config else f"a {config.model_type}"
    raise ConfigError(
        f"{source}: transformers has no causal language model for {what}, so models.language_model_name cannot name "
        "it. A vision-language model as a whole goes under models.vlm_name"
    )


def causal_class(config: Any) -> Any:
    """transformers' class for a causal model of this configuration; None for one with code of its own."""
    family: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return family[0] if isinstance(family, (tuple, list)) else family


def refuse_stray_adapter(source: str, native: bool = False) -> None:
    """Raise ConfigError where an adapter lies beside the weights: transformers would add it without a word."""
    with quiet_loading():
        found = find_adapter_config_file(source)
    if found is not None and native:
        raise ConfigError(
            f"{source} holds adapter_config.json beside its weights, and transformers would load that adapter into the "
            "model without a word. Move adapter_config.json and adapter_model.safetensors into a folder of their own: "
            "models.adapter: FOLDER starts from it, and without that key the weights alone are used"
        )
    if found is not None:
        raise ConfigError(
            f"{source} holds adapter_config.json beside its weights, and transformers would load that adapter into the "
            "language model without a word. Move adapter_config.json and adapter_model.safetensors elsewhere to train "
            "the weights alone; or merge the adapter into them first: peft's AutoPeftModelForCausalLM"
            ".from_pretrained(FOLDER).merge_and_unload().save_pretrained(NEW). (models.adapter, which starts from an "
            "adapter, belongs to models.vlm_name.)"
        )


def refuse_quantisation(source: str, config: Any) -> None:
    """Raise ConfigError for quantised weights that cannot be loaded here; transformers would load their raw numbers."""
    stated = getattr(config, "quantization_config", None)
    if stated is None:
        return
    stated = stated if isinstance(stated, dict) else stated.to_dict()
    method = stated.get("quant_method")
    try:
        with quiet_loading():
            if not AutoHfQuantizer.supports_quant_method(stated):
                raise ConfigError(
                    f"{source} is quantised by {method!r}, which transformers cannot load: name the checkpoint of full "
                    "precision"
                )
            quantizer = AutoHfQuantizer.from_config(stated, pre_quantized=True)
            quantizer.validate_environment(device_map=None)
    except (ImportError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{source} is quantised by {method!r}, which cannot be loaded here: {str(error).partition(chr(10))[0]}. "
            "Install what it asks for, or name the checkpoint of full precision"
        ) from error


def refuse_unused_weights(source: str, model: Any, unexpected: Iterable[str], multimodal: bool = False) -> None:
    """Raise CheckpointError that names weights of the file which the model has no place for.

    Apart are buffers of older versions, heads for several tokens, and layers behind the last one that the
    configuration counts as such (`num_nextn_predict_layers`). Of a multimodal checkpoint only the text part counts.
    """
    unused = harmful(model, unexpected)
    if multimodal:
        heads = {key.partition(".")[0] for key in model.state_dict()} - {model.base_model_prefix}
        inner = {".".join(key.split(".")[:2]) for key in model.state_dict()}
        unused = [key for key in unused if ".".join(key.split(".")[:2]) in inner or key.split(".")[0] in heads]
    refuse_unused(source, model, unused)
