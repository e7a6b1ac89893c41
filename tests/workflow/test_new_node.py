"""docs/extending.md: a node of the DAG, added as it stands there, to a copy of the package and of a project."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, Project
from plans import plan

pytestmark = pytest.mark.workflow

WORDS = "results/LOCAL/words.json"


def blocks() -> list[tuple[str, str]]:
    """(language, text) of the section's examples."""
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    (section,) = (
        part for part in re.split(r"^## ", text, flags=re.MULTILINE) if part.startswith("A node of the DAG\n")
    )
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


def add_node(package: Path, project: Project) -> list[str]:
    """Add the example; returns the files that it touches."""
    (_, function), (_, entry), (_, rule), (_, script) = blocks()
    files = {
        package / "dag/jobs.py": lambda text: f"{text}\n\n{function}",
        package / "dag/nodes.py": lambda text: text.replace("    # ---- several exp", f"{entry}    # ---- several exp"),
        project.root / "workflow/rules/evaluate.smk": lambda text: f"{text}\n\n{rule}",
    }
    for path, change in files.items():
        before = path.read_text(encoding="utf-8")
        path.write_text(change(before), encoding="utf-8")
        assert path.read_text(encoding="utf-8") != before
    (project.root / "workflow/scripts/count_words.py").write_text(script, encoding="utf-8")
    return [*(path.name for path in files), "count_words.py"]


def test_a_node_is_a_function_an_entry_a_rule_and_a_script(local: Project, tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "src/panollava", tmp_path / "src/panollava")
    assert add_node(package, local) == ["jobs.py", "nodes.py", "evaluate.smk", "count_words.py"]
    env = {"PYTHONPATH": str(tmp_path / "src")}
    assert plan(local, [WORDS], env=env) == {"count_words": 1}
    local.call("snakemake", "--cores", "1", "--", WORDS, env=env)
    document = json.loads((local.root / WORDS).read_text(encoding="utf-8"))
    assert len(document["words"]) == 4 and set(document) == {"words", "provenance"}
    assert (local.root / "logs/LOCAL/count_words.log").is_file()
    assert re.search("^count_words +1 ", local.panollava("status", "LOCAL", env=env).stdout, re.MULTILINE)
    assert plan(local, [WORDS], env=env) == {}
    local.configure({"generation.max_new_tokens": 5})
    assert plan(local, [WORDS], env=env) == {"predict": 1, "count_words": 1}
    local.configure({"lora.rank": 3})
    stale = {"train_finetune": 1, "select_checkpoint": 1, "predict": 1, "count_words": 1}
    assert plan(local, [WORDS], env=env) == stale
