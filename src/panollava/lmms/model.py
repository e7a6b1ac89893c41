"""Wrap a checkpoint as a model of lmms-eval, which answers its requests with texts.

A request is a question about one picture, a panorama, or about none; it is answered by the steps that `panollava eval`
takes (each picture encoded once, like questions together). Traded away: likelihoods, several turns, more than one
picture in a question, several processes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lmms_eval.api.model import lmms
from PIL.Image import Image

from panollava.checkpoints.any_folder import load_folder
from panollava.data.samples import Sample
from panollava.devices import first_device
from panollava.errors import DataError, EvaluationError
from panollava.evaluation.answer import refuse_without_language
from panollava.evaluation.predict import NO_PICTURE, PredictionSettings, predict
from panollava.logs import LOGGER
from panollava.models.processor import PanoramaProcessor
from panollava.settings.choices import IMAGE_MARK
from panollava.views.panorama import Pixels

_ARGUMENTS = ("checkpoint_dir", "stage", "epoch", "step", "batch_size", "max_new_tokens")
_FROM_LMMS_EVAL = ("device", "max_batch_size")


@dataclass(frozen=True)
class _Pictures:
    """Views by the digest of a picture, opened when they are asked for."""

    processor: PanoramaProcessor
    open_: Mapping[str, Callable[[], Any]]

    def __getitem__(self, digest: str) -> Pixels:
        return self.processor.open(self.open_[digest]())


class Panollava(lmms):
    """A stage folder, an experiment's folder, or one that `panollava export` wrote.

    Args:
        checkpoint_dir: the folder.
        stage, epoch, step: which checkpoint of it, as for `panollava eval`.
        batch_size: questions answered together.
        max_new_tokens: most tokens of an answer, in the place of the task's own.

    Raises ValueError for other arguments, CheckpointError and EvaluationError for the folder.
    """

    is_simple = True

    def __init__(
        self,
        checkpoint_dir: str | None = None,
        stage: str | None = None,
        epoch: int | None = None,
        step: int | None = None,
        batch_size: int | str = 1,
        max_new_tokens: int | None = None,
        **further: Any,
    ) -> None:
        super().__init__()
        if unknown := sorted(further.keys() - set(_FROM_LMMS_EVAL)):
            raise ValueError(f"--model_args of panollava are {', '.join(_ARGUMENTS)}; got {', '.join(unknown)}")
        if checkpoint_dir is None:
            raise ValueError("--model_args checkpoint_dir=FOLDER names what panollava trained")
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("panollava answers in one process: start lmms_eval without accelerate launch")
        if str(batch_size) == "auto":
            raise ValueError("--batch_size is a number for panollava, got auto")
        self.batch_size = int(batch_size)
        self.max_new_tokens = max_new_tokens
        folder = Path(str(checkpoint_dir))
        self.loaded = load_folder(folder, stage=stage, epoch=epoch, step=step)
        refuse_without_language(self.loaded.model, folder)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request, in their order; "" where its picture is none that can be used (it is logged)."""
        texts: dict[int, str] = {}
        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(place)
        for places in groups.values():
            asked = [requests[place].args for place in places]
            texts |= dict(zip(places, self._answers(asked), strict=True))
        for place, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, texts[place])
        return [texts[place] for place in range(len(requests))]

    def _answers(self, asked: Sequence[Any]) -> list[str]:
        """Of requests with equal settings of generation: those with a picture, and those without."""
        settings = self._settings(asked[0][1])
        pictures: dict[str, Callable[[], Any]] = {}
        samples = []
        for number, (text, _, to_visual, doc_id, task, split) in enumerate(asked):
            open_ = _opener(to_visual, self.task_dict[task][split][doc_id], f"{task}, {split} {doc_id}")
            digest = NO_PICTURE if open_ is None else _digest(open_())
            if open_ is not None:
                pictures.setdefault(digest, open_)
            samples.append(Sample(number, digest, text.replace(IMAGE_MARK, "").strip(), ()))
        found: dict[int, str] = {}
        for pictured in (True, False):
            chosen = [one for one in samples if (one.image_path != NO_PICTURE) == pictured]
            if not chosen:
                continue
            predictions = predict(
                self.loaded.model,
                self.loaded.processor,
                chosen,
                _Pictures(self.loaded.processor, pictures),
                settings,
                device=first_device(),
                group_by_image=self.loaded.model.shares_prefix and pictured,
                text_only=not pictured,
            )
            found |= {one.sample_id: one.text for one in predictions}
        stops = asked[0][1].get("until") or []
        return [_until(found[number], [stops] if isinstance(stops, str) else stops) for number in range(len(asked))]

    def _settings(self, wanted: Mapping[str, Any]) -> PredictionSettings:
        """A task's settings over those that the folder remembers; a temperature of 0 is greedy."""
        remembered = self.loaded.metadata["remembered"]["generation"]
        temperature = wanted.get("temperature")
        sample = bool(wanted.get("do_sample", False)) and temperature != 0
        if (wanted.get("num_beams") or 1) > 1:
            LOGGER.warning("num_beams %s: panollava has no beam search, answers are greedy", wanted["num_beams"])
        return PredictionSettings(
            max_new_tokens=int(self.max_new_tokens or wanted.get("max_new_tokens") or remembered["max_new_tokens"]),
            do_sample=sample,
            temperature=float(temperature or remembered["temperature"]),
            top_p=float(wanted.get("top_p") or remembered["top_p"]),
            batch_size=self.batch_size,
            seed=0,
        )

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError("panollava answers tasks of output_type generate_until, not loglikelihood")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("panollava answers tasks of output_type generate_until, not of several rounds")


def _opener(to_visual: Any, doc: Any, name: str) -> Callable[[], Any] | None:
    """What gives a request's picture; None where it has none. Raises EvaluationError for more than one."""
    functions = to_visual if isinstance(to_visual, (list, tuple)) else [to_visual]

    def pictures() -> list[Any]:
        found = [function(doc) for function in functions if function is not None]
        return [one for several in found if several is not None for one in several]

    first = pictures()
    if not first:
        return None
    if len(first) > 1:
        raise EvaluationError(f"{name}: {len(first)} pictures in one question; panollava is asked about one panorama")
    if not isinstance(first[0], (Image, str, os.PathLike)):
        raise EvaluationError(f"{name}: a {type(first[0]).__name__}, expected a picture (PIL, or a path)")
    return lambda: pictures()[0]


def _digest(picture: Any) -> str:
    """The same for the same pixels, so that a panorama of many questions is encoded once."""
    if not isinstance(picture, Image):
        return str(picture)
    try:
        pixels = np.asarray(picture)
    except OSError as error:
        raise DataError(f"a task's picture cannot be read: {error}") from error
    return hashlib.sha256(f"{picture.mode} {pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _until(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the stops."""
    ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends)].strip() if ends else text
