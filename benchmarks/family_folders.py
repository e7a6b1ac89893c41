"""Tiny random folders of every causal language model that transformers maps, for `families.py`.

A family's name (`model_type`) enters; its folder leaves: weights, configuration, tokenizer. The configuration class's
own defaults are shrunk by the names of their keys; what a family needs beside that stands in FIXES.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

LAYERS, POSITIONS = 4, 512
FAMILIES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
SMOKE = ("llama", "gemma3_text", "gpt2", "opt", "lfm2", "qwen3_moe", "deepseek_v3", "mamba", "rwkv", "openai-gpt",
         "bert", "qwen3_5_text")  # fmt: skip
"""One of each kind: plain, scaled embeddings, Conv1D, learned positions, hybrid, experts, experts with dense layers,
state space, recurrent, one that cannot answer from embeddings, one that looks ahead, linear attention."""

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = ["what is in front of you? a red box", "where is the blue sphere? behind you, on your left"]

# The first rule whose pattern is the whole key gives the value.
_RULES: tuple[tuple[str, Any], ...] = (
    (r"(moe|expert|shared\w*)_\w*intermediate_size|expert_ffn_hidden_size", 48),
    (r"\w*intermediate_size\w*|\w*ffn_dim|ffn_hidden_size|n_inner|dim_ff|dff|d_inner|feed_forward_size", 96),
    (r"mamba_d_ssm", 128),
    (r"hidden_size_per_layer_input|router_hidden_size|gated_norm_rank|adapter_rank|hc_lowrank", 16),
    (r"(attention_)?hidden_size|d_model|n_embd|\w*embedding_size|dim|emb_dim|word_embed_proj_dim|lru_width", 64),
    (r"decoder_layers|n(um)?_(hidden_|decoder_)?layers?|num_blocks", LAYERS),
    (r"(num_)?encoder_layers", 2),
    (r"(swa_)?num_key_value_heads|num_query_groups|num_global_key_value_heads|n_mamba_heads", 2),
    (r"(mamba_n|mamba_num)_heads", 8),
    (r"index_n_heads|linear_num_key_heads|o_groups|zero_expert_num", 2),
    (r"(num_|n_|decoder_|encoder_|swa_|linear_)?(num_)?((encoder|decoder)_)?(attention_)?(value_)?heads?|n_head", 4),
    (r"(swa_|global_)?head_dim|kv_channels|attention_head_size|d_head|dim_head|v_head_dim|qk_nope_head_dim", 16),
    (r"query_pre_attn_scalar|index_head_dim|linear_\w*head_dim|mamba_(d_head|head_dim)|o_lora_rank|kv_lora_rank", 16),
    (r"q_lora_rank|qk_head_dim", 24),
    (r"qk_rope_head_dim|rotary_dim|laurel_rank|mamba_dt_rank|time_step_rank", 8),
    (r"(num|moe_num|n_routed|num_local)_?experts", 4),
    (r"num_experts_per_tok(en)?|moe_topk|moe_k", 2),
    (r"n_group|topk_group|num_expert_group|first_k_dense_replace|num_dense_layers|moe_layer_start_index", 1),
    (r"moe_layer_end_index", LAYERS - 1),
    (r"index_topk", 256),
    (r"local_attention", 32),
    (r"rel_extent", 64),
    (r"keep_window_size", 512),
    (r"\w*sliding_window(_size)?|attention_chunk_size|window_size|attention_window_size|\w*chunk_size", 16),
    (r"block_multiple_of|mamba_d_state|(ssm_)?state_size", 16),
    (r"(original_)?max_position_embeddings|n_positions|n_ctx|max_seq_len|model_max_length|context_length", POSITIONS),
    (r"num_kv_shared_layers", 0),
    (r"dim_model_base", 32),
    # multipliers that must not get lost on the way
    (r"logits_scaling|logits_mup_width_multiplier", 3.0),
    (r"embedding_multiplier", 5.0),
    (r"residual_multiplier|logit_scale|attention_multiplier", 0.4),
    (r"lm_head_multiplier|key_multiplier|ssm_out_multiplier|attention_out_multiplier", 0.7),
    (r"attention_in_multiplier|ssm_in_multiplier", 1.1),
    (r"\w*logit_softcapping|logits_soft_cap", 4.0),
    (r"router_jitter_noise|\w*(pdrop|dropout|dropout_prob|dropout_p)", 0.0),
)
_S, _F, _LINEAR = "sliding_attention", "full_attention", "linear_attention"
_HYBRID = ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid_sliding"]
_WITHOUT = "without this key"
_MLA: dict[str, Any] = {"num_key_value_heads": 4, "head_dim": _WITHOUT, "qk_head_dim": _WITHOUT}
_ENCODER: dict[str, Any] = {"encoder_layers": LAYERS}


def _each(families: str, values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {family: dict(values) for family in families.split()}


FIXES: dict[str, dict[str, Any]] = {
    **_each("gemma3_text cohere2 olmo3", {"layer_types": [_S, _S, _F, _S]}),
    "exaone4": {"layer_types": [_S, _S, _F, _S], "sliding_window_pattern": _WITHOUT},
    "gemma2": {"layer_types": [_S, _F, _S, _F]},
    **_each("mellum laguna kolibri1", {"layer_types": [_S, _F, _S, _S]}),
    **_each("inkling_text inkling2_text", {"layer_types": _HYBRID}),
    **_each("lfm2 lfm2_moe", {"layer_types": ["conv", _F, "conv", "conv"]}),
    **_each("ministral hunyuan_v1_dense hunyuan_v1_moe", {"head_dim": 16}),
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    **_each("minicpm3 youtu deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa axk1 axk2 dots3_note_text", _MLA),
    "deepseek_v2": {**_MLA, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "longcat_flash": {**_MLA, "head_dim": 8},
    **_each("kimi_linear bailing_hybrid", {**_MLA, "layer_types": [_LINEAR, _LINEAR, _F, _LINEAR]}),
    **_each("bart mbart marian pegasus blenderbot blenderbot-small plbart mvp bigbird_pegasus", _ENCODER),
    "prophetnet": {"num_encoder_layers": LAYERS},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "rwkv": {"rescale_every": 0},
    "whisper": {"max_target_positions": POSITIONS},
    "reformer": {"attn_layers": ["local", "lsh", "local", "lsh"], "axial_pos_shape": [16, 32],
                 "axial_pos_embds_dim": [32, 32], "is_decoder": True, "local_attn_chunk_length": 16,
                 "lsh_attn_chunk_length": 16, "num_buckets": 4},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
             "ffn_config": {"ffn_hidden_size": 48}},
    "jamba": {"attn_layer_period": 3, "attn_layer_offset": 2, "expert_layer_period": 2, "expert_layer_offset": 1},
    "bamba": {"attn_layer_indices": [2]},
    "granitemoehybrid": {"layer_types": ["mamba", "mamba", "attention", "mamba"]},
    "zamba": {"num_hidden_layers": 7, "attn_layer_period": 3, "attn_layer_offset": 2, "num_key_value_heads": 4,
              "attention_head_dim": 32, "attention_hidden_size": 128},
    "zamba2": {"num_hidden_layers": 6, "layers_block_type": ["mamba", "mamba", "hybrid", "mamba", "hybrid", "mamba"],
               "attention_head_dim": 32, "attention_hidden_size": 128, "num_key_value_heads": 4,
               "n_mamba_heads": 8, "mamba_headdim": 16,
               "mamba_ngroups": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "zaya": {"num_experts_per_tok": 1},
    "xlstm": {"qk_dim_factor": 1.0},
    "deepseek_v4": {"layer_types": [_S, "heavily_compressed_attention", "compressed_sparse_attention", _S]},
    "recurrent_gemma": {"block_types": ["recurrent", "recurrent", "attention"]},
    "cohere_compass_text": {"layer_types": [_S, _S, _F, _S], "rope_parameters": {
        _S: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}, _F: None}},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 256,
                       "indexer_compress_ratio": 2, "ple_layer_ids": [1], "ple_embed_dim": 64,
                       "ngram_vocab_size_base": 200, "split_ngram_parts": 2, "heads_per_ngram": 4,
                       "make_ngram_vocab_size_divisible_by": 8},
}  # fmt: skip


def build_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Byte-level BPE of some 300 pieces, with a chat template."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<bos>"]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        _TEXT * 4,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=special[0], pad_token=special[0], bos_token=special[3],
        extra_special_tokens=special[1:3],
    )  # fmt: skip
    words.chat_template = template
    return words


def small_config(family: str, words: PreTrainedTokenizerFast) -> Any:
    """A configuration of `family` with a few thousand weights; of its towers, too, where it has some."""
    kind = CONFIG_MAPPING[family]
    ids = {f"{name}_token_id": getattr(words, f"{name}_token_id") for name in ("pad", "eos", "bos")}
    values = _small(kind().to_dict(), len(words) + 12) | ids | FIXES.get(family, {})
    return kind(**{key: value for key, value in values.items() if value is not _WITHOUT})


def _small(known: dict[str, Any], vocabulary: int) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in known.items():
        if isinstance(value, dict) and key.endswith("config"):
            fixed = {**_small(value, vocabulary), **FIXES.get(value.get("model_type", ""), {})}
            values[key] = {name: found for name, found in fixed.items() if found is not _WITHOUT}
            if "model_type" in value:
                values[key]["model_type"] = value["model_type"]
        elif key.endswith(("token_id", "token_index")) and isinstance(value, int):
            values[key] = min(value, vocabulary - 1)
        elif key in ("vocab_size", "vocab_size_per_layer_input"):
            values[key] = vocabulary
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            small = next((small for pattern, small in _RULES if re.fullmatch(pattern, key)), value)
            if small != value:
                values[key] = small
    return values


@torch.no_grad()
def randomise(model: torch.nn.Module, seed: int = 7) -> None:
    """Weights at which every path matters: fresh ones leave gates, biases and the like at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():  # tied ones come once
        if not parameter.is_floating_point():
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        matrix = parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1
        if matrix and not name.endswith(("A_log", "time_decay", "time_first")):
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
        else:
            parameter.add_(0.1 * noise)


def build_folder(root: Path, family: str) -> Path:
    """Write the family's tiny folder under `root`."""
    words = build_tokenizer()
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(small_config(family, words))
    randomise(model)
    folder = root / family
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
