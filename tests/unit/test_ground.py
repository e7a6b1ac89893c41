"""The files that install the project agree with each other, and the README's commands exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from import_graph import AT_ONCE, FOR_TYPES, IN_FUNCTION, by_package, circles, graph, imports, package_of
from packaging.requirements import Requirement

from panollava.evaluation.environment import _CORE

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.lower().split("==") for line in lines if "==" in line)


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = pinned()
    extras = PROJECT["optional-dependencies"]
    for text in [*PROJECT["dependencies"], *extras["dev"], *extras["slurm"]]:
        requirement = Requirement(text)
        if requirement.name == "panollava":  # another extra of its own
            continue
        name = requirement.name.lower()
        assert name in pins, f"{name} is not in constraints.txt"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{text} excludes the pinned {pins[name]}"


def test_flash_attention_is_never_installed_by_the_way() -> None:
    """It compiles for minutes, and only where there is CUDA."""
    extras = PROJECT["optional-dependencies"]
    assert [Requirement(text).name for text in extras["flash"]] == ["flash-attn"] and "flash-attn" not in pinned()
    others = [text for name, texts in extras.items() if name != "flash" for text in texts]
    assert not any("flash" in text for text in [*PROJECT["dependencies"], *others])


def test_check_env_looks_for_what_is_depended_on() -> None:
    assert set(_CORE) <= {Requirement(text).name for text in PROJECT["dependencies"]}


def test_environment_yml_installs_the_project_by_its_own_files() -> None:
    document = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    plain = [entry for entry in document["dependencies"] if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in document["dependencies"] if isinstance(entry, dict))
    assert f"python{PROJECT['requires-python']}" in plain
    own = [text for text in pip if not text.startswith("-")] + [text for text in plain if text.startswith("pandas")]
    assert set(own) <= set(PROJECT["dependencies"]) and len(own) == 2
    assert [text for text in pip if text.startswith("-")] == ["-c constraints.txt", "-e .[dev]"]


def test_extras_of_the_readme_and_python_version_agree() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert PROJECT["requires-python"].removeprefix(">=") in readme
    for target in re.findall(r"^    make (\w+)", readme, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE), target


def test_commands_of_the_readme_are_known() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    environment = {**os.environ, "COLUMNS": "200"}
    commands = set(re.findall(r"^    panollava ([a-z-]+)", readme, flags=re.MULTILINE))
    assert {"run", "eval", "names"} <= commands
    help_text = subprocess.run(
        [sys.executable, "-m", "panollava", "--help"], capture_output=True, text=True, check=True, env=environment
    ).stdout
    for command in commands:
        assert re.search(rf"│ {command}\s", help_text), command


def test_importing_the_package_and_its_configuration_is_light() -> None:
    code = (
        "import sys, panollava, panollava.config; "
        "print(sorted({'torch', 'numpy', 'pandas', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Upward imports inside functions, each for a public name that loads what stands above it, or a check that asks there.
ASKED_FOR_ABOVE = {
    ("panollava.config.workflow_config", "panollava.dag.slices"): "cfg.digest(node) is public",
    ("panollava.config.workflow_config", "panollava.dag.parents"): "cfg.backbone_folder(part)",
    ("panollava.config.workflow_config", "panollava.config.project"): "WorkflowConfig.load takes a name too",
    ("panollava.config.fingerprints", "panollava.data.details"): "the fingerprint of a CSV names its pictures",
    ("panollava.config.fingerprints", "panollava.data.formats"): "the fingerprint of a CSV names its pictures",
    ("panollava.config.fingerprints", "panollava.data.formats.rows"): "the fingerprint of a CSV names its pictures",
    ("panollava.config.fingerprints", "panollava.data.tables"): "the fingerprint of a CSV names its pictures",
    ("panollava.config.encoder_check", "panollava.models.vision"): "whether an image size fits is the encoder's",
    ("panollava.config.encoder_check", "panollava.models.vision_families"): "whether an image size fits",
    ("panollava.hub", "panollava.hub.config"): "the package registers its classes once transformers is there",
    ("panollava.hub", "panollava.hub.model"): "the package registers its classes once transformers is there",
    ("panollava.hub.model", "panollava.models.vlm"): "transformers' Auto classes name the model before it is needed",
    ("panollava.hub.processor", "panollava.models.processor"): "transformers' Auto classes name the processor",
    ("panollava.models.native", "panollava.models.native_saving"): "NativeVLM.save_pretrained is public",
    ("panollava.models.vlm", "panollava.checkpoints.loading"): "PanoramaVLM.from_checkpoint is public",
}
CHOICES = "panollava.models.choices"  # names alone: it imports nothing, so it stands below everything


def without(edges: dict[str, frozenset[str]], *left_out: tuple[str, str]) -> dict[str, frozenset[str]]:
    return {
        name: frozenset(o for o in others if (name, o) not in left_out and o not in (CHOICES, "panollava"))
        for name, others in edges.items()
        if name not in (CHOICES, "panollava")
    }


def test_nothing_lower_knows_anything_higher() -> None:
    """No circle of imports, neither of modules nor of packages, with those inside functions; a few are named above."""
    assert not graph(AT_ONCE, IN_FUNCTION)[CHOICES]
    at_once = without(graph(AT_ONCE))
    assert circles(at_once) == [] == circles(by_package(at_once))
    everything = without(graph(AT_ONCE, IN_FUNCTION), *ASKED_FOR_ABOVE)
    assert circles(everything) == [] == circles(by_package(everything))


# What each package may not know, in whatever way it is imported.
ABOVE = {
    "views": ("config", "data", "models", "checkpoints", "training", "evaluation"),
    "models": ("config", "data", "checkpoints", "training", "evaluation", "dag"),
    "checkpoints": ("data", "training", "evaluation", "reports", "dag"),
    "training": ("evaluation", "reports", "dag"),
    "evaluation": ("training", "reports", "dag", "serve"),
    "reports": ("training", "dag"),
}


@pytest.mark.parametrize("package", ABOVE)
def test_a_package_knows_nothing_of_those_above_it(package: str) -> None:
    """A stage folder lies below training and evaluation, which do not know each other."""
    for module, others in without(graph(AT_ONCE, IN_FUNCTION), *ASKED_FOR_ABOVE).items():
        if package_of(module) == package:
            assert not {package_of(other) for other in others} & set(ABOVE[package]), module


def test_only_builders_import_whole_models() -> None:
    """Who counts views or tokens asks `models.shapes`, who holds a model knows it as a `PanoramaModel`."""
    edges = without(graph(AT_ONCE, IN_FUNCTION), ("panollava.hub.model", "panollava.models.vlm"))
    for whole in ("panollava.models.vlm", "panollava.models.native"):
        importers = {module for module, others in edges.items() if whole in others}
        assert importers <= {"panollava.models.build", "panollava.models.native_saving"}, whole


def test_the_exceptions_are_still_there_and_needed() -> None:
    in_functions = graph(IN_FUNCTION)
    for one, other in ASKED_FOR_ABOVE:
        assert other in in_functions[one], f"{one} no longer imports {other}: remove it here"


@pytest.mark.parametrize(
    ("line", "kinds"),
    [
        ("from panollava import cli, training", [("panollava.cli", AT_ONCE), ("panollava.training", AT_ONCE)]),
        ("import panollava.views.jpeg", [("panollava.views.jpeg", AT_ONCE)]),
        ("def f():\n    from panollava.cli import main", [("panollava.cli.main", IN_FUNCTION)]),
        ("class C:\n    def f(self):\n        import panollava.cli", [("panollava.cli", IN_FUNCTION)]),
        ("if TYPE_CHECKING:\n    from panollava.config import Project", [("panollava.config", FOR_TYPES)]),
        ("try:\n    import panollava.zoo\nexcept ImportError: ...", [("panollava.zoo", AT_ONCE)]),
        ("import os\nfrom pathlib import Path", []),
    ],
)
def test_every_kind_of_import_is_seen(line: str, kinds: list[tuple[str, str]]) -> None:
    assert list(imports(ast.parse(line))) == kinds
