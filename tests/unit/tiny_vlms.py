"""Native vision-language models of a few thousand random weights, each in its family's own format: configuration,
weights, processor, tokenizer with its special tokens and chat template. Written as Hugging Face folders, as the hub has
them; a view is 56 x 56 pixels (64 x 64 where the patch is 16).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEXT = [
    "What is behind you? a red box",
    "Where is the blue sphere? behind you, on your left",
    "describe the panorama: system user assistant model Assistant: User:",
    "view 2 of 9, 45° to the right: straight ahead",
] * 4
WIDTH, BLOCKS = 32, 2
LANGUAGE: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": BLOCKS, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 2048,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 56,
    "patch_size": 14,
}  # fmt: skip
SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False, **TOWER}
MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
SIZE = {"height": 56, "width": 56}


def chatml(image: str) -> str:
    return (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<start_of_image>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SMOL = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST]{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}[IMG]{% else %}{{ c['text'] }}{% endif %}{% endfor %}[/INST]"
    "{% elif m['role'] == 'assistant' %}{{ m['content'][0]['text'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class TinyVLM:
    """How a family's folder is made, and the side of a view in pixels."""

    parts: Callable[[], tuple[Any, Any]]
    side: int = 56


def words(
    special: list[str], template: str | None, *, eos: str = "<|im_end|>", bos: str | None = None, **named: str
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with these special tokens; `named` become its attributes, as in multimodal tokenizers."""
    every = list(dict.fromkeys(["<|pad|>", eos, "<|im_start|>", *([bos] if bos else []), *special]))
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=340 + len(every), special_tokens=every, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=eos, bos_token=bos, pad_token="<|pad|>", chat_template=template,
        extra_special_tokens=named,
    )  # fmt: skip


def _text(tokenizer: PreTrainedTokenizerFast, kind: str = "llama", **other: Any) -> dict[str, Any]:
    return {
        "model_type": kind, **LANGUAGE, "vocab_size": len(tokenizer) + 3, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, **other,
    }  # fmt: skip


def _config(family: str, **settings: Any) -> Any:
    return CONFIG_MAPPING[family](**settings)


def _qwen(family: str, processor: str, video: str, patch: int, text: dict[str, Any], vision: dict[str, Any]) -> Any:
    special = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = words(special, chatml("<|vision_start|><|image_pad|><|vision_end|>"))
    start, end, image, clip = tokenizer.convert_tokens_to_ids(special)
    shared = {"hidden_size": 24, "intermediate_size": 32, "num_heads": 2, "patch_size": patch, "out_hidden_size": WIDTH}
    config = _config(
        family, text_config={**_text(tokenizer), **text}, vision_config={**shared, **vision}, image_token_id=image,
        video_token_id=clip, vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    area = {"shortest_edge": (4 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    images = transformers.Qwen2VLImageProcessor(patch_size=patch, merge_size=2, size=area)
    return config, getattr(transformers, processor)(
        image_processor=images, tokenizer=tokenizer, video_processor=getattr(transformers, video)(),
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _qwen2_5_vl() -> Any:
    text = {"rope_parameters": MROPE}
    del_kind = {"model_type": "qwen2_5_vl_text"}
    vision = {"depth": 2, "window_size": 56, "fullatt_block_indexes": [1]}
    return _qwen("qwen2_5_vl", "Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor", 14, text | del_kind, vision)


def _qwen3_vl() -> Any:
    text = {
        "model_type": "qwen3_vl_text", "num_hidden_layers": 3, "head_dim": 8,
        "rope_parameters": {**MROPE, "mrope_interleaved": True},
    }  # fmt: skip
    vision = {"depth": 3, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
    return _qwen("qwen3_vl", "Qwen3VLProcessor", "Qwen3VLVideoProcessor", 16, text, vision)


def _qwen3_5() -> Any:
    rope = {**MROPE, "partial_rotary_factor": 0.5, "mrope_interleaved": True}
    text = {
        "model_type": "qwen3_5_text", "num_hidden_layers": 2, "head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "linear_num_key_heads": 2, "linear_num_value_heads": 2, "rope_parameters": rope,
    }  # fmt: skip
    vision = {"depth": 2, "num_position_embeddings": 16}
    return _qwen("qwen3_5", "Qwen3VLProcessor", "Qwen3VLVideoProcessor", 16, text, vision)


def _glm4v() -> Any:
    special = ["<|image|>", "<|video|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>",
               "<|end_of_video|>"]  # fmt: skip
    tokenizer = words(
        special, chatml("<|begin_of_image|><|image|><|end_of_image|>"), image_token="<|image|>", video_token="<|video|>"
    )
    ids = tokenizer.convert_tokens_to_ids(special)
    rope = {**MROPE, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}
    names = ("image_token_id", "video_token_id", "image_start_token_id", "image_end_token_id", "video_start_token_id",
             "video_end_token_id")  # fmt: skip
    config = _config(
        "glm4v", text_config=_text(tokenizer, "glm4v_text", rope_parameters=rope),
        vision_config={"depth": 2, "hidden_size": 24, "num_heads": 2, "image_size": 56, "patch_size": 14,
                       "out_hidden_size": WIDTH, "intermediate_size": 32},
        **dict(zip(names, ids, strict=True)),
    )  # fmt: skip
    area = {"shortest_edge": 56 * 56 * 2, "longest_edge": 56 * 56 * 2}
    return config, transformers.Glm4vProcessor(
        image_processor=transformers.Glm4vImageProcessor(patch_size=14, merge_size=2, size=area), tokenizer=tokenizer,
        video_processor=transformers.Glm4vVideoProcessor(), chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _internvl() -> Any:
    tokenizer = words(
        ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"], chatml("<IMG_CONTEXT>\n"), start_image_token="<img>",
        end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>",
    )  # fmt: skip
    config = _config(
        "internvl", text_config=_text(tokenizer, "qwen2"),
        vision_config={**TOWER, "image_size": [56, 56], "patch_size": [14, 14]},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"), image_seq_length=4, downsample_ratio=0.5,
    )  # fmt: skip
    images = transformers.GotOcr2ImageProcessor(size=SIZE, crop_to_patches=False, min_patches=1, max_patches=12)
    return config, transformers.InternVLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=transformers.InternVLVideoProcessor(),
        image_seq_length=4, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _gemma3() -> Any:
    special = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = words(
        special, GEMMA, bos="<bos>", eos="<end_of_turn>", image_token="<image_soft_token>",
        boi_token="<start_of_image>", eoi_token="<end_of_image>",
    )  # fmt: skip
    _, _, begin, end, image = tokenizer.convert_tokens_to_ids(special)
    text = _text(
        tokenizer, "gemma3_text", head_dim=8, query_pre_attn_scalar=8, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    config = _config("gemma3", text_config=text, vision_config=SIGLIP, mm_tokens_per_image=4, boi_token_index=begin,
                     eoi_token_index=end, image_token_index=image)  # fmt: skip
    images = transformers.Gemma3ImageProcessor(size=SIZE, image_seq_length=4)
    return config, transformers.Gemma3Processor(
        image_processor=images, tokenizer=tokenizer, image_seq_length=4, chat_template=tokenizer.chat_template
    )


def _smol(family: str) -> Any:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = words(
        ["<image>", "<fake_token_around_image>", "<global-img>", *tiles], SMOL, eos="<end_of_utterance>",
        image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )  # fmt: skip
    config = _config(
        family, text_config=_text(tokenizer), vision_config=TOWER, scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    kind = {"smolvlm": "SmolVLM", "idefics3": "Idefics3"}[family]
    images = getattr(transformers, f"{kind}ImageProcessor")(
        size={"longest_edge": 112}, max_image_size={"longest_edge": 56}, do_image_splitting=True
    )
    video = transformers.SmolVLMVideoProcessor(size={"longest_edge": 56})
    extra = {"video_processor": video} if family == "smolvlm" else {}
    return config, getattr(transformers, f"{kind}Processor")(
        image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=tokenizer.chat_template, **extra
    )


def _llava() -> Any:
    tokenizer = words(["<image>"], chatml("<image>\n"), image_token="<image>")
    clip = {"model_type": "clip_vision_model", "projection_dim": 16, **TOWER}
    config = _config(
        "llava", text_config=_text(tokenizer), vision_config=clip, vision_feature_layer=-2,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_select_strategy="default",
        image_seq_length=16,
    )  # fmt: skip
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=SIZE)
    return config, transformers.LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _llava_next() -> Any:
    tokenizer = words(["<image>"], chatml("<image>\n"), image_token="<image>")
    places = [[56, 112], [112, 56], [112, 112]]
    config = _config(
        "llava_next", text_config=_text(tokenizer), image_grid_pinpoints=places, vision_feature_layer=-2,
        vision_config={"model_type": "clip_vision_model", "projection_dim": 16, **TOWER}, image_seq_length=16,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_select_strategy="default",
    )  # fmt: skip
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 56}, crop_size=SIZE, image_grid_pinpoints=places
    )
    return config, transformers.LlavaNextProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _llava_onevision() -> Any:
    tokenizer = words(["<image>", "<video>"], chatml("<image>\n"), image_token="<image>", video_token="<video>")
    image, video = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
    places = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = _config(
        "llava_onevision", text_config=_text(tokenizer, "qwen2"), vision_config=SIGLIP, image_token_index=image,
        video_token_index=video, image_grid_pinpoints=places, vision_aspect_ratio="anyres_max_9",
    )  # fmt: skip
    return config, transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=places),
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=SIZE), tokenizer=tokenizer, num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _paligemma() -> Any:
    tokenizer = words(["<image>"], None, bos="<bos>", eos="<eos>", image_token="<image>")
    text = _text(tokenizer, "gemma2", head_dim=8, query_pre_attn_scalar=8, sliding_window=64)
    text["vocab_size"] = len(tokenizer) + 1200  # its processor adds 1,152 tokens for places
    config = _config(
        "paligemma", text_config=text, vision_config={**SIGLIP, "projection_dim": WIDTH}, projection_dim=WIDTH,
        hidden_size=WIDTH, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = transformers.SiglipImageProcessor(size=SIZE)
    images.image_seq_length = 16
    return config, transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)


def _mistral3() -> Any:
    special = ["[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"]
    tokenizer = words(special, MISTRAL, bos="<s>", eos="</s>")
    pixtral = {
        "model_type": "pixtral", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "head_dim": 12, "image_size": 112, "patch_size": 14,
    }  # fmt: skip
    config = _config(
        "mistral3", text_config=_text(tokenizer, "mistral", sliding_window=None, head_dim=8), vision_config=pixtral,
        image_token_index=tokenizer.convert_tokens_to_ids("[IMG]"), spatial_merge_size=2, vision_feature_layer=-1,
    )  # fmt: skip
    images = transformers.PixtralImageProcessor(size={"longest_edge": 56}, patch_size={"height": 28, "width": 28})
    return config, transformers.PixtralProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, spatial_merge_size=2, image_token="[IMG]",
        image_break_token="[IMG_BREAK]", image_end_token="[IMG_END]", chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _cohere2_text(tokenizer: Any) -> dict[str, Any]:
    return _text(
        tokenizer, "cohere2", sliding_window=64, layer_types=["sliding_attention", "full_attention"], head_dim=8
    )


def _aya_vision() -> Any:
    special = ["<image>", "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE",
               "TILE_GLOBAL"]  # fmt: skip
    tokenizer = words(special, chatml("<image>"))
    config = _config(
        "aya_vision", text_config=_cohere2_text(tokenizer), vision_config=SIGLIP, downsample_factor=2,
        image_token_index=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"),
    )  # fmt: skip
    images = transformers.GotOcr2ImageProcessor(size=SIZE, max_patches=12, min_patches=1)
    return config, transformers.AyaVisionProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, img_size=56, downsample_factor=2,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _cohere2_vision() -> Any:
    special = ["<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>"]
    tokenizer = words(
        special, chatml("<|IMG_PATCH|>"), image_token=special[2], boi_token=special[0], eoi_token=special[1],
        img_line_break_token=special[3],
    )  # fmt: skip
    config = _config(
        "cohere2_vision", text_config=_cohere2_text(tokenizer), vision_config=SIGLIP, downsample_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<|IMG_PATCH|>"), alignment_intermediate_size=64,
    )  # fmt: skip
    images = transformers.Cohere2VisionImageProcessor(size=SIZE, patch_size=2)
    return config, transformers.Cohere2VisionProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=14, img_size=56,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def _lfm2_vl() -> Any:
    special = ["<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"]
    tokenizer = words(
        special, chatml("<image>"), image_token=special[0], image_start_token=special[1], image_end_token=special[2],
        image_thumbnail=special[3],
    )  # fmt: skip
    tower = {"model_type": "siglip2_vision_model", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2, "patch_size": 16, "num_patches": 16, "vision_use_head": False}  # fmt: skip
    text = _text(tokenizer, "lfm2", layer_types=["conv", "full_attention"], block_multiple_of=16)
    config = _config(
        "lfm2_vl", text_config=text, vision_config=tower, projector_hidden_size=WIDTH, downsample_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    images = transformers.Lfm2VlImageProcessor(
        downsample_factor=2, encoder_patch_size=16, tile_size=64, min_image_tokens=4, max_image_tokens=4,
        max_num_patches=64,
    )  # fmt: skip
    return config, transformers.Lfm2VlProcessor(
        image_processor=images, tokenizer=tokenizer, chat_template=tokenizer.chat_template
    )


def _deepseek_vl() -> Any:
    tokenizer = words(["<image_placeholder>"], chatml("<image_placeholder>"), image_token="<image_placeholder>")
    config = _config(
        "deepseek_vl", text_config=_text(tokenizer), vision_config=SIGLIP,
        image_token_id=tokenizer.convert_tokens_to_ids("<image_placeholder>"),
    )  # fmt: skip
    return config, transformers.DeepseekVLProcessor(
        image_processor=transformers.DeepseekVLImageProcessor(size=SIZE), tokenizer=tokenizer, num_image_tokens=16,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


FAMILIES: dict[str, TinyVLM] = {
    "qwen2_5_vl": TinyVLM(_qwen2_5_vl),
    "qwen3_vl": TinyVLM(_qwen3_vl, 64),
    "qwen3_5": TinyVLM(_qwen3_5, 64),
    "glm4v": TinyVLM(_glm4v),
    "internvl": TinyVLM(_internvl),
    "gemma3": TinyVLM(_gemma3),
    "smolvlm": TinyVLM(lambda: _smol("smolvlm")),
    "idefics3": TinyVLM(lambda: _smol("idefics3")),
    "llava": TinyVLM(_llava),
    "llava_onevision": TinyVLM(_llava_onevision),
    "paligemma": TinyVLM(_paligemma),
    "mistral3": TinyVLM(_mistral3),
    "aya_vision": TinyVLM(_aya_vision),
    "cohere2_vision": TinyVLM(_cohere2_vision),
    "lfm2_vl": TinyVLM(_lfm2_vl, 64),
    "deepseek_vl": TinyVLM(_deepseek_vl),  # not in the product's table: tried by probes
    "llava_next": TinyVLM(_llava_next),  # refused: it always tiles
}


def vlm_folder(root: Path, family: str, seed: int = 0) -> Path:
    """The family's folder below `root`; weights large enough that whatever differs in the input shows in the logits."""
    folder = root / family
    config, processor = FAMILIES[family].parts()
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.3 if "embed" in name else 0.12)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
