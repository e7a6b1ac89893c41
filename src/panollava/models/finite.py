"""Weights are numbers: a NaN or an infinity among them is refused where they are read.

One such value makes every answer empty or the same, and every loss NaN, far from where it came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from panollava.errors import CheckpointError

_SHOWN = 4
_ORDINARY = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def refuse_not_finite(source: str | Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise CheckpointError that names the `tensors` (key, values) of `source` that hold a NaN or an infinity.

    Whole numbers and packed formats are passed over: they hold neither.
    """
    wrong = [name for name, tensor in tensors if not _is_finite(tensor)]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CheckpointError(
            f"{source} holds weights that are not finite (NaN or infinite), so that nothing it answers means anything: "
            f"{', '.join(wrong[:_SHOWN])}{more}. Bring the file back, or make it again"
        )


def _is_finite(tensor: Tensor) -> bool:
    if tensor.dtype not in _ORDINARY or tensor.is_meta or not tensor.numel():
        return True
    lowest, highest = tensor.detach().aminmax()  # both are NaN where one value is; nothing of the tensor's size is made
    return bool(lowest.isfinite() and highest.isfinite())
