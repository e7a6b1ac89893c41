"""Perplexity of the references, given picture and question: how surprised the model is by what people wrote.

    perplexity = exp( sum of -log p(token) / number of tokens )

over the tokens of every reference of every question, its end token included, each predicted from the picture, the
question and the reference's own tokens before it (teacher forcing). The sequence is `ChatPrompt.training`'s and the
loss that of training, in eval mode and without a length limit: a reference that is cut has no end. Tokens count alike,
so that long references count more. In [1, inf); a model that wavers between n equally likely tokens has n.

Computes, for a model, samples and their images, the perplexity, the same with every image replaced by another one, and
both sums of each question. The prefix of the question (system message and image) is read once for all questions about a
picture. Traded away: reading a question once for all its references.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from panollava.data.dataset import PictureStore
from panollava.data.samples import Sample
from panollava.errors import EvaluationError
from panollava.evaluation.measures.encode import encode_in_chunks
from panollava.evaluation.measures.measured import Measured, without_value
from panollava.evaluation.metrics.result import MetricResult
from panollava.logs import LOGGER
from panollava.memory import is_out_of_memory
from panollava.models.losses import IGNORED
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.models.prompt import PromptIds
from panollava.versions import package_version

KEY = "perplexity"
_NO_LIMIT = 2**31
_LOG_EVERY = 100  # pictures


@dataclass(frozen=True)
class _Reference:
    """A reference as the model is made to say it; `sample` is the place of its question."""

    sample: int
    ids: PromptIds

    @property
    def tokens(self) -> int:
        return sum(label != IGNORED for label in self.ids.labels or ())


def perplexity(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    samples: list[Sample],
    pictures: PictureStore,
    *,
    batch_size: int,
    device: torch.device,
    stand_ins: Mapping[str, str] | None = None,
) -> Measured:
    """Perplexity of the references of `samples`; blind with `stand_ins` (each picture's other picture).

    `pictures` gives uint8 views [V, h, w, 3] by image path. `batch_size` changes only rounding.
    Raises EvaluationError where memory runs out and where the weights give no probabilities.
    """
    assert model.prompt is not None
    model.to(device).eval()
    signature = f"tokens:{model.config.answering_name}|end:counted|refs:all|mean:token"
    about = MetricResult(None, "1 or more", "panollava", package_version("panollava"), signature, lower_is_better=True)
    every = [
        _Reference(place, model.prompt.training(sample.prompt, text, _NO_LIMIT, sample.details.context_turns))
        for place, sample in enumerate(samples)
        for text in sample.targets
        if text.strip()
    ]
    longest = model.positions
    references = [one for one in every if longest is None or len(one.ids.input_ids) <= longest]
    if left_out := len(every) - len(references):
        LOGGER.warning("%d references leave the language model's %d positions: left out", left_out, longest)
    if not references:
        return without_value({KEY: about}, "no question has a reference that the language model can take in")
    asked = sorted({one.sample for one in references})
    tokens = _by_sample(references, [one.tokens for one in references])
    LOGGER.info("perplexity: %d references with %d tokens", len(references), sum(tokens.values()))

    def measure(shown: Mapping[str, str]) -> dict[int, float]:
        paths = [shown.get(samples[one.sample].image_path, samples[one.sample].image_path) for one in references]
        losses = _losses(model, processor, references, paths, pictures, batch_size, device)
        return _by_sample(references, losses)

    nll = measure({})
    blind_nll = None if stand_ins is None else measure(stand_ins)
    rows = [
        {
            "sample_id": samples[place].sample_id,
            "image_path": samples[place].image_path,
            "original_query": samples[place].query,
            "tokens": tokens[place],
            "nll": nll[place],
            "blind_nll": None if blind_nll is None else blind_nll[place],
        }
        for place in asked
    ]
    measured = Measured({KEY: about}, {KEY: None}, rows, {"references": len(references), "left_out": left_out})
    value = measured.sums(KEY).total()
    if not value < float("inf"):  # NaN too
        raise EvaluationError(f"the references' perplexity is {value}: the weights give no probabilities")
    measured.metrics[KEY] = replace(about, value=value)
    if blind_nll is not None:
        blind = [{**row, "nll": row["blind_nll"]} for row in rows]
        measured.blind[KEY] = Measured({}, {}, blind).sums(KEY).total()
    return measured


def _by_sample(references: list[_Reference], values: list[float] | list[int]) -> dict[int, float]:
    sums: dict[int, float] = {}
    for one, value in zip(references, values, strict=True):
        sums[one.sample] = sums.get(one.sample, 0) + value
    return sums


@torch.no_grad()
def _losses(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    references: list[_Reference],
    shown: list[str],
    pictures: PictureStore,
    batch_size: int,
    device: torch.device,
) -> list[float]:
    """-log p of each reference, natural logarithm; `shown` is the picture that goes with each."""
    found = [0.0] * len(references)
    by_image: dict[str, list[int]] = {}
    for index, path in enumerate(shown):
        by_image.setdefault(path, []).append(index)
    stream = encode_in_chunks(model, processor, pictures, list(by_image), device)
    for number, (path, features) in enumerate(stream, start=1):
        members = sorted(by_image[path], key=lambda index: (len(references[index].ids.input_ids), index))
        batches = [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
        try:
            losses = model.answer_losses(features, [[references[i].ids for i in batch] for batch in batches])
            for batch, values in zip(batches, losses, strict=True):
                for index, value in zip(batch, values.tolist(), strict=True):
                    found[index] = value
            if number % _LOG_EVERY == 0:
                LOGGER.info("perplexity: picture %d of %d", number, len(by_image))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise EvaluationError(
                    f"out of memory while measuring perplexity: lower training.eval_batch_size (now {batch_size})"
                ) from error
            raise
    return found
