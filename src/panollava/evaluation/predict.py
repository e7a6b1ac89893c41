"""Answers: samples and pictures go in, one text per (image, query) comes out; once more with other pictures.

Each picture is encoded once; samples are answered in batches of like queries, so that a batch ends when its longest
answer does. The batches depend on the samples alone, and finished ones are kept on disk, so a killed prediction goes
on and gives the same answers. Traded away: the order of the CSV while predicting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from panollava.data.dataset import PictureStore, picture_batch
from panollava.data.samples import Sample
from panollava.errors import EvaluationError, PromptTooLong
from panollava.evaluation.predictions import Prediction
from panollava.files import digest_of, write_text
from panollava.locks import FolderLock
from panollava.logs import LOGGER
from panollava.memory import is_out_of_memory
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.progress import track
from panollava.views.panorama import PanoramaError

NO_PICTURE = ""
"""The picture's path of a sample that is asked without a picture."""
PICTURES_PER_CHUNK = 128  # encoder features held at once
PICTURES_PER_BATCH = 16


@dataclass(frozen=True)
class PredictionSettings:
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
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    sample_id, text, error = json.loads(line)
                except ValueError:  # cut short by a kill: it and what may follow are not there
                    break
                self.texts[int(sample_id)] = (str(text), str(error))
            write_text(path, "".join(_line(i, *answer) for i, answer in self.texts.items()))

    def add(self, batch: dict[int, tuple[str, str]]) -> None:
        self.texts.update(batch)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(_line(i, *answer) for i, answer in batch.items()))

    def forget(self) -> None:
        self.texts.clear()
        if self.path is not None:
            self.path.unlink(missing_ok=True)


@contextmanager
def kept_answers(folder: Path, key: str) -> Iterator[Callable[[str], FinishedAnswers]]:
    """Finished answers by name, kept in `folder` until the block has ended without an error. One process at a time.

    `key` is a digest of all that they depend on: those of another key are removed.
    """
    with FolderLock(folder), answers_in_locked(folder, key) as kept:
        yield kept


@contextmanager
def answers_in_locked(folder: Path, key: str) -> Iterator[Callable[[str], FinishedAnswers]]:
    """The same for a caller that holds the folder's lock already."""
    for old in folder.glob("*.jsonl"):
        if not old.stem.endswith(key):
            old.unlink()
    yield lambda name: FinishedAnswers(folder / f"{name}_{key}.jsonl")
    for done in folder.glob(f"*_{key}.jsonl"):
        done.unlink()


def _line(sample_id: int, text: str, error: str) -> str:
    return json.dumps([sample_id, text, error], ensure_ascii=True) + "\n"


def shuffled_options(samples: list[Sample], seed: int) -> list[Sample]:
    """For `evaluation.shuffle_options`: each choice with its options in an order drawn for the seed and the question.

    The same question has the same order in every control and every run.
    """
    found = []
    for sample in samples:
        options = sample.details.options
        if sample.details.answer_type == "choice" and len(options) > 1:
            key = digest_of([seed, sample.image_path, sample.query, options])
            order = np.random.default_rng(int(key, 16)).permutation(len(options))
            sample = replace(sample, shown=tuple(options[place] for place in order))
        found.append(sample)
    return found


def shuffled_pictures(
    samples: list[Sample], seed: int, contents: Mapping[str, str] | None = None
) -> dict[str, str] | None:
    """For the blind control: each picture's replacement, never itself. None where there is only one picture.

    `contents` says what each path shows (its SHA-256), so that a picture under two paths is one picture; without it,
    and for a path that it does not hold, the path does. Each picture replaces one other, but where more than half of
    the paths show the same: their replacements are the others in turn.
    """
    paths = list(dict.fromkeys(sample.image_path for sample in samples))
    shown: dict[str, list[str]] = {}
    for place in np.random.default_rng(seed).permutation(len(paths)):
        path = paths[place]
        shown.setdefault((contents or {}).get(path, path), []).append(path)
    if len(shown) < 2:
        return None
    # Paths of one picture are adjacent, and each gets the one that is as far behind it as the largest such group.
    order = [path for group in shown.values() for path in group]
    largest = max(shown.values(), key=len)
    stand_ins = dict(zip(order, order[len(largest) :] + order[: len(largest)], strict=True))
    if 2 * len(largest) > len(order):
        others = [path for group in shown.values() if group is not largest for path in group]
        stand_ins |= dict(zip(largest, cycle(others), strict=False))
    return stand_ins


