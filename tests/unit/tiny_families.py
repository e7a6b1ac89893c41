"""Language models of a few thousand random weights, each in its family's own format: tokenizer class, special tokens,
chat template, configuration. Written as Hugging Face folders, as the hub has them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tiny_models import GEMMA, LANGUAGE, TEXT
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
)

QWEN25 = (  # brings a system message of its own where none is given
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3 = (  # thinks unless told otherwise; the last answer stands behind its (empty) thoughts
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
THINKER = (  # cannot be told otherwise
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
LLAMA32 = (  # always has a system turn, which names the day
    "{{ bos_token }}{% if not date_string is defined %}"
    "{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "<|start_header_id|>system<|end_header_id|>\n\nToday Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """How a family's folder is made; its prompt for the system message "You look around." and the query "where?"."""

    words: Callable[[str | None], Any]
    template: str | None
    model: Callable[[dict[str, Any]], Any]
    prompt: str
    end: str


def _pieces(core: Tokenizer, special: list[str], size: int, **options: Any) -> dict[str, Any]:
    """The vocabulary and merges that a tokenizer learns from TEXT."""
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, **options)
    core.train_from_iterator(TEXT * 4, trainer)
    merges = json.loads(core.to_str())["model"]["merges"]
    return {"vocab": core.get_vocab(), "merges": [tuple(pair) for pair in merges]}


def _byte_level() -> tuple[Tokenizer, dict[str, Any]]:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return core, {"size": 300, "initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}


def qwen_tokenizer(template: str | None) -> Any:
    core, options = _byte_level()
    pieces = _pieces(core, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], **options)
    return Qwen2Tokenizer(
        **pieces, eos_token="<|im_end|>", extra_special_tokens=["<|im_start|>"], chat_template=template
    )


def llama_tokenizer(template: str | None) -> Any:
    """As Llama 3.2's: puts the start token before plain text, and has no padding token."""
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    core, options = _byte_level()
    _pieces(core, special, **options)
    core.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=special[0], eos_token=special[4], extra_special_tokens=special[1:4],
        chat_template=template,
    )  # fmt: skip


def gemma_tokenizer(template: str | None) -> Any:
    """As Gemma's: "▁" for spaces, and bytes for what no piece covers."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    pieces = _pieces(core, special + [f"<0x{byte:02X}>" for byte in range(256)], 340)
    return GemmaTokenizer(**pieces, extra_special_tokens=special[5:], chat_template=template)


def gpt2_tokenizer(template: str | None) -> Any:
    core, options = _byte_level()
    _pieces(core, ["<|endoftext|>"], **options)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|endoftext|>", bos_token="<|endoftext|>", chat_template=template
    )


def _gpt2(shape: dict[str, Any]) -> Any:
    ends = {name: shape[name] for name in ("vocab_size", "eos_token_id", "bos_token_id")}
    return GPT2LMHeadModel(
        GPT2Config(**ends, n_embd=32, n_layer=2, n_head=2, n_positions=shape["max_position_embeddings"])
    )


_CHATML = (
    "<|im_start|>system\nYou look around.<|im_end|>\n<|im_start|>user\n[picture]\nwhere?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
LANGUAGES: dict[str, Family] = {
    "qwen2.5": Family(
        qwen_tokenizer, QWEN25, lambda shape: Qwen2ForCausalLM(Qwen2Config(**shape, tie_word_embeddings=True)),
        _CHATML, "<|im_end|>",
    ),
    "qwen3": Family(
        qwen_tokenizer, QWEN3, lambda shape: Qwen3ForCausalLM(Qwen3Config(**shape, tie_word_embeddings=True)),
        _CHATML + "<think>\n\n</think>\n\n", "<|im_end|>",
    ),
    "llama3.2": Family(
        llama_tokenizer, LLAMA32, lambda shape: LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=True)),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n"
        "You look around.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n[picture]\nwhere?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gemma2": Family(
        gemma_tokenizer, GEMMA, lambda shape: Gemma2ForCausalLM(Gemma2Config(**shape, sliding_window=64)),
        "<bos><start_of_turn>user\nYou look around.\n\n[picture]\nwhere?<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
    ),
    # none of SPEC's four: learned positions, fused projections, no chat template
    "gpt2": Family(
        gpt2_tokenizer, None, _gpt2, "<|endoftext|>You look around.\nUser: [picture]\nwhere?\nAssistant:",
        "<|endoftext|>",
    ),
}  # fmt: skip


def family_folder(root: Path, family: str, seed: int = 1, **shape: Any) -> Path:
    """A checkpoint of the family called `family`; `shape` changes its configuration."""
    torch.manual_seed(seed)
    recipe = LANGUAGES[family]
    words = recipe.words(recipe.template)
    settings = {**LANGUAGE, "vocab_size": len(words), "pad_token_id": words.pad_token_id,
                "eos_token_id": words.eos_token_id, "bos_token_id": words.bos_token_id, **shape}  # fmt: skip
    folder = root / family
    recipe.model(settings).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
