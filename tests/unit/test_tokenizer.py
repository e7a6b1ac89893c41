"""Tokenizers that would end in the first batch, or for one question alone, are refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from family_folders import build_folder
from test_language_weights import changed
from tiny_models import language_folder, tiny_config, tokenizer, vision_folder

from panollava.cli.main import main
from panollava.config import Settings, WorkflowConfig
from panollava.dag.options import untracked
from panollava.errors import CheckpointError, ConfigError
from panollava.models.context import check_context
from panollava.models.language import LanguageModel
from panollava.models.tokenizer import load_tokenizer, tokens_beyond
from panollava.training.job import check_later_language


@pytest.fixture
def root(tmp_path: Path) -> Path:
    vision_folder(tmp_path, "siglip")
    language_folder(tmp_path, "qwen3")
    return tmp_path


def refused(root: Path, words: str) -> None:
    """Without any weight, and when the model is loaded."""
    for attempt in (lambda: check_context(tiny_config(root), {}), lambda: LanguageModel(str(root / "qwen3"))):
        with pytest.raises(ConfigError, match=words) as told:
            attempt()
        assert "\n" not in str(told.value)


def test_no_tokenizer_files(root: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (root / "qwen3" / name).unlink()
    refused(root, r"no tokenizer files|tokenizer cannot be loaded|its tokenizer")


def test_a_damaged_tokenizer_is_told_in_one_line(root: Path) -> None:
    document = json.loads((root / "qwen3/tokenizer_config.json").read_text(encoding="utf-8"))
    (root / "qwen3/tokenizer.json").unlink()
    document["tokenizer_class"] = "NobodysTokenizer"
    (root / "qwen3/tokenizer_config.json").write_text(json.dumps(document), encoding="utf-8")
    refused(root, "tokenizer")


def test_ids_beyond_the_embeddings(root: Path) -> None:
    words = tokenizer()
    words.add_tokens(["sphere-of-glass"])
    words.save_pretrained(root / "qwen3")
    refused(root, rf"tokens that its {len(words) - 1} embeddings lack: 'sphere-of-glass' \({len(words) - 1}\).*resize")


def test_control_tokens_that_nothing_writes_do_not_count(root: Path) -> None:
    words = tokenizer()
    words.add_special_tokens({"extra_special_tokens": ["<|image_pad|>"]}, replace_extra_special_tokens=False)
    assert tokens_beyond(words, len(words) - 1) == []
    words.pad_token = "<|image_pad|>"
    assert tokens_beyond(words, len(words) - 1) == [("<|image_pad|>", len(words) - 1)]
    words.save_pretrained(root / "qwen3")
    assert load_tokenizer(str(root / "qwen3"), None).pad_token == "<|image_pad|>"
    refused(root, "embeddings lack: '<|image_pad|>'".replace("|", r"\|"))


@pytest.mark.parametrize("fault", ["looks ahead", "unexpected weights", "matches nothing", "template"])
def test_the_vision_stage_finds_a_wrong_language_model_first(root: Path, fault: str) -> None:
    """Before anything trains; what it can use, it says and lets go."""
    document: dict[str, Any] = {
        "experiment": {"name": "E"}, "models": {"vision_name": "siglip", "language_model_name": "qwen3"},
    }  # fmt: skip
    if fault == "matches nothing":
        document["lora"] = {"target_modules": ["query_projection"]}
    config = WorkflowConfig.from_dict(document, root)
    job: Any = SimpleNamespace(
        stage="vision", root=root, untracked={"prompt": untracked(config)["prompt"]},
        config=Settings().model_dump(mode="json"),
    )  # fmt: skip
    words = {"matches nothing": r"target_modules names \['query_projection'\]"}.get(fault, fault)
    if fault == "looks ahead":
        build_folder(root, "bert")
        job.untracked["prompt"]["language_path"] = "bert"
    elif fault == "unexpected weights":
        changed(root / "qwen3", {"model.layers.0.mlp.up_proj.bias": torch.ones(40)})
    elif fault == "template":
        (root / "qwen3/chat_template.jinja").write_text(
            "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        )
        words = "never reads add_generation_prompt"
    with pytest.raises((ConfigError, CheckpointError), match=words):
        check_later_language(job)
    job.stage = "finetune"
    check_later_language(job)  # which loads the model itself


def test_a_usable_language_model_leaves_random_numbers_alone(root: Path) -> None:
    config = WorkflowConfig.from_dict(
        {"experiment": {"name": "E"}, "models": {"vision_name": "siglip", "language_model_name": "qwen3"}}, root
    )
    job: Any = SimpleNamespace(
        stage="vision", root=root, untracked={"prompt": untracked(config)["prompt"]},
        config=Settings().model_dump(mode="json"),
    )  # fmt: skip
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    check_later_language(job)
    assert torch.equal(torch.rand(2), wanted)
    job.untracked["prompt"] |= {"language_path": "cache/miniature/to-be-built"}
    check_later_language(job)


def test_a_language_model_can_be_checked_by_a_command(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(source: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["panollava", "models", "--check", source])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

    code, shown = check(str(root / "qwen3"))
    assert code == 0 and "can be used as models.language_model_name" in shown and "q_proj: 2 layers" in shown
    code, shown = check(str(build_folder(root, "bert")))
    assert code == 2 and "reads text in both directions" in shown
    assert check("nobody/knows")[0] == 1
