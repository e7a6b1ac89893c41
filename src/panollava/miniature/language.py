"""The miniature language model: a Qwen3 of a few hundred thousand weights that answers questions from notes.

Trains it from settings and writes a Hugging Face folder (config.json, model.safetensors, tokenizer, chat template). It
must be able to answer before it sees its first panorama, because the later stages keep it frozen. It learns that from
notes: a scene's facts in random order, each the *sum* of its words' embeddings ("behind" + "red" + "box"), which is the
very form in which a projection can say what a patch of a picture shows. Notes as running text would be more natural,
but the later stages learn from them much more slowly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, embedding_bag
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from panollava.config.embedded import MiniatureLanguageSettings
from panollava.data.synthetic.captions import OPENINGS, PLACE_WORDS, DrawnQuestion, draw_questions, group_of, questions
from panollava.data.synthetic.exact import as_prompted, draw_typed, exact_questions
from panollava.data.synthetic.scenes import PLACES, Scene, sample_scene
from panollava.files import atomic_dir
from panollava.logs import LOGGER
from panollava.miniature.pretraining import Schedule, train
from panollava.miniature.tokenizer import build_tokenizer
from panollava.models.prompt import IGNORED, ChatPrompt

_CONTEXT = 2048
_VOCABULARY_OF_ALL = 640
_MOST_WORDS = 3  # of a note: place, colour, shape
_HELD_OUT_SCENES = 30
_PART = 8  # documents of similar length that are read together
_LISTINGS = 0.5  # share of the conversations about colours and places that are listings
_LEARNED = 0.65  # of every kind of question, while the rates are high: then they may fall


@dataclass(frozen=True)
class Document:
    """Notes and a conversation about them.

    `head` holds the token ids before the notes, `notes` those of each note, `text` those behind them: questions and
    answers. `labels` repeats the answers' ids (IGNORED elsewhere); `settled` marks those that the notes settle,
    which the choice of opening words is not.
    """

    head: list[int]
    notes: list[list[int]]
    text: list[int]
    labels: list[int]
    settled: list[bool]

    def __len__(self) -> int:
        return len(self.head) + len(self.notes) + len(self.text)


class Writer:
    """Turns scenes and questions into documents with the prompt that training and generation use."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        most_copies: int,
        turns: int,
        types: Sequence[str] = ("text",),
        instruct: bool = True,
    ) -> None:
        self.types = list(types)
        self.shown = as_prompted if instruct else lambda question: question
        self.tokenizer = tokenizer
        self.most_copies = most_copies
        self.turns = turns
        self.prompt = ChatPrompt(tokenizer, num_image_tokens=1)
        self.ids = cache(self._ids)
        self.frame = cache(self._frame)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _frame(self, query: str) -> tuple[list[int], list[int]]:
        prompt = self.prompt.generation(query)
        picture = prompt.image_token_mask.index(True)
        return prompt.input_ids[:picture], prompt.input_ids[picture + 1 :]

    def notes(self, rng: np.random.Generator, scene: Scene) -> list[list[int]]:
        """Every fact of the scene one to `most_copies` times, as an object covers several patches, shuffled."""
        facts = [["sky", scene.sky], ["ground", scene.ground]]
        for place in PLACES:
            solid = scene.at(place)
            facts.append([place, solid.colour, solid.shape] if solid else [place, "nothing"])
        notes = [
            [token for word in fact for token in self.ids(f" {word}")]
            for fact in facts
            for _ in range(int(rng.integers(1, self.most_copies + 1)))
        ]
        return [notes[index] for index in rng.permutation(len(notes))]

    def document(
        self, rng: np.random.Generator, scene: Scene, asked: Sequence[DrawnQuestion], openings: Sequence[int]
    ) -> Document:
        """A conversation of one turn a question; `openings` says which reference answers each."""
        text: list[int] = []
        labels: list[int] = []
        settled: list[bool] = []
        for turn, (question, opening) in enumerate(zip(asked, openings, strict=True)):
            head, tail = self.frame(question.prompt)
            if turn:
                tail = self.ids("\n") + head + tail[len(self.ids("\n")) :]
            answer = [*self.ids(question.references[opening]), self.prompt.end_ids[0]]
            free = len(self.ids(OPENINGS[opening].rstrip()))
            text += tail + answer
            labels += [IGNORED] * len(tail) + answer
            settled += [False] * (len(tail) + free) + [True] * (len(answer) - free)
        return Document(head, self.notes(rng, scene), text, labels, settled)

    def training_document(self, rng: np.random.Generator) -> Document:
        """A new scene and a conversation about it, mixed as for training.

        That is a description, up to `turns` questions of one kind (one word decides most short answers, so several
        make a document worth its notes), or a listing.
        """
        scene = sample_scene(rng)
        kind = self.types[0] if len(self.types) == 1 else str(rng.choice(self.types))
        if kind != "text":
            while not (drawn := draw_typed(rng, scene, [kind], self.turns)):  # this scene settles none of the kind
                scene = sample_scene(rng)
            asked = [self.shown(one) for one in drawn]
            return self.document(rng, scene, asked, rng.integers(len(OPENINGS), size=len(asked)).tolist())
        (first,) = draw_questions(rng, scene, 1)
        if group_of(first) == 1 and rng.random() < _LISTINGS:
            return self.document(rng, scene, [_listing(rng, scene)], [int(rng.integers(len(OPENINGS)))])
        related = [question for question in questions(scene) if group_of(question) == group_of(first)]
        asked = [related[index] for index in rng.permutation(len(related))[: self.turns]]
        return self.document(rng, scene, asked, rng.integers(len(OPENINGS), size=len(asked)).tolist())


