"""Exported models in transformers: its Auto classes and pipelines know them once panollava is imported.

Nothing is imported for that: each class joins when transformers loads the module with its table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

MODEL_TYPE = "panollava"
_AUTO = "transformers.models.auto"


def _register_config() -> None:
    from transformers import AutoConfig

    from panollava.hub.config import PanollavaConfig

    AutoConfig.register(MODEL_TYPE, PanollavaConfig, exist_ok=True)


def _register_models() -> None:
    from transformers import AutoModel, AutoModelForImageTextToText

    from panollava.hub.config import PanollavaConfig
    from panollava.hub.model import PanollavaForImageTextToText

    for kind in (AutoModel, AutoModelForImageTextToText):
        kind.register(PanollavaConfig, PanollavaForImageTextToText, exist_ok=True)


def _register_processor() -> None:
    from transformers import AutoProcessor

    from panollava.hub.config import PanollavaConfig
    from panollava.hub.processor import PanoramaProcessor

    AutoProcessor.register(PanollavaConfig, PanoramaProcessor, exist_ok=True)


_REGISTRATIONS: dict[str, Callable[[], None]] = {
    f"{_AUTO}.configuration_auto": _register_config,
    f"{_AUTO}.modeling_auto": _register_models,
    f"{_AUTO}.processing_auto": _register_processor,
}


class _Registering(Loader):
    """A module's own loader, after which panollava's class joins the module's table."""

    def __init__(self, loader: Any, register: Callable[[], None]) -> None:
        self._loader, self._register = loader, register

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._register()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _REGISTRATIONS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader, _REGISTRATIONS[name])
        return spec


def register_when_imported() -> None:
    """Now for what transformers has loaded already, else when it does."""
    for name, register in _REGISTRATIONS.items():
        if name in sys.modules:
            register()
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
