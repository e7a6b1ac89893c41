"""Exported models in transformers: its Auto classes and pipelines know them once panollava is imported.

Nothing is imported for that: each class joins when transformers loads the module with its table.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
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
    _show_views_to_saved_native_models(AutoProcessor)


def _show_views_to_saved_native_models(auto_processor: Any) -> None:
    """A native model's folder is its family's own, for transformers alone too. With panollava, AutoProcessor gives for
    it the processor that shows a panorama as the views that the model was trained on; `family_processor` the other."""
    own = auto_processor.from_pretrained
    if hasattr(own, "family_processor"):
        return

    def from_pretrained(name: Any, **options: Any) -> Any:
        found = own(name, **options)
        if hasattr(found, "image_processor") and hasattr(found, "tokenizer") and _is_saved_native(name, options):
            from panollava.hub.processor import PanoramaProcessor

            return PanoramaProcessor.from_pretrained(name, **options)
        return found

    wrapped: Any = wraps(own)(from_pretrained)
    wrapped.family_processor = own
    auto_processor.from_pretrained = staticmethod(wrapped)


def _is_saved_native(name: Any, options: dict[str, Any]) -> bool:
    """Whether the folder, or the repository of the hub, is of a native model that panollava has saved."""
    from transformers.utils import cached_file

    from panollava.hub.folders import HUB_OPTIONS, NATIVE_FILE

    chosen = {key: options[key] for key in HUB_OPTIONS if options.get(key) is not None}
    silent = ("gated_repo", "missing_entries", "connection_errors")
    quietly: dict[str, Any] = {f"_raise_exceptions_for_{problem}": False for problem in silent}
    return cached_file(str(name), NATIVE_FILE, **chosen, **quietly) is not None


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
