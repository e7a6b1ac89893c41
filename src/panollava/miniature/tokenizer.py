"""The miniature language model's tokenizer: byte-level BPE learned from the synthetic language.

Builds, from a vocabulary size alone, a `PreTrainedTokenizerFast` with a ChatML template. Its merges know the synthetic
language and the role words, so that each of their words is one token; the byte alphabet underneath keeps every other
text intact, only longer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from panollava.data.synthetic.captions import questions
from panollava.data.synthetic.exact import as_prompted, draw_typed
from panollava.data.synthetic.scenes import COLOURS, GROUNDS, PLACES, SHAPES, SKIES, sample_scene

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)  # `enable_thinking` is accepted and means nothing: there are no thoughts
_SCENES = 300
_TIMES = 400  # how often the words that questions do not hold are repeated for the merges


def build_tokenizer(vocabulary: int = 512, types: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Learn the merges, always the same ones. `vocabulary` bounds the number of tokens (256 bytes among them).

    `types` are the kinds of exact questions whose words are learned too.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_language(types), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, extra_special_tokens=[START]
    )
    fast.chat_template = _CHAT_TEMPLATE
    return fast


def note_words() -> list[str]:
    """The words that notes consist of: places, colours, shapes, skies, grounds and "nothing"."""
    return [*PLACES, *COLOURS, *SHAPES, *SKIES, *GROUNDS, "nothing"]


def _language(types: Sequence[str]) -> Iterator[str]:
    rng = np.random.default_rng(0)
    roles = ["system\n", "user\n", "assistant\n"]
    yield from itertools.chain.from_iterable([roles, [f" {word}" for word in note_words()]] * _TIMES)
    for _ in range(_SCENES):
        for question in questions(sample_scene(rng)):
            yield question.query
            yield from question.references
    for _ in range(_SCENES if types else 0):
        scene = sample_scene(rng)
        for question in draw_typed(rng, scene, types, 2 * len(types)):
            yield as_prompted(question).prompt
            yield from question.references
