"""Answers: samples and pictures go in, one text per (image, query) comes out; once more with other pictures.

Each picture is encoded once; samples are answered in batches of like queries, so that a batch ends when its longest
answer does. The batches depend on the samples alone, and finished ones are kept on disk, so a killed prediction goes
on and gives the same answers. Traded away: the order of the CSV while predicting.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panollava.data.dataset import PictureStore, picture_batch
from panollava.data.samples import Sample
from panollava.errors import EvaluationError, PromptTooLong
from panollava.evaluation.predictions import Prediction
from panollava.logs import LOGGER
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.training.job import is_out_of_memory

PICTURES_PER_CHUNK = 128  # encoder features held at once
PICTURES_PER_BATCH = 16


@dataclass(frozen=True)
class GenerationSettings:
    """`generation.*` of the configuration and the batch size (`training.eval_batch_size`)."""

    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_p: float
    batch_size: int
    seed: int


class FinishedAnswers:
    """Answers of finished batches, one JSON line each: what a killed prediction need not do again."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.texts: dict[int, tuple[str, str]] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
                if line.endswith("\n"):  # a line that a kill cut short is not there
                    sample_id, text, error = json.loads(line)
                    self.texts[sample_id] = (text, error)
            self._rewrite()

    def add(self, batch: dict[int, tuple[str, str]]) -> None:
        self.texts.update(batch)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(_line(i, *answer) for i, answer in batch.items()))

    def _rewrite(self) -> None:
        assert self.path is not None
        self.path.write_text("".join(_line(i, *a) for i, a in self.texts.items()), encoding="utf-8")


def _line(sample_id: int, text: str, error: str) -> str:
    return json.dumps([sample_id, text, error], ensure_ascii=True) + "\n"


def shuffled_pictures(samples: list[Sample], seed: int) -> dict[str, str] | None:
    """For the blind control: each picture's stand-in, never itself. None where there is only one picture."""
    paths = list(dict.fromkeys(sample.image_path for sample in samples))
    if len(paths) < 2:
        return None
    order = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))]
    return dict(zip(order, order[1:] + order[:1], strict=True))


def predict(
    model: PanoramaVLM,
    processor: PanoramaProcessor,
    samples: list[Sample],
    pictures: PictureStore,
    settings: GenerationSettings,
    *,
    device: torch.device,
    stand_ins: dict[str, str] | None = None,
    finished: FinishedAnswers | None = None,
    log_every: int = 25,
) -> list[Prediction]:
    """Answer every sample, in the order of `samples`.

    `pictures` gives uint8 views [V, h, w, 3] by image path; with `stand_ins` the model is shown that picture instead.
    A sample whose generation fails has an empty text and its error.
    """
    finished = finished or FinishedAnswers(None)
    model.to(device).eval()
    shown = [(stand_ins or {}).get(sample.image_path, sample.image_path) for sample in samples]
    batches = list(_batches(samples, shown, settings.batch_size))
    LOGGER.info(
        "%d samples, %d pictures, %d batches, %d answers kept from an earlier start",
        len(samples), len(set(shown)), len(batches), len(finished.texts),
    )  # fmt: skip
    features: dict[str, torch.Tensor] = {}
    for number, (chunk, batch) in enumerate(batches):
        if all(samples[i].sample_id in finished.texts for i in batch):
            continue
        if not features.keys() >= set(chunk):
            features = _encode(model, processor, pictures, chunk, device)
        torch.manual_seed(settings.seed * 1_000_003 + number)
        finished.add(_answer(model, samples, shown, batch, features, settings))
        if (number + 1) % log_every == 0 or number + 1 == len(batches):
            LOGGER.info("batch %d of %d", number + 1, len(batches))
    answers = finished.texts
    return [
        Prediction(s.sample_id, s.image_path, s.query, answers[s.sample_id][0], s.references, answers[s.sample_id][1])
        for s in samples
    ]


def _batches(samples: list[Sample], shown: list[str], size: int) -> Iterator[tuple[list[str], list[int]]]:
    """(pictures of the chunk, indices of samples): chunks of pictures, in them batches of like queries."""
    paths = list(dict.fromkeys(shown))
    for start in range(0, len(paths), PICTURES_PER_CHUNK):
        chunk = paths[start : start + PICTURES_PER_CHUNK]
        inside = set(chunk)
        members = [i for i, path in enumerate(shown) if path in inside]
        members.sort(key=lambda i: (len(samples[i].query), samples[i].query, i))
        for first in range(0, len(members), size):
            yield chunk, members[first : first + size]


@torch.no_grad()
def _encode(
    model: PanoramaVLM, processor: PanoramaProcessor, pictures: PictureStore, paths: list[str], device: torch.device
) -> dict[str, torch.Tensor]:
    features: dict[str, torch.Tensor] = {}
    for start in range(0, len(paths), PICTURES_PER_BATCH):
        some = paths[start : start + PICTURES_PER_BATCH]
        pixels = picture_batch([np.array(pictures[path]) for path in some], processor)["pixel_values"]
        features.update(zip(some, model.encode_vision(pixels.to(device)), strict=True))  # each [V, S, D_vision]
    return features


def _answer(
    model: PanoramaVLM,
    samples: list[Sample],
    shown: list[str],
    batch: list[int],
    features: dict[str, torch.Tensor],
    settings: GenerationSettings,
) -> dict[int, tuple[str, str]]:
    try:
        texts = _generate(model, [features[shown[i]] for i in batch], [samples[i].query for i in batch], settings)
        return {samples[i].sample_id: (text, "") for i, text in zip(batch, texts, strict=True)}
    except (RuntimeError, PromptTooLong) as error:
        if is_out_of_memory(error):
            raise EvaluationError(
                f"out of memory while predicting: lower training.eval_batch_size (now {settings.batch_size})"
            ) from error
        if len(batch) > 1:  # find the sample that fails; the others keep their answers
            alone = [_answer(model, samples, shown, [i], features, settings) for i in batch]
            return {key: value for answer in alone for key, value in answer.items()}
        LOGGER.warning("sample %d: generation failed: %s", samples[batch[0]].sample_id, error)
        return {samples[batch[0]].sample_id: ("", f"{type(error).__name__}: {error}")}


def _generate(
    model: PanoramaVLM, features: list[torch.Tensor], queries: list[str], settings: GenerationSettings
) -> list[str]:
    options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "do_sample": settings.do_sample}
    if settings.do_sample:
        options |= {"temperature": settings.temperature, "top_p": settings.top_p}
    output = model.generate(vision_features=torch.stack(features), queries=queries, **options)
    return [text.strip() for text in output["text"]]
