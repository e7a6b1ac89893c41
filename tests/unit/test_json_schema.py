"""config/schema.json, which editors use, allows what panollava reads and refuses what it refuses of a single key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from panollava.config.json_schema import json_schema
from panollava.config.schema import KEYS, Settings
from panollava.config.yaml_file import read_yaml

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
ROOT = Path(__file__).parents[2]
PROBES: list[Any] = [
    None, True, 0, 1, -1, 2, 7, 300, 10**9, 0.5, 1.5, -0.5, "", "x", "auto", "synthetic", [], ["x"], ["x", "x"], [1],
    [224, 224], ["finetune"], ["vision", "finetune"], ["bleu4"], ["bleu4", "bleu4"], ["a.b:c"], {}, {"a": 1}, "mlp",
    "bf16", "32-true", 16, "e2p", "miniature/siglip", "all", "ddp", "EXP 1", "EXP1", "x" * 200,
]  # fmt: skip


def has_own_validator(key: str) -> bool:
    """Whether more is said of a value than JSON Schema can say: some texts and lists pass there and not here."""
    section: Any = Settings
    *head, last = key.split(".")
    for name in head:
        section = section.model_fields[name].annotation
    field = section.model_fields[last]
    return "BeforeValidator" in f"{field.annotation} {field.metadata}"


@pytest.fixture(scope="module")
def validator() -> Any:
    document = json_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def property_of(validator: Any, key: str) -> dict[str, Any]:
    """What the schema says of a dotted key."""
    found: dict[str, Any] = validator.schema
    for name in key.split("."):
        found = found["properties"][name]
        if "$ref" in found:
            found = validator.schema["$defs"][found["$ref"].rpartition("/")[2]]
    return found


@pytest.mark.parametrize("name", ["default.yaml", "experiments/EXP1.yaml"])
def test_the_projects_own_files_fit(validator: Any, name: str) -> None:
    assert [error.message for error in validator.iter_errors(read_yaml(ROOT / "config" / name).values)] == []


def test_every_key_stands_in_it_with_what_it_means(validator: Any) -> None:
    for key in KEYS:
        found = property_of(validator, key)
        assert found["description"] and validator.evolve(schema=found).is_valid(found["default"]), key


def test_it_agrees_with_panollava_on_every_key_and_probe(validator: Any) -> None:
    config_mismatches = []
    for key in KEYS:
        for probe in PROBES:
            document: Any = probe
            for name in reversed(key.split(".")):
                document = {name: document}
            try:
                Settings.model_validate(document)
                ours = True
            except ValidationError:
                ours = False
            theirs = validator.is_valid(document)
            if theirs != ours and not (theirs and has_own_validator(key) and isinstance(probe, (str, list))):
                config_mismatches.append((key, probe))
    assert config_mismatches == []


@pytest.mark.parametrize(
    ("document", "word"),
    [
        ({"training": {"stages": ["tune"]}}, "tune"), ({"lora": {"rnak": 4}}, "rnak"), ({"lora": 5}, "5"),
        ({"experiment": {"name": "a/b"}}, "a/b"), ({"image_processing": {"image_size": [224]}}, "224"),
    ],
)  # fmt: skip
def test_it_refuses(validator: Any, document: Any, word: str) -> None:
    assert word in str([*validator.iter_errors(document)])


def test_deprecated_keys_are_marked(validator: Any) -> None:
    old = property_of(validator, "training.prefix")
    assert old["deprecated"] and "experiment.name" in old["description"]
    assert validator.is_valid({"training": {"prefix": "OLD"}, "paths": {"csv_train": "a.csv"}})