def _listing(rng: np.random.Generator, scene: Scene) -> DrawnQuestion:
    """All places of a scene by what is there, in random order.

    Finding a place by a thing is what these models learn last. This asks for it in every clause, not once in a turn;
    it is an exercise of the pre-training and no question of the data set.
    """
    where = [f"the {one.colour} {one.shape} is {PLACE_WORDS[one.place]}" for one in scene.solids]
    answer = ", ".join(where[index] for index in rng.permutation(len(where)))
    return DrawnQuestion("where", "where is everything?", tuple(f"{opening}{answer}." for opening in OPENINGS))


def batch_loss(
    model: Qwen3ForCausalLM, documents: Sequence[Document], rng: np.random.Generator, picture_positions: int
) -> tuple[Tensor, Tensor]:
    """The mean cross entropy of the answers' tokens and, per document, whether every settled one was the likeliest.

    Documents of similar length are read together, `_PART` of them or a few more: less padding, the same loss.
    """
    padding = int(model.config.pad_token_id or 0)
    by_length = sorted(range(len(documents)), key=lambda index: len(documents[index]))
    losses: list[Tensor] = []
    correct = torch.zeros(len(documents), dtype=torch.bool)
    count = 0
    for part in np.array_split(by_length, max(1, len(documents) // _PART)):
        batch = _batch([documents[index] for index in part], rng, picture_positions, padding)
        embedded = embedding_bag(
            batch.words.flatten(0, 1), model.model.embed_tokens.weight, mode="sum", padding_idx=padding
        ).unflatten(0, batch.words.shape[:2])  # [B, L, D]
        hidden = model.model(
            inputs_embeds=embedded,
            attention_mask=batch.words[..., 0].ne(padding).long(),
            position_ids=batch.positions,
            use_cache=False,
        ).last_hidden_state
        targets = batch.labels[:, 1:]
        supervised = targets != IGNORED
        logits = model.lm_head(hidden[:, :-1][supervised])  # [N, vocabulary]
        losses.append(cross_entropy(logits, targets[supervised], reduction="sum"))
        count += len(logits)
        wrong = torch.zeros_like(supervised)
        wrong[supervised] = logits.argmax(dim=-1) != targets[supervised]
        correct[torch.from_numpy(part)] = ~(wrong & batch.settled[:, 1:]).any(dim=1)
    return torch.stack(losses).sum() / count, correct


@dataclass(frozen=True)
class _Batch:
    """`words` [B, L, words] token ids of which each place is the sum; `labels`, `settled` and `positions` [B, L]."""

    words: Tensor
    labels: Tensor
    settled: Tensor
    positions: Tensor


def _batch(documents: Sequence[Document], rng: np.random.Generator, picture_positions: int, padding: int) -> _Batch:
    """Documents, padded on the right.

    Notes are put at random places among `picture_positions` (at least one each), so that the question finds them
    however many tokens a picture will take.
    """
    length = max(len(document) for document in documents)
    words = np.full((len(documents), length, _MOST_WORDS), padding)
    labels = np.full((len(documents), length), IGNORED)
    settled = np.zeros((len(documents), length), bool)
    positions = np.zeros((len(documents), length), np.int64)
    for row, document in enumerate(documents):
        for column, note in enumerate(document.notes, start=len(document.head)):
            words[row, column, : len(note)] = note
        words[row, : len(document.head), 0] = document.head
        behind = len(document.head) + len(document.notes)
        words[row, behind : len(document), 0] = document.text
        labels[row, behind : len(document)] = document.labels
        settled[row, behind : len(document)] = document.settled
        picture = int(rng.integers(0, picture_positions + 1)) if picture_positions else 0
        picture = max(picture, len(document.notes))
        places = np.sort(rng.choice(picture, len(document.notes), replace=False))
        positions[row, : len(document.head)] = np.arange(len(document.head))
        positions[row, len(document.head) : behind] = len(document.head) + places
        positions[row, behind:] = len(document.head) + picture + np.arange(length - behind)
    as_tensor = torch.from_numpy
    return _Batch(as_tensor(words), as_tensor(labels), as_tensor(settled), as_tensor(positions))


@torch.no_grad()
def reading_accuracy(
    model: Qwen3ForCausalLM, writer: Writer, scenes: int, picture_positions: int, seed: int
) -> dict[str, float]:
    """Share of the questions about unseen scenes that are answered without a mistake, by kind and over `all`.

    Each token is judged after the right ones before it; opening words are given.
    """
    rng = np.random.default_rng(seed)
    right: dict[str, list[bool]] = defaultdict(list)
    model.eval()
    for _ in range(scenes):
        scene = sample_scene(rng)
        asked = questions(scene) if "text" in writer.types else []
        for kind in writer.types:
            asked += [writer.shown(one) for one in exact_questions(rng, scene, kind)] if kind != "text" else []
        documents = [writer.document(rng, scene, [question], [1]) for question in asked]
        _, correct = batch_loss(model, documents, rng, picture_positions)
        for question, is_right in zip(asked, correct.tolist(), strict=True):
            right[question.kind].append(is_right)
            right["all"].append(is_right)
    model.train()
    return {kind: float(np.mean(values)) for kind, values in sorted(right.items())}


def new_language_model(settings: MiniatureLanguageSettings, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 with random weights for the tokenizer's vocabulary."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        intermediate_size=settings.intermediate_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.head_dim,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def build_language(
    settings: MiniatureLanguageSettings, folder: str | Path, types: Sequence[str] = ("text",), instruct: bool = True
) -> dict[str, float]:
    """Pre-train the miniature language model and write its folder; returns the reading accuracies.

    `types` are the kinds of questions that it learns to answer (`data.synthetic.question_types`), and `instruct` says
    whether their prompts name the kind of answer that is wanted (`evaluation.answer_instruction`).
    """
    torch.manual_seed(settings.seed)
    exact = [kind for kind in types if kind != "text"]
    tokenizer = build_tokenizer(_VOCABULARY_OF_ALL, exact) if exact else build_tokenizer()
    model = new_language_model(settings, tokenizer)
    LOGGER.info(
        "miniature language model: %d weights, %d tokens", sum(p.numel() for p in model.parameters()), len(tokenizer)
    )
    writer = Writer(tokenizer, settings.most_copies, settings.turns, types, instruct)
    rng = np.random.default_rng([settings.seed, 1])

    def loss_of(step: int) -> Tensor:
        documents = [writer.training_document(rng) for _ in range(settings.batch_size)]
        return batch_loss(model, documents, rng, settings.picture_positions)[0]

    enough: list[bool] = []

    def learned() -> bool:
        accuracy = reading_accuracy(model, writer, 8, settings.picture_positions, settings.seed + 10_000)
        LOGGER.info("miniature language model: %s", _percentages(accuracy))
        enough.append(min(accuracy.values()) >= _LEARNED)
        return enough[-1]

    schedule = Schedule(
        max_steps=settings.max_steps,
        decay=settings.decay_steps,
        warmup=min(50, settings.max_steps // 10),
        check_every=50,
        lr=settings.lr,
        muon_lr=settings.muon_lr,
    )
    train(model, schedule, loss_of, learned, "miniature language model")
    accuracy = reading_accuracy(model, writer, _HELD_OUT_SCENES, settings.picture_positions, settings.seed + 20_000)
    LOGGER.info("miniature language model, reading unseen notes: %s", _percentages(accuracy))
    if not any(enough) and accuracy["all"] < settings.reading_accuracy:  # max_steps ended it
        LOGGER.warning(
            "the miniature language model reads only %.3f of its notes (wanted %.3f); raise "
            "models.miniature.language.max_steps or try another seed",
            accuracy["all"],
            settings.reading_accuracy,
        )
    with atomic_dir(folder) as partial:
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
        )
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    return accuracy


def _percentages(accuracy: dict[str, Any]) -> str:
    return ", ".join(f"{kind} {value:.3f}" for kind, value in accuracy.items())
