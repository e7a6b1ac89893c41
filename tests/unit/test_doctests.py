"""Examples in docstrings run as they stand, from the project's root.

Those that need a trained experiment run in tests/workflow/test_tutorial.py.
"""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import panollava

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
TRAINED = ("panollava.api", "panollava.models.vlm")
MODULES = sorted(
    ".".join(file.relative_to(SOURCE).with_suffix("").parts)
    for file in (SOURCE / "panollava").rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", [name for name in MODULES if name not in TRAINED])
def test_examples_in_docstrings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    tried = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert tried.attempted and not tried.failed


def test_every_public_class_has_an_example() -> None:
    for name in panollava.__all__:
        found = getattr(panollava, name)
        if isinstance(found, type) or name == "compute_text_metrics":
            assert ">>> " in (found.__doc__ or ""), name
