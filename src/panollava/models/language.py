"""The causal language model: embeddings in, logits where they are wanted or new tokens out.

In: input embeddings [B, L, D_lm] with their attention mask. Any model of AutoModelForCausalLM that takes
`inputs_embeds` and passes `probes` will do, and the text part of a multimodal one. Its own weights stay frozen; LoRA
adapters (peft) are attached after freezing. The generation defaults that a checkpoint brings along (sampling,
repetition penalties) are dropped: what is not asked for does not happen. Traded away: training the language model.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import GenerationConfig
from transformers.utils import is_flash_attn_2_available

from panollava.errors import ConfigError, PromptTooLong
from panollava.files import atomic_path
from panollava.logs import LOGGER
from panollava.models.adapters import attach, describe, find_targets, language_part, lost_by_peft
from panollava.models.checks import check_length
from panollava.models.language_weights import causal_class, load_language, text_config
from panollava.models.merging import merged
from panollava.models.probes import probe
from panollava.models.prompt import pad_id_of
from panollava.models.tokenizer import load_tokenizer
from panollava.models.vision import checkpoint_config
from panollava.settings.model import LoraSettings

_FLASH_INSTALL = "pip install flash-attn --no-build-isolation"


class LanguageModel(nn.Module):
    """A frozen causal language model and its tokenizer, with or without LoRA adapters.

    `source` is a hub id or a folder; `dtype` that of the frozen weights (adapters stay in float32).
    Raises CheckpointError when the checkpoint lacks weights or holds others, ConfigError where the model cannot be used
    (see `probes`).
    """

    def __init__(self, source: str, *, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False) -> None:
        super().__init__()
        config = text_config(source, checkpoint_config(source, trust_remote_code))
        attention, reason = choose_attention(config, dtype)
        LOGGER.info("attention: %s (%s)", attention or "the model's own", reason)
        options = {} if attention is None else {"attn_implementation": attention}
        self.source = source
        self.model: Any = load_language(source, dtype, trust_remote_code, options)
        accepted = inspect.signature(self.model.forward).parameters
        if "inputs_embeds" not in accepted:
            raise ConfigError(
                f"{source}: {type(self.model).__name__} takes no inputs_embeds, so its prompt cannot hold a picture"
            )
        self.model.requires_grad_(False)
        rows = self.model.get_input_embeddings().weight.shape[0]
        self.tokenizer = load_tokenizer(source, rows, trust_remote_code)
        self.own_end_ids = _as_ids(self.model.generation_config.eos_token_id)
        self.model.generation_config = GenerationConfig()
        self._selects = "logits_to_keep" in accepted
        self._adapted = False
        self.positions = positions_of(config)
        with self.tried_here():
            behaviour = probe(self)
        self.pads_left, self.supports_prefix_cache = behaviour.pads_left, behaviour.supports_prefix_cache

    @property
    def _core(self) -> Any:
        """transformers' model, its layers with or without adapters: peft's own forward refuses MPT's embeddings."""
        return self.model.get_base_model() if self._adapted else self.model

    @property
    def hidden_size(self) -> int:
        """D_lm, the width of an input embedding."""
        return int(self.model.get_input_embeddings().weight.shape[1])

    @property
    def has_lora(self) -> bool:
        return self._adapted

    def embed(self, input_ids: Tensor) -> Tensor:
        """Embeddings [B, L, D_lm] as they enter the first block (scaled where the family scales them)."""
        embedded: Tensor = self.model.get_input_embeddings()(input_ids)
        return embedded

    @torch.no_grad()
    def embedding_scale(self) -> float:
        """Standard deviation of the embeddings as `embed` returns them, over (at most 20,000) tokens."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        ids = torch.arange(0, rows, max(1, rows // 20_000), device=self.model.device)
        return float(self.embed(ids[None]).float().std())

    def forward(
        self, embeds: Tensor, attention_mask: Tensor | None, positions: Tensor | None = None, past: Any = None
    ) -> Tensor:
        """Logits [B, K, vocab] at the K `positions` (int64), or [B, L, vocab] at all when None.

        `attention_mask` None: every position counts, as where only the ends of sequences are padded. `past` is what
        `read` returned for what precedes: `attention_mask` then covers it too, and `past` grows. Raises
        PromptTooLong where there are more tokens than positions.
        """
        length = embeds.shape[1] if past is None or attention_mask is None else attention_mask.shape[1]
        check_length(length, self.positions)
        options: dict[str, Any] = {"use_cache": past is not None}
        if past is not None:
            options["past_key_values"] = past
        if positions is not None and self._selects:
            options["logits_to_keep"] = positions
        output = self._core(inputs_embeds=embeds, attention_mask=attention_mask, **options)
        logits: Tensor = output.logits
        if positions is not None and not self._selects:
            logits = logits[:, positions]
        return logits

    def read(self, embeds: Tensor) -> Any:
        """Keys and values (a transformers `Cache`) of [B, L, D_lm] without padding, for `forward`'s `past`.

        None, or another kind of cache, where the model remembers otherwise (`supports_prefix_cache`).
        """
        options: dict[str, Any] = {"logits_to_keep": 1} if self._selects else {}
        return getattr(self._core(inputs_embeds=embeds, use_cache=True, **options), "past_key_values", None)

    def generate(self, embeds: Tensor, attention_mask: Tensor, end_ids: Sequence[int], **options: Any) -> Tensor:
        """New token ids [B, T] after left-padded embeddings, ended by any of `end_ids` or the model's own.

        Rows are answered one by one where padding would change the answer (see `probes`).
        Raises PromptTooLong where prompt and `max_new_tokens` exceed the model's context.
        """
        longest, wanted = embeds.shape[1], options.get("max_new_tokens", 1)
        if self.positions is not None and longest + wanted > self.positions:
            raise PromptTooLong(
                f"a prompt of {longest:,} tokens and an answer of up to {wanted:,} leave the language model's "
                f"{self.positions:,} positions: shorten the query, or lower generation.max_new_tokens"
            )
        ends, pad = list(dict.fromkeys([*end_ids, *self.own_end_ids])), pad_id_of(self.tokenizer)
        options |= {"eos_token_id": ends, "pad_token_id": pad}
        if self.pads_left or bool(attention_mask.all()):
            generated: Tensor = self._core.generate(inputs_embeds=embeds, attention_mask=attention_mask, **options)
            return generated
        alone = []
        for row, mask in zip(embeds, attention_mask.bool(), strict=True):
            one, whole = row[mask][None], attention_mask.new_ones(1, int(mask.sum()))
            alone.append(self._core.generate(inputs_embeds=one, attention_mask=whole, **options)[0])
        return pad_sequence(alone, batch_first=True, padding_value=pad)

    def add_lora(self, settings: LoraSettings) -> None:
        """Attach trainable adapters, which change nothing until they are trained (B is zero)."""
        if self._adapted:
            raise ConfigError("the language model has LoRA adapters already")
        part = language_part(self.model)
        with self.tried_here():
            targets = find_targets(self.model, settings, part, lambda: self._logits_of(8))
        for line in describe(self.model, targets, part):
            LOGGER.info(line)
        self.model = attach(self.model, settings, targets)
        self._adapted = True

    @contextmanager
    def tried_here(self) -> Iterator[None]:
        """For a few tokens before the model is moved to its GPU: FlashAttention has nothing for a CPU."""
        chosen = self.model.config._attn_implementation
        if self.model.device.type != "cpu" or chosen != "flash_attention_2":
            yield
            return
        self.model.set_attn_implementation("sdpa" if self.model._supports_sdpa else "eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(chosen)

    def _logits_of(self, length: int) -> Tensor:
        """Logits of a few tokens, whose embeddings require a gradient."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        ids = (torch.arange(length, device=self.model.device) + 1) % rows
        embeds = self.embed(ids[None]).detach().requires_grad_()
        return self(embeds.clone(), None)  # some write into them

    def merge_lora(self) -> None:
        """Add the adapters' part to the weights they belong to, and drop them. Does nothing without adapters.

        Raises ConfigError where that would change the model (see `merging`), which then stays as it was.
        """
        if not self._adapted:
            return
        training = self.training
        self.eval()
        try:
            with self.tried_here():
                self.model = merged(self.model, lambda: self._logits_of(12))
            self._adapted = False
        finally:
            self.train(training)

    def lora_modules(self) -> nn.ModuleList:
        """The adapters' own layers (A and B of every adapted layer, DoRA's magnitudes); empty without LoRA."""
        return nn.ModuleList(
            module
            for name, module in self.model.named_modules()
            if self._adapted and name.rpartition(".")[0].endswith(("lora_A", "lora_B", "lora_magnitude_vector"))
        )

    def save_adapter(self, folder: str | Path, base_name: str | None = None) -> None:
        """Write adapter_config.json and adapter_model.safetensors as peft's `from_pretrained` reads them.

        `base_name` is what the configuration calls the base model (default: where it was loaded from).
        """
        if not self._adapted:
            raise ConfigError("the language model has no LoRA adapters to save")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = dataclasses.replace(self.model.peft_config["default"], inference_mode=True)
        if base_name is not None:
            config.base_model_name_or_path = base_name
        tensors = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        with atomic_path(folder / "adapter_model.safetensors") as path:
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, path, {"format": "pt"})
        config.save_pretrained(str(folder))
        if lost := lost_by_peft(self.model, load_file(folder / "adapter_model.safetensors")):
            LOGGER.warning(
                "%s: peft's own reader would lose %d of %d tensors of this family (%s, …); panollava reads them all",
                folder, len(lost), len(tensors), lost[0],
            )  # fmt: skip


