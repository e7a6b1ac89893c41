"""The miniature native model: a Qwen2.5-VL of about a million weights that answers questions about five pictures.

Trains it from settings and writes a Hugging Face folder (weights, processor, tokenizer, chat template), as the family's
own are. It is pre-trained in three steps, as such models are: the language part learns to answer from marks, which say
of each visual token what it shows; the vision part learns to say the same of rendered pictures; then both learn
together for a while. It knows a panorama as a picture of the whole and four that look around. Nine overlapping views
are new to it: what they are worth without training, and with, is what EXP3 shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from panollava.config.embedded import MiniatureVlmSettings
from panollava.data.synthetic.captions import OPENINGS, DrawnQuestion, draw_questions, group_of, questions
from panollava.data.synthetic.scenes import COLOURS, GROUNDS, SHAPES, SKIES, Scene, render, sample_scene
from panollava.files import atomic_dir
from panollava.logs import LOGGER
from panollava.miniature.pretraining import Schedule, train
from panollava.miniature.tokenizer import END, START, build_tokenizer
from panollava.models.native_positions import head_positions
from panollava.models.prompt import IGNORED
from panollava.views.geometry import rays_to_angles, view_rays
from panollava.views.strategies import GLOBAL_VIEW, View

VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
_TEMPLATE = (  # pictures are numbered, as the family does with `add_vision_id`
    "{% set pictures = namespace(seen=0) %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set pictures.seen = pictures.seen + 1 %}{{ pictures.seen }}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
VIEWS = (GLOBAL_VIEW, *(View("perspective", yaw_deg, 0.0, 90.0, 90.0) for yaw_deg in (0.0, 90.0, 180.0, -90.0)))
_CONTEXT = 2048
_MERGE = 2
_LEAST_COVER = 0.15  # of a token's part of a picture, for it to show a solid
_SIDES = 3  # where in its picture a solid's middle is: left, middle, right
_COUNTS = (len(COLOURS), len(SHAPES), _SIDES, len(SKIES), len(GROUNDS))
_LEARNED = 0.8
_LABELLED = 0.4  # of the language part's steps, in which tokens may say where they are
_HELD_OUT = 60


@dataclass(frozen=True)
class Cameras:
    """The rays of all views' pixels [V, side, side, 3], and which tokens of them look up [V, grid·grid]."""

    rays: NDArray[np.float32]
    up: NDArray[np.bool_]
    yaw_deg: NDArray[np.float64]
    third_deg: NDArray[np.float64]

    @classmethod
    def of(cls, views: Sequence[View], side: int, grid: int) -> Cameras:
        pitch_deg = np.stack([rays_to_angles(view_rays(view, grid, grid).reshape(-1, 3))[1] for view in views])
        rays = np.stack([view_rays(view, side, side) for view in views]).astype(np.float32)
        third_deg = np.array([view.hfov_deg / 2 if view.kind == "global" else 60.0 for view in views])
        return cls(rays, pitch_deg > 0, np.array([view.yaw_deg for view in views]), third_deg)


def marks_of(scene: Scene, cameras: Cameras, met: NDArray[np.int8]) -> NDArray[np.int64]:
    """What each token shows [V, S, 5] by what its pixels' rays meet [V, side, side]: colour, shape and side of a solid,
    sky, ground; -1 for what it shows none of."""
    views, tokens = cameras.up.shape
    grid, solids = round(tokens**0.5), len(scene.solids)
    side = met.shape[1] // grid
    cover = np.stack([met == index for index in range(solids)])
    cover = cover.reshape(solids, views, grid, side, grid, side).mean(axis=(3, 5)).reshape(solids, views, tokens)
    solid, shown = cover.argmax(axis=0), cover.max(axis=0) > _LEAST_COVER  # [V, S]
    colour = np.array([list(COLOURS).index(one.colour) for one in scene.solids])[solid]
    shape = np.array([SHAPES.index(one.shape) for one in scene.solids])[solid]
    to_yaw, _ = rays_to_angles(np.array([one.centre for one in scene.solids]))
    off = (to_yaw - cameras.yaw_deg[:, None] + 180) % 360 - 180  # [V, solids]
    third = cameras.third_deg[:, None]
    sides = np.take_along_axis(np.where(off < -third / 2, 0, np.where(off > third / 2, 2, 1)), solid, axis=1)
    sky = np.where(~shown & cameras.up, list(SKIES).index(scene.sky), -1)
    ground = np.where(~shown & ~cameras.up, list(GROUNDS).index(scene.ground), -1)
    of_solid = [np.where(shown, value, -1) for value in (colour, shape, sides)]
    return np.stack([*of_solid, sky, ground], axis=2).astype(np.int64)


