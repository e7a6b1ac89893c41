"""Convert a stage folder to a self-contained Hugging Face folder: the command `export`.

Needs nothing but the stage folder. Writes what `models.saving` describes, completely or not at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from panollava.checkpoints.export_folder import export_folder
from panollava.checkpoints.loading import load_stage
from panollava.devices import first_device
from panollava.logs import LOGGER
from panollava.models.build import load_pretrained
from panollava.models.written import imprint, refuse_other


def export_stage(folder: str | Path, output: str | Path, *, merge_lora: bool = False, **chosen: Any) -> None:
    """Write the trained model of a stage folder to `output`, with its processor, tokenizer and model card.

    `merge_lora` makes the adapters part of the language model. `chosen` may name stage, epoch or step, and `config` for
    a folder without metadata. What is written is loaded once more and compared. An earlier export in `output` is
    replaced file by file (`export_folder`). Raises ConfigError where `output` holds other files, or files of an earlier
    export that were edited, or where merging would change the model, CheckpointError as `load_stage` and where the two
    differ.
    """
    output = Path(output)
    with export_folder(output) as partial:
        _write(folder, output, partial, merge_lora, chosen)


def _write(folder: str | Path, output: Path, partial: Path, merge_lora: bool, chosen: dict[str, Any]) -> None:
    loaded = load_stage(folder, **chosen)
    model, device = loaded.model.to(first_device()), first_device()
    if merge_lora and not model.has_adapters:
        LOGGER.warning("%s has no LoRA adapters: there is nothing to merge", loaded.checkpoint.folder)
    if merge_lora:
        model.merge_lora()
    wanted = {part: tensor.cpu() for part, tensor in imprint(model).items()}
    dtype, trusted = model.dtype, model.config.trust_remote_code
    model.save_pretrained(partial, loaded.processor)
    del model, loaded  # one model in memory at a time
    again, _ = load_pretrained(partial, dtype=dtype, trust_remote_code=trusted)
    refuse_other(output, again.to(device), wanted)
