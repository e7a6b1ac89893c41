"""A stage's code does not change without a decision: raise its code_version, or record that results stay the same.

python tests/unit/test_code_versions.py      # record the present code as belonging to the present versions, and the
                                             # defaults of settings that are new
"""

from __future__ import annotations

import ast
import copy
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from import_graph import AT_ONCE, IN_FUNCTION, SOURCE, graph, imports, modules, parsed

from panollava.config.dotted import value_at
from panollava.config.effective import DEFAULTS
from panollava.dag.always import ALWAYS
from panollava.dag.nodes import TABLE

VERSIONS = {name: node.code_version for name, node in TABLE.items() if node.code_version is not None}
RECORD = Path(__file__).with_name("code_versions.json")
DEFAULTS_RECORD = Path(__file__).with_name("later_defaults.json")

# What decides about slices, which have tests of their own, and what only reports, waits or passes on.
_NO_RESULT = (
    "panollava", "panollava.config", "panollava.dag", "panollava.errors", "panollava.logs", "panollava.progress",
    "panollava.processes", "panollava.locks", "panollava.memory", "panollava.versions", "panollava.workflow_lock",
)  # fmt: skip
_JOBS = "panollava.dag.jobs"


def _changes_nothing(module: str) -> bool:
    return module == "panollava" or any(module == one or module.startswith(f"{one}.") for one in _NO_RESULT[1:])


@functools.cache
def _functions() -> dict[str, ast.FunctionDef]:
    """The functions of dag/jobs.py, by name."""
    return {node.name: node for node in parsed(_JOBS).body if isinstance(node, ast.FunctionDef)}


def job_functions(name: str) -> dict[str, ast.FunctionDef]:
    """A job's function, and those of its module that it calls."""
    found, todo = dict[str, ast.FunctionDef](), [name]
    while todo:
        one = todo.pop()
        if one in _functions() and one not in found:
            found[one] = _functions()[one]
            todo += [node.id for node in ast.walk(found[one]) if isinstance(node, ast.Name)]
    return found


def modules_of(node: str) -> list[str]:
    """Every module that a node's job imports, at once or in a function, and what these import."""
    found, todo = set[str](), list[str]()
    for function in job_functions(TABLE[node].job.__name__).values():
        todo += [module for module, _ in imports(function)]
    edges = graph(AT_ONCE, IN_FUNCTION)
    while todo:
        module = todo.pop()
        packages = [".".join(module.split(".")[:size]) for size in range(2, module.count(".") + 2)]
        for one in packages:
            if one in edges and one not in found and not _changes_nothing(one):
                found.add(one)
                todo += edges[one]
    return sorted(found)


@functools.cache
def _meaning(file: Path) -> bytes:
    """What a module does: comments, docstrings and layout do not count."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return f"{file.relative_to(SOURCE)}\n{_without_docstrings(tree)}".encode()


def _without_docstrings(tree: ast.AST) -> str:
    tree = copy.deepcopy(tree)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant() as docstring), *_]:
                docstring.value = ""
    return ast.dump(tree)


def files_of(node: str) -> list[Path]:
    """The modules' files, and what lies beside them that is no Python: templates, Java."""
    files = {modules()[module] for module in modules_of(node)}
    folders = {file.parent for file in files}
    for other in SOURCE.rglob("*"):
        if other.is_file() and other.suffix not in (".py", ".pyc", ".class"):
            package = next(folder for folder in other.parents if (folder / "__init__.py").is_file())
            if package in folders:
                files.add(other)
    return sorted(files)


def code_digest(node: str) -> str:
    """A digest of what a node's job and the modules behind it do."""
    digest = hashlib.sha256()
    for _, function in sorted(job_functions(TABLE[node].job.__name__).items()):
        digest.update(_without_docstrings(function).encode())
    for file in files_of(node):
        digest.update(_meaning(file))
    return digest.hexdigest()[:16]


def present(node: str) -> dict[str, object]:
    return {"version": VERSIONS[node], "code": code_digest(node)}


@pytest.mark.parametrize(
    ("node", "module"),
    [
        ("metrics", "evaluation.score_files"),
        ("metrics", "evaluation.metrics.spice_run"),
        ("train_finetune", "checkpoints.loading"),
        ("train_finetune", "training.initial_weights"),
        ("predict", "checkpoints.loading"),
        ("predict_rolled", "views.render"),
        ("measure_overlap", "evaluation.measures.overlap"),
        ("views", "views.sampling"),
        ("prepare", "data.download"),
        ("miniature_language", "miniature.tokenizer"),
        ("select_checkpoint", "checkpoints.folder"),
        ("compare", "evaluation.comparison.results"),
        ("compare_ablation", "evaluation.ablation"),
    ],
)
def test_a_nodes_code_is_what_its_job_imports(node: str, module: str) -> None:
    assert f"panollava.{module}" in modules_of(node)
    assert not any(_changes_nothing(one) for one in modules_of(node))


def test_every_job_is_a_function_of_one_module() -> None:
    assert {node.job.__module__ for node in TABLE.values()} == {_JOBS}
    assert all(node.job.__name__ in _functions() for node in TABLE.values())
    assert "_answer" in job_functions("predict") and "compare" not in job_functions("predict")


@pytest.mark.parametrize("node", VERSIONS)
def test_code_changed_with_a_decision(node: str) -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))[node]
    assert recorded == present(node), (
        f"the code behind {node} changed. If what it writes changes, raise its code_version in dag/nodes.py; "
        f"either way record the decision: python {Path(__file__).relative_to(Path(__file__).parents[2])}"
    )


def later_defaults() -> dict[str, Any]:
    """Defaults of the settings that slices leave out where they have it."""
    keys = {key for node in TABLE.values() for key in node.reads} - ALWAYS
    return {key: value_at(DEFAULTS, key) for key in sorted(keys)}


def test_what_slices_leave_out_stays_what_it_is() -> None:
    """A later setting's default (dag/always.py) is part of every slice that does not name it."""
    recorded = json.loads(DEFAULTS_RECORD.read_text(encoding="utf-8"))
    for key, default in later_defaults().items():
        readers = [name for name, node in TABLE.items() if key in node.reads]
        assert key in recorded, f"{key} is new: record its default (python tests/unit/test_code_versions.py)"
        assert recorded[key] == default, (
            f"{key} has another default than the slices that leave it out were made with. Raise the code_version of "
            f"{', '.join(readers)} in dag/nodes.py, remove the key from {DEFAULTS_RECORD.name} and record it anew"
        )


if __name__ == "__main__":
    RECORD.write_text(json.dumps({node: present(node) for node in VERSIONS}, indent=2) + "\n", encoding="utf-8")
    known = json.loads(DEFAULTS_RECORD.read_text(encoding="utf-8"))
    merged = {key: known.get(key, default) for key, default in later_defaults().items()}
    DEFAULTS_RECORD.write_text(json.dumps(merged, indent=2) + "\n", encoding="utf-8")
