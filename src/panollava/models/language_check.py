"""Is the language model that later stages will use one that can be used? Asked before the vision stage trains.

In: the configuration of those stages. Out: nothing, or the error that they would end with: the model is loaded and
tried, adapters are attached, a prompt is built; then all of it is let go. Traded away: the time of one load.
"""

from __future__ import annotations

from pathlib import Path

import torch

from panollava.errors import CheckpointError
from panollava.logs import LOGGER
from panollava.models.config import ModelConfig
from panollava.models.language import LanguageModel
from panollava.models.prompt import ChatPrompt


def check_language_model(config: ModelConfig, dtype: torch.dtype, *, at_hand: bool = False) -> None:
    """Raise what a later stage would raise about `config`'s language model.

    Where it is not available yet, that is logged, or raised as well if it should be `at_hand`.
    """
    source = config.language_source
    try:
        language = LanguageModel(source, dtype=dtype, trust_remote_code=config.trust_remote_code)
    except CheckpointError as error:
        if at_hand or Path(source).is_dir() or not isinstance(error.__cause__, OSError):
            raise
        LOGGER.info("%s is not at hand: whether it can be used is seen later (%s)", config.language_model_name, error)
        return
    ChatPrompt(language.tokenizer, 1, config.system_message)
    if config.use_lora:
        with torch.random.fork_rng(devices=[]):
            language.add_lora(config.lora)
    LOGGER.info("language model of the stages to come: %s can be used", config.language_model_name)