def choose_attention(config: Any, dtype: torch.dtype) -> tuple[str | None, str]:
    """The attention implementation for a language model, and why; None leaves it to remote code.

    FlashAttention 2 where it is installed, the GPU has it (compute capability 8.0 or more), the weights are
    half precision and `DISABLE_FLASH_ATTN` is not set; else SDPA; else eager, where the family has no SDPA.
    """
    family = causal_class(config)
    if family is None:
        return None, f"{config.model_type} is not one of transformers' own models"
    # Some versions of transformers let Gemma 2 run under SDPA, which leaves its soft-capping out without a word.
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    fallback = "sdpa" if getattr(family, "_supports_sdpa", False) and not capped else "eager"
    if os.environ.get("DISABLE_FLASH_ATTN", "").strip().lower() in ("1", "true", "yes", "on"):
        return fallback, "DISABLE_FLASH_ATTN is set"
    if not torch.cuda.is_available():
        return fallback, "no GPU"
    if torch.cuda.get_device_capability()[0] < 8:
        return fallback, "the GPU is older than FlashAttention 2 needs"
    if not getattr(family, "_supports_flash_attn", False):
        return fallback, f"{config.model_type} does not support FlashAttention 2"
    if dtype not in (torch.float16, torch.bfloat16):
        return fallback, f"FlashAttention 2 needs half-precision weights, these are {dtype}"
    if not is_flash_attn_2_available():
        return fallback, f"FlashAttention 2 is not installed: {_FLASH_INSTALL}"
    return "flash_attention_2", "installed, and the GPU has it"


def positions_of(config: Any) -> int | None:
    """How many tokens a language model was made for; None where its configuration states none."""
    stated = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(stated) if stated and stated > 0 else None  # XLNet says -1


def _as_ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)