class Marks(nn.Module):
    """What a visual token says, as the sum of a vector for each mark: the language part learns to read it, the vision
    part to write it. Thrown away in the end."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(count, width) for count in _COUNTS)
        for table in self.tables:
            nn.init.normal_(table.weight, 0, 0.5)  # type: ignore[arg-type]

    def forward(self, marks: Tensor) -> Tensor:
        """Vectors [..., width] of marks [..., 5]."""
        found = [table(marks[..., kind].clamp(min=0)) * (marks[..., kind, None] >= 0)
                 for kind, table in enumerate(self.tables)]  # fmt: skip
        return torch.stack(found).sum(dim=0)


@dataclass(frozen=True)
class TokenizedTalk:
    """Questions about a scene and their answers, behind its pictures: ids, labels (IGNORED but in answers) and which of
    these the pictures settle (opening words are free)."""

    scene: Scene
    ids: list[int]
    labels: list[int]
    settled: list[bool]


class Author:
    """Turns scenes and questions into what a model reads."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, tokens: int, grid: int, turns: int) -> None:
        self.tokenizer, self.turns = tokenizer, turns
        self.encode = cache(self._encode)
        begin, end, image = (_id(tokenizer, token) for token in (VISION_START, VISION_END, IMAGE))
        self.head = self.encode(f"{START}user\n").copy()
        for number, _ in enumerate(VIEWS, start=1):
            self.head += [*self.encode(str(number)), begin, *[image] * tokens, end]
        self.is_picture = torch.tensor(self.head).eq(image)
        self.positions, self.following = head_positions(self.is_picture, VIEWS, (grid, grid), axes=3, panorope=False)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def conversation(self, scene: Scene, asked: Sequence[DrawnQuestion], openings: Sequence[int]) -> TokenizedTalk:
        ids: list[int] = []
        labels: list[int] = []
        settled: list[bool] = []
        for turn, (question, opening) in enumerate(zip(asked, openings, strict=True)):
            before = self.encode(f"\n{START}user\n") if turn else []
            tail = [*before, *self.encode(f"{question.query}{END}\n{START}assistant\n")]
            answer = [*self.encode(question.references[opening]), *self.encode(END)]
            free = len(self.encode(OPENINGS[opening].rstrip())) if OPENINGS[opening] else 0
            ids += tail + answer
            labels += [IGNORED] * len(tail) + answer
            settled += [False] * (len(tail) + free) + [True] * (len(answer) - free)
        return TokenizedTalk(scene, ids, labels, settled)

    def drawn(self, rng: np.random.Generator, scene: Scene | None = None) -> TokenizedTalk:
        """A scene and up to `turns` questions of one kind about it, mixed as for training."""
        scene = sample_scene(rng) if scene is None else scene
        (first,) = draw_questions(rng, scene, 1)
        related = [question for question in questions(scene) if group_of(question) == group_of(first)]
        asked = [related[index] for index in rng.permutation(len(related))[: self.turns]]
        return self.conversation(scene, asked, rng.integers(len(OPENINGS), size=len(asked)).tolist())


