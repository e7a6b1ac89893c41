"""The notebooks, run from top to bottom without a browser on a finished experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Project

pytestmark = pytest.mark.workflow
nbformat = pytest.importorskip("nbformat", reason="no Jupyter: pip install -e '.[dev]'")
nbclient = pytest.importorskip("nbclient", reason="no Jupyter: pip install -e '.[dev]'")

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def outputs_of(notebook: Any) -> tuple[str, int]:
    """The texts that the cells have shown, and how many pictures."""
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = [output.get("data", {}).get("text/plain", output.get("text", "")) for output in shown]
    return "\n".join(texts), sum("image/png" in output.get("data", {}) for output in shown)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANOLLAVA_EXPERIMENT", project.name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (project.root / "notebooks").mkdir()
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": str(project.root / "notebooks")}}
    ).execute()
    said, pictures = outputs_of(notebook)
    expected = {"quickstart": (["rouge_l", "query"], 2), "errors": (["question", "questions"], 5)}
    words, least = expected[path.stem]
    assert pictures >= least and all(word in said for word in words), said
    assert "Traceback" not in said


def test_they_are_kept_without_outputs() -> None:
    assert {path.stem for path in NOTEBOOKS} == {"quickstart", "errors"}
    for path in NOTEBOOKS:
        nbformat.validate(notebook := nbformat.read(path, as_version=4))
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert all(not cell.outputs and cell.execution_count is None for cell in code), path.name
