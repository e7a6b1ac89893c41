"""Count the tokens of training texts, and find the texts that training does not keep whole.

Computes the lengths of the rows' sequences with a prompt's tokenizer, and log lines about answers that
`max_text_length` cuts. Raises ConfigError for sequences that exceed the language model's positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panollava.data.samples import Row
from panollava.errors import ConfigError
from panollava.logs import LOGGER
from panollava.models.prompt import ChatPrompt

Ints = NDArray[np.int32]
_AT_ONCE = 1024
_MERGED = 8  # at most so many tokens may differ where a tokenizer merges a query with the template around it
_SHOWN = 60


@dataclass(frozen=True)
class TextLengths:
    """Tokens of each row's texts: `queries` as the prompt shows them, behind the turns before them, `counted` as
    `max_text_length` counts them, `answers` with their end token [n]; `template` is everything else, the image tokens
    included."""

    template: int
    queries: Ints
    counted: Ints
    answers: Ints

    @classmethod
    def of(cls, prompt: ChatPrompt, rows: Sequence[Row]) -> TextLengths:
        """To within a token or two, where a tokenizer merges the query with the template around it."""
        queries, counted, answers = (np.empty(len(rows), np.int32) for _ in range(3))
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            place = slice(start, start + len(some))
            queries[place] = _token_counts(prompt, [row.prompt.strip() for row in some])
            counted[place] = _token_counts(prompt, [row.prompt for row in some])
            answers[place] = _token_counts(prompt, [row.target.strip() for row in some]) + 1
        template = len(prompt.generation("").input_ids)
        for number, row in enumerate(rows):
            if turns := row.details.context_turns:
                queries[number] = len(prompt.generation(row.prompt, turns).input_ids) - template
        return cls(template, queries, counted, answers)

    def sequences(self, max_text_length: int) -> Ints:
        """The length of each row's sequence in training."""
        room = np.maximum(1, max_text_length - self.counted)
        found: Ints = self.template + self.queries + np.minimum(self.answers, room)
        return found


def row_lengths(prompt: ChatPrompt, rows: Sequence[Row], max_text_length: int) -> Ints:
    """The length of each row's sequence in training: template, picture, query and answer with its end token."""
    return TextLengths.of(prompt, rows).sequences(max_text_length)


@dataclass(frozen=True)
class TextLimits:
    """What bounds the texts of a stage. `key` names `max_text_length` in the configuration; `positions` are those of
    the language model `model`, None where it states no number."""

    key: str
    max_text_length: int
    positions: int | None
    model: str


def report_lengths(prompt: ChatPrompt, rows: Mapping[str, Sequence[Row]], limits: TextLimits) -> None:
    """`check_lengths` of the rows by their name, its lines as warnings."""
    for what, some in rows.items():
        for line in check_lengths(prompt, some, what, limits):
            LOGGER.warning("%s", line)


def check_lengths(prompt: ChatPrompt, rows: Sequence[Row], what: str, limits: TextLimits) -> list[str]:
    """Lines for the log: how many answers are cut, how many queries leave nothing but a token of their answer.

    `what` names the rows ("training rows"). Raises ConfigError where a sequence has more tokens than the model has
    positions: it would be trained on in places that the model does not know.
    """
    lengths, limit = TextLengths.of(prompt, rows), limits.max_text_length
    too_long = _too_long(prompt, rows, lengths, limits)
    if first := next(too_long, None):
        row, tokens = first
        more = sum(1 for _ in too_long)
        raise ConfigError(
            f"{what}: the sequence of {_shown(rows[row])} has {tokens:,} tokens, more than the {limits.positions:,} "
            f"positions of {limits.model} (max_position_embeddings)"
            f"{f'; so have {more:,} other rows' if more else ''}. A query is never cut: shorten it or leave the row "
            "out, or lower the number of image tokens (image_processing.image_size, fov_deg, stitching_mode)"
        )
    lines = []
    wanted = lengths.answers + lengths.counted
    cut = [row for row in np.flatnonzero(wanted > limit).tolist() if _is_cut(prompt, rows[row], limit)]
    if cut:
        whole = int(wanted.max())
        lines.append(
            f"{len(cut):,} of {len(rows):,} answers are cut at max_text_length {limit} and lose the token that ends "
            f"them ({what}): {limits.key}: {whole} keeps all of them whole. The first: {_shown(rows[cut[0]])}"
        )
    starved = [row for row in cut if limit - lengths.counted[row] <= 1]
    if starved:
        lines.append(
            f"{len(starved):,} of {len(rows):,} queries fill max_text_length {limit} and leave one supervised token of "
            f"their answer ({what}). The first: {_shown(rows[starved[0]])}"
        )
    return lines


def _is_cut(prompt: ChatPrompt, row: Row, max_text_length: int) -> bool:
    return prompt.training(row.prompt, row.target, max_text_length).truncated


def _too_long(
    prompt: ChatPrompt, rows: Sequence[Row], lengths: TextLengths, limits: TextLimits
) -> Iterator[tuple[int, int]]:
    """(row, tokens) of the sequences that exceed the model's positions."""
    if limits.positions is None:
        return
    estimated = lengths.sequences(limits.max_text_length)
    for row in np.flatnonzero(estimated > limits.positions - _MERGED).tolist():
        turns = rows[row].details.context_turns
        built = prompt.training(rows[row].prompt, rows[row].target, limits.max_text_length, turns)
        if len(built.input_ids) > limits.positions:
            yield row, len(built.input_ids)


def _shown(row: Row) -> str:
    query = row.query if len(row.query) <= _SHOWN else f"{row.query[:_SHOWN]}…"
    return f"{row.image_path}, query {query!r}"


def _token_counts(prompt: ChatPrompt, texts: list[str]) -> Ints:
    """As `prompt.words.encode` counts them, many at once."""
    encoded: Any = prompt.tokenizer(texts, add_special_tokens=False)["input_ids"]
    control = prompt.words.control.keys()
    counts = (
        len(ids) if control.isdisjoint(ids) else len(prompt.words.encode(text))
        for text, ids in zip(texts, encoded, strict=True)
    )
    return np.fromiter(counts, np.int32, len(texts))