def answers(
    model: Qwen2_5_VLForConditionalGeneration, author: Author, talks: Sequence[TokenizedTalk], tokens: Tensor
) -> tuple[Tensor, Tensor]:
    """The mean cross entropy of the answers, and per conversation whether every settled token was the likeliest.

    `tokens` [B, V·S, width] take the places of the pictures.
    """
    length, count = max(len(talk.ids) for talk in talks), len(author.head)
    ids = torch.zeros(len(talks), count + length, dtype=torch.long)
    ids[:, :count] = torch.tensor(author.head)
    labels = torch.full_like(ids, IGNORED)
    settled = torch.zeros_like(ids, dtype=torch.bool)
    mask = torch.ones_like(ids)
    for row, talk in enumerate(talks):
        end = count + len(talk.ids)
        ids[row, count:end] = torch.tensor(talk.ids)
        labels[row, count:end] = torch.tensor(talk.labels)
        settled[row, count:end] = torch.tensor(talk.settled)
        mask[row, end:] = 0
    behind = (author.following + torch.arange(length)).expand(3, -1)
    positions = torch.cat([author.positions, behind], dim=1)[:, None].expand(-1, len(talks), -1)
    embedded = model.get_input_embeddings()(ids)
    places = torch.zeros(ids.shape, dtype=torch.bool)
    places[:, :count] = author.is_picture
    embedded = embedded.masked_scatter(places[..., None], tokens.to(embedded.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    targets = labels[:, 1:]
    supervised = targets != IGNORED
    logits = model.lm_head(hidden[:, :-1][supervised])  # [N, vocabulary]
    wrong = torch.zeros_like(supervised)
    wrong[supervised] = logits.argmax(dim=-1) != targets[supervised]
    return functional.cross_entropy(logits, targets[supervised]), ~(wrong & settled[:, 1:]).any(dim=1)


def build_vlm(settings: MiniatureVlmSettings, folder: str | Path) -> dict[str, float]:
    """Pre-train the miniature native model and write its folder; returns the share of unseen questions it answers."""
    torch.manual_seed(settings.seed)
    tokenizer = vlm_tokenizer()
    model = new_vlm(settings, tokenizer)
    grid = settings.image_size // settings.patch_size // _MERGE
    author = Author(tokenizer, grid * grid, grid, settings.turns)
    marks = Marks(settings.hidden_size)
    rng = np.random.default_rng([settings.seed, 3])
    LOGGER.info(
        "miniature native model: %s weights, %d tokens of a picture", f"{model.num_parameters():,}", grid * grid
    )
    _learn_language(model, marks, author, settings, rng, grid)
    pictures = Pictures.drawn(settings.scenes, settings.image_size, grid, rng)
    held_out = Pictures.drawn(_HELD_OUT, settings.image_size, grid, rng)
    processor = vlm_processor(settings, tokenizer)
    _learn_vision(model, marks, pictures, settings, processor)
    _learn_together(model, author, pictures, settings, rng, processor)
    accuracy = picture_accuracy(model, author, held_out, processor, settings.seed)
    LOGGER.info("miniature native model, unseen pictures: %s", ", ".join(f"{k} {v:.3f}" for k, v in accuracy.items()))
    ends = tokenizer.eos_token_id
    with atomic_dir(folder) as partial:
        model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=tokenizer.pad_token_id)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    return accuracy


def _learn_language(
    model: Any, marks: Marks, author: Author, settings: MiniatureVlmSettings, rng: np.random.Generator, grid: int
) -> None:
    """The language part learns to answer from marks, which need no picture to be drawn.

    At first, and ever more seldom, a token also says in which picture it is: what to look for is learned before how
    to know a picture by the number in front of it. Without, reading begins some hundred steps later.
    """
    cameras = Cameras.of(VIEWS, 2 * grid, grid)
    number = torch.arange(len(VIEWS)).repeat_interleave(grid * grid)
    which = nn.Embedding(len(VIEWS), settings.hidden_size)
    nn.init.normal_(which.weight, 0, 0.5)
    labelled_until = max(1, int(_LABELLED * settings.language_steps))

    def batch(generator: np.random.Generator, size: int) -> tuple[list[TokenizedTalk], Tensor]:
        talks = [author.drawn(generator) for _ in range(size)]
        found = [marks_of(talk.scene, cameras, render(talk.scene, cameras.rays)[1]) for talk in talks]
        return talks, torch.from_numpy(np.stack(found)).flatten(1, 2)  # [B, V·S, 5]

    def loss_of(step: int) -> Tensor:
        talks, shown = batch(rng, settings.batch_size)
        labelled = torch.from_numpy(rng.random(len(talks)) < 1 - step / labelled_until)
        return answers(model, author, talks, marks(shown) + which(number) * labelled[:, None, None])[0]

    @torch.no_grad()
    def learned() -> bool:
        talks, shown = batch(np.random.default_rng(settings.seed + 10_000), 64)
        share = float(answers(model, author, talks, marks(shown))[1].float().mean())
        LOGGER.info("miniature native model, reading marks: %.3f", share)
        return share >= _LEARNED

    language = nn.ModuleList([model.model.language_model, model.lm_head, marks, which])
    train(language, _schedule(settings, settings.language_steps), loss_of, learned, "miniature native model, language")


def _learn_vision(model: Any, marks: Marks, pictures: Pictures, settings: MiniatureVlmSettings, processor: Any) -> None:
    """The vision part learns to say of rendered pictures what the marks say."""
    marks.requires_grad_(False)
    wanted = marks(pictures.marks.flatten(0, 1)).detach()  # [N·V, S, width]
    choose = torch.Generator().manual_seed(settings.seed)
    scale = float(wanted.std())

    def loss_of(step: int) -> Tensor:
        chosen = torch.randint(len(wanted), (settings.vision_batch_size,), generator=choose)
        found = encode(model, processor, pictures.pixels.flatten(0, 1)[chosen])
        return functional.mse_loss(found / scale, wanted[chosen] / scale)

    schedule = _schedule(settings, settings.vision_steps)
    train(model.model.visual, schedule, loss_of, lambda: False, "miniature native model, vision")


def _learn_together(
    model: Any,
    author: Author,
    pictures: Pictures,
    settings: MiniatureVlmSettings,
    rng: np.random.Generator,
    processor: Any,
) -> None:
    """All of it learns to answer from rendered pictures."""

    def loss_of(step: int) -> Tensor:
        chosen = rng.integers(len(pictures.scenes), size=settings.batch_size)
        talks = [author.drawn(rng, pictures.scenes[index]) for index in chosen]
        return answers(model, author, talks, _shown(model, processor, pictures.pixels[torch.from_numpy(chosen)]))[0]

    train(model, _schedule(settings, settings.joint_steps), loss_of, lambda: False, "miniature native model, together")


@torch.no_grad()
def picture_accuracy(model: Any, author: Author, pictures: Pictures, processor: Any, seed: int) -> dict[str, float]:
    """Share of the questions about these pictures that are answered without a mistake, by kind and over `all`."""
    right: dict[str, list[bool]] = {}
    model.eval()
    for index, scene in enumerate(pictures.scenes):
        tokens = _shown(model, processor, pictures.pixels[index : index + 1])
        asked = questions(scene)
        talks = [author.conversation(scene, [question], [1]) for question in asked]
        _, correct = answers(model, author, talks, tokens.expand(len(talks), -1, -1))
        for question, is_right in zip(asked, correct.tolist(), strict=True):
            right.setdefault(question.kind, []).append(is_right)
            right.setdefault("all", []).append(is_right)
    return {kind: float(np.mean(values)) for kind, values in sorted(right.items())}


@dataclass(frozen=True)
class Pictures:
    """Rendered scenes: `pixels` uint8 [N, V, 3, h, w] and what their tokens show, `marks` int64 [N, V, S, 5]."""

    scenes: list[Scene]
    pixels: Tensor
    marks: Tensor

    @classmethod
    def drawn(cls, count: int, image_size: int, grid: int, rng: np.random.Generator) -> Pictures:
        cameras = Cameras.of(VIEWS, 2 * image_size, grid)
        scenes = [sample_scene(rng) for _ in range(count)]
        pixels = np.zeros((count, len(VIEWS), 3, image_size, image_size), np.uint8)
        marks = np.zeros((count, len(VIEWS), grid * grid, len(_COUNTS)), np.int64)
        for row, scene in enumerate(scenes):
            colours, met = render(scene, cameras.rays)
            fine = colours.astype(np.uint16)
            summed = fine[:, ::2, ::2] + fine[:, 1::2, ::2] + fine[:, ::2, 1::2] + fine[:, 1::2, 1::2]
            pixels[row] = ((summed + 2) // 4).astype(np.uint8).transpose(0, 3, 1, 2)
            marks[row] = marks_of(scene, cameras, met)
        return cls(scenes, torch.from_numpy(pixels), torch.from_numpy(marks))


def encode(model: Any, processor: Any, pixels: Tensor) -> Tensor:
    """Visual tokens [N, S, width] of pictures uint8 [N, 3, h, w], as the family's own processor and encoder do."""
    inputs = processor.image_processor(list(pixels), return_tensors="pt", input_data_format="channels_first")
    return torch.stack(list(model.model.get_image_features(**inputs, return_dict=True).pooler_output))


def _shown(model: Any, processor: Any, pixels: Tensor) -> Tensor:
    """Visual tokens [B, V·S, width] of scenes [B, V, 3, h, w]."""
    return encode(model, processor, pixels.flatten(0, 1)).unflatten(0, pixels.shape[:2]).flatten(1, 2)


def vlm_tokenizer() -> PreTrainedTokenizerFast:
    """The miniature language model's tokenizer with the family's tokens for pictures and its template."""
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": [START, VISION_START, VISION_END, IMAGE, VIDEO]})
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def vlm_processor(settings: MiniatureVlmSettings, tokenizer: PreTrainedTokenizerFast) -> Any:
    """The family's own processor, for pictures of `image_size`."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    area = {"shortest_edge": settings.image_size**2, "longest_edge": settings.image_size**2}
    images = Qwen2VLImageProcessor(patch_size=settings.patch_size, merge_size=_MERGE, size=area)
    return Qwen2_5_VLProcessor(
        image_processor=images, tokenizer=tokenizer, video_processor=Qwen2VLVideoProcessor(), chat_template=_TEMPLATE
    )


def new_vlm(settings: MiniatureVlmSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL with random weights for the tokenizer's vocabulary."""
    begin, end, image, video = (_id(tokenizer, token) for token in (VISION_START, VISION_END, IMAGE, VIDEO))
    half = settings.hidden_size // settings.heads // 2
    time = max(1, half // 4)
    height = (half - time) // 2
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [time, height, half - time - height]}
    text = {
        "vocab_size": len(tokenizer), "hidden_size": settings.hidden_size, "num_hidden_layers": settings.layers,
        "intermediate_size": settings.intermediate_size, "num_attention_heads": settings.heads,
        "num_key_value_heads": settings.heads, "max_position_embeddings": _CONTEXT, "tie_word_embeddings": True,
        "rope_parameters": rope, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "depth": settings.vision_layers, "hidden_size": settings.vision_hidden_size,
        "intermediate_size": 2 * settings.vision_hidden_size, "num_heads": settings.heads,
        "patch_size": settings.patch_size, "spatial_merge_size": _MERGE, "out_hidden_size": settings.hidden_size,
        "window_size": settings.image_size, "fullatt_block_indexes": list(range(settings.vision_layers)),
    }  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=image, video_token_id=video,
        vision_start_token_id=begin, vision_end_token_id=end, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen2_5_VLForConditionalGeneration(config)


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found: Any = tokenizer.convert_tokens_to_ids(token)
    return int(found)


def _schedule(settings: MiniatureVlmSettings, steps: int) -> Schedule:
    return Schedule(
        max_steps=steps, decay=max(1, steps // 3), warmup=min(50, max(1, steps // 10)), check_every=50, lr=settings.lr,
        muon_lr=settings.muon_lr,
    )  # fmt: skip
