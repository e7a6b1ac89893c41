"""What AutoProcessor gives for an exported model: `panollava.PanoramaProcessor`, made a processor of transformers too.

The class is made when it is asked for: this module is imported while transformers loads its tables.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from panollava.hub.folders import NATIVE_FILE


class PanoramaProcessor:
    """Stands for the class of the same name, which the folder's processor_config.json names."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Any:
        """Warns of a native model's adapters, which its family's class does not load by itself."""
        from panollava.hub.folders import local_folder
        from panollava.logs import LOGGER

        found = local_folder(folder, options)
        adapters = found / "lora_weights"
        if (found / NATIVE_FILE).is_file() and adapters.is_dir():
            LOGGER.warning(
                "%s: the Auto classes and pipelines of transformers load the model without its adapters. Call "
                "model.load_adapter(%r), or export with --merge-lora",
                folder, str(adapters),
            )  # fmt: skip
        return _processor_class().from_pretrained(found)


@cache
def _processor_class() -> Any:
    """`panollava.PanoramaProcessor` that pipelines accept: they ask for a ProcessorMixin."""
    from transformers.processing_utils import ProcessorMixin

    from panollava.models.processor import PanoramaProcessor as Own

    return type("PanoramaProcessor", (Own, ProcessorMixin), {"__doc__": Own.__doc__, "__module__": Own.__module__})