def predict(
    model: PanoramaModel,
    processor: PanoramaProcessor,
    samples: list[Sample],
    pictures: PictureStore,
    settings: PredictionSettings,
    *,
    device: torch.device,
    stand_ins: dict[str, str] | None = None,
    finished: FinishedAnswers | None = None,
    log_every: int = 25,
    group_by_image: bool = False,
    text_only: bool = False,
    part: tuple[int, int] | None = None,
) -> list[Prediction]:
    """Answer every sample, in the order of `samples`.

    `part` (k, n) answers the k-th (from 1) of n runs of the batches alone, and returns its predictions: a batch, and
    with it each answer, is the same in whichever part it is.

    `group_by_image` (see `PanoramaModel.shares_prefix`) asks questions about one picture together.

    `pictures` gives uint8 views [V, h, w, 3] by image path; with `stand_ins` the model is shown that picture instead.
    With `text_only` it is shown none, and its prompts hold no image token.
    A sample whose picture cannot be used any more, or whose generation fails, has an empty text and its error. Raises
    EvaluationError where all of them fail, since then it is not the samples.
    """
    finished = finished or FinishedAnswers(None)
    model.to(device).eval()
    if text_only:
        stand_ins = dict.fromkeys((sample.image_path for sample in samples), NO_PICTURE)
    shown = [(stand_ins or {}).get(sample.image_path, sample.image_path) for sample in samples]
    batches = list(_batches(samples, shown, settings.batch_size, group_by_image))
    LOGGER.info(
        "%s%d samples, %d pictures, %d batches, %d answers kept from an earlier start",
        "no pictures: " if text_only else "" if stand_ins is None else "pictures shuffled: ",
        len(samples), len(set(shown)), len(batches), len(finished.texts),
    )  # fmt: skip
    wanted = range(len(batches))
    if part is not None:
        wanted = range(len(batches) * (part[0] - 1) // part[1], len(batches) * part[0] // part[1])
        LOGGER.info("part %d of %d: %d batches", *part, len(wanted))
    features: dict[str, torch.Tensor | PanoramaError] = {}
    for number in track(wanted, len(wanted), "Answering", lines=False):
        chunk, batch = batches[number]
        if all(samples[i].sample_id in finished.texts for i in batch):
            continue
        if not text_only and not features.keys() >= set(chunk):
            features = _encode(model, processor, pictures, chunk, device)
        torch.manual_seed(settings.seed * 1_000_003 + number)
        finished.add(_answer(model, samples, shown, batch, features, settings, group_by_image))
        if (number + 1) % log_every == 0 or number + 1 == len(batches):
            LOGGER.info("batch %d of %d", number + 1, len(batches))
    asked = sorted(i for number in wanted for i in batches[number][1])
    if part is not None:
        return predictions_of([samples[i] for i in asked], finished.texts, all_failing=True)
    try:
        return predictions_of(samples, finished.texts)
    except EvaluationError:
        finished.forget()  # the next start shall try again
        raise


def predictions_of(
    samples: Sequence[Sample], answers: Mapping[int, tuple[str, str]], all_failing: bool = False
) -> list[Prediction]:
    """A prediction of each sample from (text, error) by its id. Raises EvaluationError where all of them failed, unless
    `all_failing` may be: a small part of a test set says nothing of the whole."""
    predictions = [
        Prediction(
            s.sample_id,
            s.image_path,
            s.query,
            answers[s.sample_id][0],
            s.references,
            answers[s.sample_id][1],
            s.details,
            s.shown,
        )
        for s in samples
    ]
    if samples and not all_failing and all(one.error for one in predictions):
        raise EvaluationError(f"none of {len(samples)} samples could be answered. The first: {predictions[0].error}")
    for line in failures(predictions):
        LOGGER.warning(line)
    return predictions


def failures(predictions: Sequence[Prediction], most: int = 10) -> list[str]:
    """A line about how many samples have no answer, and one for each of the first of them."""
    failed = [one for one in predictions if one.error]
    if not failed:
        return []
    lines = [f"{len(failed)} of {len(predictions)} samples have no answer and are scored as empty:"]
    lines += [f"  sample {one.sample_id}, {one.image_path}, {one.query!r}: {one.error}" for one in failed[:most]]
    return [*lines, f"  and {len(failed) - most} more"] if len(failed) > most else lines


def _batches(
    samples: list[Sample], shown: list[str], size: int, group_by_image: bool = False
) -> Iterator[tuple[list[str], list[int]]]:
    """(pictures of the chunk, indices of samples): chunks of pictures, in them batches of like queries; or, where a
    model reads a picture once for all its questions, of questions about few pictures."""
    paths = list(dict.fromkeys(shown))
    for start in range(0, len(paths), PICTURES_PER_CHUNK):
        chunk = paths[start : start + PICTURES_PER_CHUNK]
        inside = set(chunk)
        members = [i for i, path in enumerate(shown) if path in inside]
        place = {path: number if group_by_image else 0 for number, path in enumerate(chunk)}
        members.sort(key=lambda i: (place[shown[i]], len(samples[i].prompt), samples[i].prompt, i))
        for first in range(0, len(members), size):
            yield chunk, members[first : first + size]


@torch.no_grad()
def _encode(
    model: PanoramaModel, processor: PanoramaProcessor, pictures: PictureStore, paths: list[str], device: torch.device
) -> dict[str, torch.Tensor | PanoramaError]:
    """Features [V, S, D_vision] of each picture, or why it cannot be used."""
    features: dict[str, torch.Tensor | PanoramaError] = {}
    for start in range(0, len(paths), PICTURES_PER_BATCH):
        opened = {}
        for path in paths[start : start + PICTURES_PER_BATCH]:
            try:
                opened[path] = np.array(pictures[path])
            except PanoramaError as error:  # it was there when the CSV was prepared
                features[path] = error
        if opened:
            pixels = picture_batch(list(opened.values()), processor)["pixel_values"]
            with model.autocast():
                features.update(zip(opened, model.encode_vision(pixels.to(device)), strict=True))
    return features


def _answer(
    model: PanoramaModel,
    samples: list[Sample],
    shown: list[str],
    batch: list[int],
    features: dict[str, torch.Tensor | PanoramaError],
    settings: PredictionSettings,
    group_by_image: bool,
) -> dict[int, tuple[str, str]]:
    """Text and error of each sample of the batch, by its id; one of the two is empty."""
    answers: dict[int, tuple[str, str]] = {}
    seen: dict[int, str] = {}
    for i in batch:
        found = features.get(shown[i])
        if isinstance(found, PanoramaError):
            answers[samples[i].sample_id] = ("", f"{type(found).__name__}: {found}")
        else:
            seen[i] = shown[i]
    if not seen:
        return answers
    try:
        texts = _generate(model, features, list(seen.values()), [samples[i] for i in seen], settings, group_by_image)
        return answers | {samples[i].sample_id: (text, "") for i, text in zip(seen, texts, strict=True)}
    except (RuntimeError, ValueError, IndexError, PromptTooLong) as error:  # what models raise about their input
        if is_out_of_memory(error):
            raise EvaluationError(
                f"out of memory while predicting: lower training.eval_batch_size (now {settings.batch_size})"
            ) from error
        if len(seen) == 1:
            return answers | {samples[next(iter(seen))].sample_id: ("", f"{type(error).__name__}: {error}")}
    for i in seen:  # find the sample that fails; the others keep their answers
        answers |= _answer(model, samples, shown, [i], features, settings, group_by_image)
    return answers


def _generate(
    model: PanoramaModel,
    features: dict[str, torch.Tensor | PanoramaError],
    paths: list[str],
    samples: list[Sample],
    settings: PredictionSettings,
    group_by_image: bool,
) -> list[str]:
    """An answer to each sample's query about the picture at its path."""
    options: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "do_sample": settings.do_sample}
    if settings.do_sample:
        options |= {"temperature": settings.temperature, "top_p": settings.top_p}
    if any(sample.details.context_turns for sample in samples):
        options["contexts"] = [sample.details.context_turns for sample in samples]
    queries = [sample.prompt for sample in samples]
    if paths[0] == NO_PICTURE:
        return [text.strip() for text in model.answer_without_picture(queries, **options)["text"]]
    if group_by_image:
        once = {path: place for place, path in enumerate(dict.fromkeys(paths))}
        options["image_index"] = torch.tensor([once[path] for path in paths], device=model.device)
        paths = list(once)
    shown = [found for path in paths if isinstance(found := features[path], torch.Tensor)]
    output = model.generate(vision_features=torch.stack(shown), queries=queries, **options)
    return [text.strip() for text in output["text"]]
