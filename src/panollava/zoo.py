"""Models that panollava is known to work with: ids, sizes, licences, and how much memory they take. No torch.

Returns the rows of a short name (`qwen_0.5b`), or all rows. Sizes follow from the architectures' shapes by formula: the
number of parameters exactly (a test builds every architecture and counts), memory as peak bytes of PyTorch's allocator,
whose coefficients were measured on miniatures of each family (tests/unit/test_zoo.py compares). An estimate says
nothing about CUDA's context, fragmentation, or the pictures in flight.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from panollava.errors import ConfigError

GIB = 2**30
NUM_VIEWS = 9
VISUAL_TOKENS = NUM_VIEWS * 256
TEXT_TOKENS = 128
CONDITIONS = (
    f"Memory: one panorama of {NUM_VIEWS} views. Language models in bfloat16, {VISUAL_TOKENS + TEXT_TOKENS} tokens, "
    "training with LoRA of rank 16; vision encoders in float32, training their last two blocks. Without the other "
    "model of the pair."
)
"""Under which the table's two columns hold."""


@dataclass(frozen=True)
class Memory:
    """Peak bytes while answering and while training one batch."""

    answering: int
    training: int


@dataclass(frozen=True)
class LanguageShape:
    """A decoder of the Qwen, Llama or Gemma families: widths, blocks, heads and what distinguishes the families."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool = True
    qkv_bias: bool = False  # Qwen2.5
    qk_norm: bool = False  # Qwen3
    gemma: bool = False  # two more norms a block, soft-capped (eager) attention

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def parameters(self) -> int:
        attention = 2 * self.hidden * (self.query_width + self.key_width)
        bias = (self.query_width + 2 * self.key_width) * self.qkv_bias
        norms = (4 if self.gemma else 2) * self.hidden + 2 * self.head_dim * self.qk_norm
        block = attention + bias + norms + 3 * self.hidden * self.intermediate
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embeddings + self.layers * block + self.hidden

    def lora_parameters(self, rank: int) -> int:
        """Of adapters on the seven linear layers of every block."""
        ends = 2 * (self.hidden + self.query_width) + 2 * (self.hidden + self.key_width)
        return self.layers * rank * (ends + 3 * (self.hidden + self.intermediate))


@dataclass(frozen=True)
class VisionShape:
    """A vision transformer of the SigLIP, CLIP or DINOv2 families; `positions` is the grid's side at its own size."""

    hidden: int
    intermediate: int
    layers: int
    patch: int
    image_size: int
    family: Literal["siglip", "clip", "dinov2"]
    positions: int | None = None  # DINOv2's grid is larger than the images it usually gets

    @property
    def tokens(self) -> int:
        """Patch tokens of one view."""
        return (self.image_size // self.patch) ** 2

    @property
    def block_parameters(self) -> int:
        """Parameters of one block."""
        scales = 2 * self.hidden if self.family == "dinov2" else 0
        attention, norms = 4 * (self.hidden**2 + self.hidden), 4 * self.hidden
        return attention + norms + 2 * self.hidden * self.intermediate + self.intermediate + self.hidden + scales

    @property
    def parameters(self) -> int:
        clip = self.family == "clip"
        patches = 3 * self.patch**2 * self.hidden + (0 if clip else self.hidden)
        cells = self.positions**2 if self.positions else self.tokens
        prefix = 0 if self.family == "siglip" else 1
        mask = self.hidden if self.family == "dinov2" else 0
        norms = 2 * self.hidden * (2 if clip else 1)
        outside = patches + (cells + prefix) * self.hidden + prefix * self.hidden + mask + norms
        return outside + self.layers * self.block_parameters


@dataclass(frozen=True)
class ZooModel:
    """A row of the zoo. `name` is what `train --model` takes, `id` what a configuration names."""

    name: str
    id: str
    licence: str
    shape: LanguageShape | VisionShape

    @property
    def kind(self) -> Literal["language", "vision"]:
        return "language" if isinstance(self.shape, LanguageShape) else "vision"

    @property
    def parameters(self) -> int:
        return self.shape.parameters

    @property
    def memory(self) -> Memory:
        """Under `CONDITIONS`."""
        if isinstance(self.shape, LanguageShape):
            return language_memory(self.shape, VISUAL_TOKENS + TEXT_TOKENS, supervised=TEXT_TOKENS)
        return vision_memory(self.shape, NUM_VIEWS)


def language_memory(
    shape: LanguageShape,
    tokens: int,
    *,
    batch_size: int = 1,
    supervised: int = TEXT_TOKENS,
    half: bool = True,
    rank: int = 16,
    dropout: bool = True,
) -> Memory:
    """Peak bytes of a frozen language model with LoRA adapters, for `batch_size` sequences of `tokens` tokens.

    `half` is bfloat16 weights under autocast, else float32; `supervised` tokens of each sequence have logits; `dropout`
    says whether the adapters have any. Weights, then: adapters with gradient and Adam's two moments, all in float32;
    what the forward pass keeps for the backward one; the widest intermediate; logits with their gradient.

    >>> qwen = find_model("qwen_0.5b").shape
    >>> memory = language_memory(qwen, 2432)
    >>> memory.training > memory.answering > 2 * qwen.parameters
    True
    """
    width = 2 if half else 4
    kept = 18 if half else 16  # bytes of a token and block for each unit of width; norms compute in float32
    attention = (12 if shape.qk_norm else 8) * (0.85 if half else 1)
    a_block = kept * shape.hidden + 4 * width * shape.intermediate + 7 * rank * (2.8 if half else 4)
    if shape.gemma:
        a_block += 8 * shape.hidden + 16 * shape.query_width + 8 * shape.heads * tokens
    else:
        a_block += attention * (shape.query_width + shape.key_width)
    if dropout:
        a_block += (20 if half else 36) * shape.hidden + 4 * (shape.query_width + shape.intermediate)
    all_tokens, scores = batch_size * tokens, shape.heads * tokens * shape.gemma
    widest = max(2 * shape.intermediate, 1.3 * scores) * 4
    logits = 3 * 4 * shape.vocabulary * batch_size * supervised
    weights = width * shape.parameters
    adapters = 16 * shape.lora_parameters(rank)
    training = weights + adapters + all_tokens * (shape.layers * a_block + widest) + logits
    cache = 2 * width * shape.layers * shape.key_width
    passing = width * (
        4 * shape.hidden + max(4 * shape.intermediate, 2.5 * scores + 4 * shape.query_width * shape.gemma)
    )
    answering = weights + all_tokens * (cache + passing) + 4 * shape.vocabulary * batch_size
    return Memory(round(answering), round(training))


def vision_memory(shape: VisionShape, views: int, *, trainable_blocks: int = 2) -> Memory:
    """Peak bytes of a float32 encoder that looks at `views` views at once, frozen or with its last blocks trainable.

    >>> memory = vision_memory(find_model("siglip_base").shape, 9)
    >>> memory.training > memory.answering
    True
    """
    tokens = views * (shape.tokens + (shape.family != "siglip"))
    activations = 3 if shape.family == "clip" else 2  # CLIP's quick GELU keeps one more
    weights = 4 * shape.parameters
    answering = weights + 4 * tokens * (4 * shape.hidden + activations * shape.intermediate)
    norms = 10 if shape.family == "dinov2" else 8
    kept = trainable_blocks * (norms * shape.hidden + activations * shape.intermediate) + shape.hidden
    training = weights + 12 * trainable_blocks * shape.block_parameters + 4 * tokens * kept
    return Memory(answering, max(answering, training))


@dataclass(frozen=True)
class NativeModel:
    """A native vision-language model of the hub, for `models.vlm_name`. `family` is its model_type, whose prompts and
    features are tried on miniatures; sizes and memory are not estimated."""

    id: str
    family: str
    licence: str


NATIVE = (
    NativeModel("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", "Qwen Research"),
    NativeModel("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", "Apache 2.0"),
    NativeModel("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl", "Apache 2.0"),
    NativeModel("Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", "Apache 2.0"),
    NativeModel("zai-org/GLM-4.1V-9B-Thinking", "glm4v", "MIT"),
    NativeModel("OpenGVLab/InternVL3_5-2B-HF", "internvl", "Apache 2.0"),
    NativeModel("google/gemma-3-4b-it", "gemma3", "Gemma"),
    NativeModel("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "smolvlm", "Apache 2.0"),
    NativeModel("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava_onevision", "Apache 2.0"),
    NativeModel("google/paligemma2-3b-mix-448", "paligemma", "Gemma"),
    NativeModel("CohereLabs/aya-vision-8b", "aya_vision", "CC BY-NC 4.0"),
    NativeModel("LiquidAI/LFM2-VL-1.6B", "lfm2_vl", "LFM Open License 1.0"),
)


def zoo() -> tuple[ZooModel, ...]:
    """All rows, language models first."""
    return _ZOO


def find_model(name: str) -> ZooModel:
    """The row of a short name. Raises ConfigError with the nearest one.

    >>> find_model("qwen_0.5b").id
    'Qwen/Qwen2.5-0.5B'
    """
    for row in _ZOO:
        if name in (row.name, row.id):
            return row
    near = get_close_matches(name, [row.name for row in _ZOO], n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{name} is not a model of the zoo.{hint} `panollava models --list` shows them all")


def _qwen25(hidden: int, intermediate: int, layers: int, heads: int, kv: int, big: bool = False) -> LanguageShape:
    vocabulary = 152_064 if big else 151_936
    return LanguageShape(
        hidden, intermediate, layers, heads, kv, hidden // heads, vocabulary, tied=not big, qkv_bias=True
    )


def _qwen3(hidden: int, intermediate: int, layers: int, heads: int, tied: bool = True) -> LanguageShape:
    return LanguageShape(hidden, intermediate, layers, heads, 8, 128, 151_936, tied=tied, qk_norm=True)


def _llama(hidden: int, layers: int, heads: int, head_dim: int) -> LanguageShape:
    return LanguageShape(hidden, 8192, layers, heads, 8, head_dim, 128_256)


def _gemma(hidden: int, intermediate: int, layers: int, heads: int, kv: int) -> LanguageShape:
    return LanguageShape(hidden, intermediate, layers, heads, kv, 256, 256_000, gemma=True)


def _base(family: Literal["siglip", "clip", "dinov2"], patch: int, size: int = 224) -> VisionShape:
    return VisionShape(768, 3072, 12, patch, size, family, 37 if family == "dinov2" else None)


def _large(family: Literal["siglip", "clip", "dinov2"], patch: int, size: int = 224) -> VisionShape:
    return VisionShape(1024, 4096, 24, patch, size, family, 37 if family == "dinov2" else None)


_APACHE = "Apache 2.0"
_QWEN_3B = "Qwen Research License: no commercial use"
_LLAMA = "Llama 3.2 Community License; access on request"
_GEMMA = "Gemma Terms of Use; access on request"
_ZOO = (
    ZooModel("qwen_0.5b", "Qwen/Qwen2.5-0.5B", _APACHE, _qwen25(896, 4864, 24, 14, 2)),
    ZooModel("qwen_1.5b", "Qwen/Qwen2.5-1.5B", _APACHE, _qwen25(1536, 8960, 28, 12, 2)),
    ZooModel("qwen_3b", "Qwen/Qwen2.5-3B", _QWEN_3B, _qwen25(2048, 11008, 36, 16, 2)),
    ZooModel("qwen_7b", "Qwen/Qwen2.5-7B", _APACHE, _qwen25(3584, 18944, 28, 28, 4, big=True)),
    ZooModel("qwen_14b", "Qwen/Qwen2.5-14B", _APACHE, _qwen25(5120, 13824, 48, 40, 8, big=True)),
    ZooModel("qwen3_0.6b", "Qwen/Qwen3-0.6B", _APACHE, _qwen3(1024, 3072, 28, 16)),
    ZooModel("qwen3_1.7b", "Qwen/Qwen3-1.7B", _APACHE, _qwen3(2048, 6144, 28, 16)),
    ZooModel("qwen3_4b", "Qwen/Qwen3-4B", _APACHE, _qwen3(2560, 9728, 36, 32)),
    ZooModel("qwen3_8b", "Qwen/Qwen3-8B", _APACHE, _qwen3(4096, 12288, 36, 32, tied=False)),
    ZooModel("qwen3_14b", "Qwen/Qwen3-14B", _APACHE, _qwen3(5120, 17408, 40, 40, tied=False)),
    ZooModel("llama_1b", "meta-llama/Llama-3.2-1B-Instruct", _LLAMA, _llama(2048, 16, 32, 64)),
    ZooModel("llama_3b", "meta-llama/Llama-3.2-3B-Instruct", _LLAMA, _llama(3072, 28, 24, 128)),
    ZooModel("gemma_2b", "google/gemma-2-2b-it", _GEMMA, _gemma(2304, 9216, 26, 8, 4)),
    ZooModel("gemma_9b", "google/gemma-2-9b-it", _GEMMA, _gemma(3584, 14336, 42, 16, 8)),
    ZooModel("siglip_base", "google/siglip-base-patch16-224", _APACHE, _base("siglip", 16)),
    ZooModel("siglip_large", "google/siglip-large-patch16-256", _APACHE, _large("siglip", 16, 256)),
    ZooModel("siglip2_base", "google/siglip2-base-patch16-256", _APACHE, _base("siglip", 16, 256)),
    ZooModel("siglip2_large", "google/siglip2-large-patch16-256", _APACHE, _large("siglip", 16, 256)),
    ZooModel("siglip2_so400m", "google/siglip2-so400m-patch16-256", _APACHE,
             VisionShape(1152, 4304, 27, 16, 256, "siglip")),
    ZooModel("clip_base", "openai/clip-vit-base-patch16", "MIT", _base("clip", 16)),
    ZooModel("clip_large", "openai/clip-vit-large-patch14", "MIT", _large("clip", 14)),
    ZooModel("dinov2_base", "facebook/dinov2-base", _APACHE, _base("dinov2", 14)),
    ZooModel("dinov2_large", "facebook/dinov2-large", _APACHE, _large("dinov2", 14)),
)  # fmt: skip
