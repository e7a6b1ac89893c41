"""The files that install the project agree with each other, and the README's commands exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import yaml
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
    assert {
        "dev",
        "wandb",
        "tensorboard",
        "slurm",
        "flash",
        "serve",
        "heic",
        "native",
        "quant",
        "datasets",
    } == extras.keys()
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


def test_nothing_lower_knows_anything_higher() -> None:
    """No circle of imports between the packages. (Inside functions a public name may load what stands above it.)"""
    source = ROOT / "src/panollava"
    knows: dict[str, set[str]] = {}
    for file in source.rglob("*.py"):
        package = file.relative_to(source).parts[0].removesuffix(".py")
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.startswith("panollava.") and module != "panollava.models.choices":  # that imports nothing
                knows.setdefault(package, set()).add(module.split(".")[1])
    TopologicalSorter({package: others - {package} for package, others in knows.items()}).prepare()  # raises CycleError
