"""What the page asks of a model: a panorama opened and shown, a question answered. No gradio in here.

Each panorama is opened once, when it is chosen; its views are what every later question gets. One model answers one
question at a time.
"""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from panollava.checkpoints.loading import LoadedStage
from panollava.errors import DataError
from panollava.evaluation.answer import Answer, ask
from panollava.serve.upload import OPENING_S, open_panorama, open_upload
from panollava.views.contact_sheet import contact_sheet
from panollava.views.panorama import PanoramaError, Pixels

PREVIEW_WIDTH = 2048
MOST_PIXELS = 2**25  # 8192 x 4096
MOST_JPEG_PIXELS = 2**28
WAIT_S = 120.0  # for the questions before one's own
_MOST_QUESTION_CHARACTERS = 2000
_KINDLY = {
    "not about 2:1": "A 360° panorama is twice as wide as it is high (equirectangular)",
    "not equirectangular": "This is no equirectangular panorama",
    "contradictory metadata": "The file says things about its panorama that cannot be followed",
    "truncated": "The file ends too early or is damaged",
    "not an image": "This file is not a picture that can be read",
    "image missing": "The file is not there any more",
}


@dataclass(frozen=True)
class OpenedPanorama:
    """A panorama as it is shown and as the model sees it.

    `preview` is a JPEG's data URL, at most 2048 pixels wide; `views` uint8 [V, h, w, 3]; `sheet` uint8 [H, W, 3], the
    panorama with the views' outlines and the views themselves. `unstitched`: it looks like two fisheye pictures.
    """

    preview: str
    views: Pixels
    sheet: Pixels
    size: tuple[int, int]
    unstitched: bool = False


@dataclass(frozen=True)
class Sampling:
    """How words are drawn; `seed` None draws others each time."""

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class TimedAnswer(Answer):
    """An answer, and the seconds that the model took for it."""

    seconds: float


class Answering:
    """A loaded stage that opens panoramas and answers questions about them."""

    def __init__(self, loaded: LoadedStage, device: torch.device) -> None:
        self.loaded, self.device = loaded, device
        self.model = loaded.model.to(device).eval()
        self._turn = threading.Lock()

    def open(self, path: str | Path, uploaded: bool = False) -> OpenedPanorama:
        """Raises DataError with a sentence for people: what is wrong with the file and what is expected.

        An upload may not cost more than it should: its pixels are bounded, and so is the time that opening it takes.
        """
        processor = self.loaded.processor
        about = (processor.views, processor.image_size, processor.rendering, PREVIEW_WIDTH)
        if uploaded:
            _refuse_costly(Path(path))
        try:
            opened = open_upload(path, *about, limit_s=OPENING_S) if uploaded else open_panorama(path, *about)
        except PanoramaError as error:
            found = f" ({error.detail})" if error.detail else ""
            raise DataError(f"{_KINDLY[error.reason]}{found}.") from error
        return OpenedPanorama(
            _data_url(opened.panorama),
            opened.views,
            contact_sheet(opened.panorama, processor.views, opened.views),
            opened.panorama.shape[1::-1],
            opened.unstitched,
        )

    def answer(self, views: Pixels, question: str, max_new_tokens: int, **options: Any) -> TimedAnswer:
        """The whole answer, the last of `stream`."""
        return list(self.stream(views, question, max_new_tokens, **options))[-1]

    def stream(
        self,
        views: Pixels,
        question: str,
        max_new_tokens: int,
        *,
        sampling: Sampling | None = None,
        earlier: Sequence[tuple[str, str]] = (),
    ) -> Iterator[TimedAnswer]:
        """The model's answer as it grows, greedy without `sampling`; the last one is whole. `earlier` are questions and
        answers before it, which the prompt then holds. Raises DataError for what cannot be asked, else as `ask`."""
        asked = _checked(question, max_new_tokens)
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens}
        if sampling is not None:
            settings |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        if earlier:
            turns = [turn for one, answer in earlier for turn in (("user", one), ("assistant", answer))]
            settings["contexts"] = [turns]
        if not self._turn.acquire(timeout=WAIT_S):
            raise DataError("The model is busy with other questions. Try again in a minute.")
        try:
            yield from self._growing(np.asarray(views), asked, settings, sampling.seed if sampling else None)
        finally:
            self._turn.release()

    def _growing(
        self, views: Pixels, question: str, settings: dict[str, Any], seed: int | None
    ) -> Iterator[TimedAnswer]:
        """The model answers in a thread of its own, and what it has written so far is yielded meanwhile."""
        from transformers import TextIteratorStreamer

        assert self.model.prompt is not None
        streamer = TextIteratorStreamer(self.model.prompt.tokenizer, skip_prompt=True, skip_special_tokens=True)
        ended: list[Answer | BaseException] = []

        def run() -> None:
            try:
                if seed is not None:
                    torch.manual_seed(seed)
                ended.append(
                    ask(self.model, self.loaded.processor, views, question, self.device, streamer=streamer, **settings)
                )
            except BaseException as error:  # raised again where it is asked for
                ended.append(error)
            finally:
                streamer.end()

        started, text = time.perf_counter(), ""
        thread = threading.Thread(target=run, name="answer", daemon=True)
        thread.start()
        try:
            for piece in streamer:
                text += piece
                if text.strip():
                    yield TimedAnswer(text.strip(), 0, time.perf_counter() - started)
        finally:
            thread.join()
        (outcome,) = ended
        if isinstance(outcome, BaseException):
            raise outcome
        yield TimedAnswer(outcome.text, outcome.num_tokens, time.perf_counter() - started)


def _checked(question: str, max_new_tokens: int) -> str:
    """The question without blanks around it. Raises DataError for what cannot be asked."""
    if not isinstance(question, str):
        raise DataError(f"The question must be text, got {type(question).__name__}.")
    if isinstance(max_new_tokens, bool) or not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise DataError(f"The number of tokens must be a whole number from 1 on, got {max_new_tokens!r}.")
    asked = question.strip()
    if not asked:
        raise DataError("Type a question first.")
    if len(asked) > _MOST_QUESTION_CHARACTERS:
        raise DataError(f"The question has {len(asked)} characters; at most {_MOST_QUESTION_CHARACTERS} can be asked.")
    return asked


def _refuse_costly(path: Path) -> None:
    """A file of few bytes can hold pixels for minutes. A JPEG is decoded at the size that is needed; others wholly.

    Only the header is read; what cannot be read is reported by the code that opens the file.
    """
    try:
        with Image.open(path) as image:
            (width, height), kind = image.size, image.format
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return
    most = MOST_JPEG_PIXELS if kind in ("JPEG", "MPO") else MOST_PIXELS
    if width * height > most:
        raise DataError(
            f"The picture has {width} x {height} pixels; as {kind} at most {most / 1e6:.0f} million can be looked at "
            "here. A JPEG may have more, or make it smaller."
        )


def _data_url(panorama: Pixels) -> str:
    image = Image.fromarray(panorama)
    if image.width > PREVIEW_WIDTH:
        image = image.resize((PREVIEW_WIDTH, PREVIEW_WIDTH // 2), Image.Resampling.LANCZOS, reducing_gap=2.0)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
