"""What is wrong with a language model's folder stands in the plan, wherever its JSON and its file names tell."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import LOCAL, with_changes
from family_folders import FAMILIES, build_folder
from tiny_models import language_folder

from panollava.config import WorkflowConfig
from panollava.config.language_folder import causal_types, language_folder_problem
from panollava.errors import ConfigError


def changed(folder: Path, **values: Any) -> Path:
    document = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**document, **values}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "bert"}, "is a bert, which reads text in both directions"),
        ({"model_type": "bert", "is_decoder": True}, None),
        ({"model_type": "xlnet"}, "is a xlnet, which reads text in both directions"),
        ({"model_type": "qwen2_5_vl", "text_config": {"model_type": "qwen2_5_vl_text"}}, r"models\.vlm_name"),
        ({"model_type": "llava", "text_config": {"model_type": "llama", "vocab_size": 999}}, None),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by gptq, whose package is not installed"),
        ({"quantization_config": {"quant_method": "awq"}}, "pip install gptqmodel"),
        pytest.param(
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            "quantised by bitsandbytes",
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed"),
        ),
        ({"vocab_size": 200}, r"ids go up to \d+ \('.*'\), beyond its 200 embeddings"),
        ({}, None),
    ],
)
def test_the_configuration_tells(tmp_path: Path, values: dict[str, Any], words: str | None) -> None:
    found = language_folder_problem(changed(language_folder(tmp_path, "llama"), **values))
    if words is None:
        assert found is None
    else:
        assert found is not None and "\n" not in found
        assert re.search(words, found), found


def test_files_tell(tmp_path: Path) -> None:
    folder = language_folder(tmp_path, "qwen3")
    (folder / "adapter_config.json").write_text("{}")
    assert "adapter_config.json beside its weights" in str(language_folder_problem(folder))
    (folder / "adapter_config.json").unlink()
    for path in (*folder.glob("tokenizer*"), *folder.glob("*.jinja")):
        path.unlink()
    assert "has no tokenizer files" in str(language_folder_problem(folder))


def test_the_plan_says_which_key(tmp_path: Path) -> None:
    changed(language_folder(tmp_path, "qwen3"), model_type="xlnet")
    values = {"models.language_model_name": "qwen3", "experiment.name": "E"}
    config = WorkflowConfig.from_dict(with_changes(LOCAL, values), tmp_path)
    with pytest.raises(ConfigError, match=r"models\.language_model_name: qwen3 is a xlnet"):
        config.slice_of("train_finetune")


def test_folders_that_say_nothing_are_left_alone(tmp_path: Path) -> None:
    for text in ("{}", "no json", '["a"]'):
        (tmp_path / "config.json").write_text(text)
        assert language_folder_problem(tmp_path) is None
    assert language_folder_problem(tmp_path / "absent") is None


def test_families_are_those_of_the_installed_transformers() -> None:
    assert causal_types() == set(FAMILIES)


@pytest.mark.parametrize("family", ["gemma3_text", "rwkv", "gpt2", "lfm2"])
def test_usable_families_pass(tmp_path: Path, family: str) -> None:
    assert language_folder_problem(build_folder(tmp_path, family)) is None


def test_planning_needs_no_torch() -> None:
    code = "import sys, panollava.config.language_folder as f; f.causal_types(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
