"""One answer: a panorama's file, a question and a trained folder enter; the answer and what gave it leave."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from panollava.errors import DataError, EvaluationError
from panollava.models.processor import PanoramaProcessor
from panollava.models.saving import is_saved_model
from panollava.models.vlm import PanoramaVLM
from panollava.training.checkpointing import load_stage
from panollava.training.job import first_device, is_out_of_memory
from panollava.views.panorama import load_panorama

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig


@dataclass(frozen=True)
class Question:
    """What to ask, of which folder. `generation` overrides settings that the folder remembers."""

    image: Path
    query: str
    folder: Path
    stage: str | None = None
    epoch: int | None = None
    step: int | None = None
    seed: int = 42
    config: WorkflowConfig | None = None


def answer(question: Question, generation: dict[str, Any] | None = None) -> dict[str, Any]:
    """`{"text", "query", "image", "checkpoint", "experiment", "stage", …}`, the document of `infer --json`.

    The folder is a stage folder, an experiment's, or one that `export` wrote. Raises DataError for a question that is
    empty or too long and for an image that is no panorama, CheckpointError and EvaluationError for the folder.
    """
    if not question.query.strip():
        raise DataError("the question is empty")
    load_panorama(question.image, min_width=1)  # what cannot be answered is told before weights are loaded
    model, processor, checkpoint, remembered = _load(question)
    if model.language is None:
        raise EvaluationError(
            f"{question.folder} holds the vision stage, which has no language model to answer with. "
            "Pass the folder of stage resampler or finetune."
        )
    settings = {**remembered, **{key: value for key, value in (generation or {}).items() if value is not None}}
    if not settings["do_sample"]:
        settings = {key: settings[key] for key in ("max_new_tokens", "do_sample")}
    device = first_device()
    pixels = processor.pixels(processor.open(question.image))[None].to(device)  # [1, V, 3, H, W]
    torch.manual_seed(question.seed)
    try:
        output = model.to(device).generate(pixels, [question.query], **settings)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise EvaluationError(f"out of memory while answering: {str(error).splitlines()[0]}") from error
    origin = model.origin or {}
    return {
        "text": output["text"][0],
        "query": question.query,
        "image": str(question.image),
        "checkpoint": str(checkpoint),
        "experiment": origin.get("experiment"),
        "stage": origin.get("stage"),
        "num_views": len(processor.views),
        "num_image_tokens": model.num_image_tokens,
        "num_new_tokens": int(output["generated_ids"].shape[1]),
        "generation": settings,
    }


def _load(question: Question) -> tuple[PanoramaVLM, PanoramaProcessor, Path, dict[str, Any]]:
    """Model, processor, the file or folder that they came from, and the remembered settings of generation."""
    if is_saved_model(question.folder):
        model = PanoramaVLM.from_pretrained(question.folder)
        processor = PanoramaProcessor.from_pretrained(question.folder)
        default = {"max_new_tokens": 128, "do_sample": False}
        return model, processor, question.folder, (model.origin or {}).get("generation") or default
    loaded = load_stage(
        question.folder, stage=question.stage, epoch=question.epoch, step=question.step, config=question.config
    )
    return loaded.model, loaded.processor, loaded.checkpoint.path, loaded.metadata["remembered"]["generation"]
