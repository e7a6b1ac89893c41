"""Parts of the answers to a test set, each made by a job of its own (`of_job.answer_part`), and joined.

A part is JSON, `{"key", "made", "answers": [[sample_id, text, error], …], "provenance": {"config"}}`. `key` names all
that the answers depend on, so that parts of different wholes never meet. Joined, they are what one job would have
answered: the batches, and the seed of each, follow from all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from panollava.devices import first_device
from panollava.errors import EvaluationError
from panollava.files import read_json
from panollava.logs import LOGGER


def device_of(number: int) -> torch.device:
    """Where the `number`-th part (from 1) computes: the parts take the GPUs that the process sees in turn."""
    if not torch.cuda.is_available():
        return first_device()
    return torch.device("cuda", (number - 1) % torch.cuda.device_count())


def joined(parts: Sequence[Path], key: str) -> tuple[dict[str, Any], dict[int, tuple[str, str]]]:
    """How the answers of all parts were made, and the answers by sample. Raises EvaluationError where a part belongs to
    other answers; where they were made on unlike devices, a line says so."""
    made: list[dict[str, Any]] = []
    answers: dict[int, tuple[str, str]] = {}
    for path in parts:
        document = read_json(path)
        if document["key"] != key:
            raise EvaluationError(f"{path} is a part of other answers. Remove it and run the same command again")
        answers |= {int(sample_id): (str(text), str(error)) for sample_id, text, error in document["answers"]}
        made.append(document["made"])
    if devices := sorted({one["device"] for one in made[1:]} - {made[0]["device"]}):
        LOGGER.warning(
            "the parts were answered on unlike devices (%s, %s): rounding may turn a word", made[0]["device"],
            ", ".join(devices),
        )  # fmt: skip
    return made[0], answers
