"""What AutoProcessor gives for an exported model: `panollava.PanoramaProcessor`, made a processor of transformers too.

The class is made when it is asked for: this module is imported while transformers loads its tables.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any


class PanoramaProcessor:
    """Stands for the class of the same name, which the folder's processor_config.json names."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Any:
        from panollava.hub.folders import local_folder

        return _processor_class().from_pretrained(local_folder(folder, options))


@cache
def _processor_class() -> Any:
    """`panollava.PanoramaProcessor` that pipelines accept: they ask for a ProcessorMixin."""
    from transformers.processing_utils import ProcessorMixin

    from panollava.models.processor import PanoramaProcessor as Own

    return type("PanoramaProcessor", (Own, ProcessorMixin), {"__doc__": Own.__doc__, "__module__": Own.__module__})
