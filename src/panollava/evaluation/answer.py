"""Answer one question about a panorama and report what produced the answer; for `infer` and for the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from panollava.checkpoints.any_folder import open_stage
from panollava.devices import first_device
from panollava.errors import DataError, EvaluationError
from panollava.logs import LOGGER
from panollava.memory import is_out_of_memory
from panollava.models.panorama_model import PanoramaModel
from panollava.models.processor import PanoramaProcessor
from panollava.views.panorama import Pixels, load_panorama, warn_if_unstitched

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and in how many tokens (the one that ends it included)."""

    text: str
    num_tokens: int


def refuse_without_language(model: PanoramaModel, folder: Path) -> None:
    """Raise EvaluationError, saying what to pass instead, where nothing in this folder can answer."""
    if model.prompt is None:
        raise EvaluationError(
            f"{folder} holds the vision stage, which has no language model to answer with. "
            "Pass the folder of stage resampler or finetune."
        )


def ask(
    model: PanoramaModel, processor: PanoramaProcessor, views: Pixels, query: str, device: torch.device, **settings: Any
) -> Answer:
    """Ask a model on `device` about views uint8 [V, h, w, 3]; `settings` are those of `generate`.

    Raises DataError for a question that cannot be asked, EvaluationError where memory does not suffice.
    """
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"the question is not text: its character {error.start + 1} is half of one") from error
    pixels = processor.pixels(views)[None].to(device)  # [1, V, 3, h, w]
    try:
        output = model.generate(pixels, [query], **settings)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise EvaluationError(
            f"out of memory while answering{f': {reason}' if reason else ''}. Ask for a shorter answer (max_new_tokens)"
        ) from error
    return Answer(output["text"][0], int(output["generated_ids"].shape[1]))


@dataclass(frozen=True)
class InferRequest:
    """What to ask, of which folder; without one, of the experiment `config` as `open_stage` opens it."""

    image: Path
    query: str
    folder: Path | None
    stage: str | None = None
    epoch: int | None = None
    step: int | None = None
    seed: int = 42
    config: WorkflowConfig | None = None


def answer(request: InferRequest, generation: dict[str, Any] | None = None) -> dict[str, Any]:
    """`{"text", "query", "image", "checkpoint", "experiment", "stage", …}`, the document of `infer --json`.

    The folder is a stage folder, an experiment's, or one that `export` wrote. Raises DataError for a question that is
    empty or too long and for an image that is no panorama, CheckpointError and EvaluationError for the folder.
    """
    if not request.query.strip():
        raise DataError("the question is empty")
    warn_if_unstitched(
        load_panorama(request.image, min_width=1), request.image
    )  # what cannot be answered is reported before weights are loaded
    loaded = open_stage(request.folder, request.config, stage=request.stage, epoch=request.epoch, step=request.step)
    model, processor, remembered = loaded.model, loaded.processor, loaded.metadata["remembered"]["generation"]
    refuse_without_language(model, request.folder or loaded.checkpoint.folder)
    given = {key: value for key, value in (generation or {}).items() if value is not None}
    settings = {**remembered, **given}
    if not settings["do_sample"]:
        if unread := sorted(given.keys() & {"temperature", "top_p"}):
            LOGGER.warning("%s: no effect, the answer is decoded greedily (--do-sample samples)", ", ".join(unread))
        settings = {key: settings[key] for key in ("max_new_tokens", "do_sample")}
    device = first_device()
    views = processor.open(request.image)
    torch.manual_seed(request.seed)
    answered = ask(model.to(device), processor, views, request.query, device, **settings)
    origin = model.origin or {}
    return {
        "text": answered.text,
        "query": request.query,
        "image": str(request.image),
        "checkpoint": str(loaded.checkpoint.path),
        "experiment": origin.get("experiment"),
        "stage": origin.get("stage"),
        "num_views": len(processor.views),
        "num_image_tokens": model.num_image_tokens,
        "num_new_tokens": answered.num_tokens,
        "generation": settings,
    }
