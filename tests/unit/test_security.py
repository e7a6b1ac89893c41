"""What a stranger could send: names, configurations, checkpoints, models and addresses that want more than they may."""

from __future__ import annotations

import ast
import json
import logging
import os
import pickle
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import vision_folder
from transformers import dynamic_module_utils

from panollava.checkpoints import loading
from panollava.checkpoints.folder import METADATA, read_metadata
from panollava.checkpoints.loading import load_stage
from panollava.checkpoints.weights import load_weights
from panollava.cli.main import main
from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.config.names import (
    ExperimentNames,
    auto_name,
    checkpoint_name,
    dataset_token,
    language_token,
    token,
    vision_token,
)
from panollava.errors import CheckpointError, PanollavaError
from panollava.models.vision import VisionEncoder, describe_vision
from panollava.trust import may_run_code

SOURCE = Path(__file__).parents[2] / "src/panollava"
HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "..", ".", "", "a/../../b", "a\\..\\..\\b", "~root/x", "$(touch pwned)",
    "`touch pwned`", "a; touch pwned", "a && touch pwned", "a | tee pwned", "a\ntouch pwned", "a\0b", "-rf", "--help",
    "{experiment}", "{{7*7}}", "%s%n", "'; DROP TABLE", '"quoted"', "a b", "\u202egnp.exe", "ａ／ｂ", "é" * 300,
    "x" * 5000, "*", "?", "[a]", "con:", "https://h/x", "file:///etc/passwd",
]  # fmt: skip


class Sentinel:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


# ---- names -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_no_name_leaves_its_folder_or_means_anything_to_a_shell(text: str) -> None:
    parts = [
        token(text),
        vision_token(text),
        vision_token(text, patch_and_resolution=True),
        language_token(text),
        dataset_token(text or None, "x.csv"),
        dataset_token(None, text),
        dataset_token(None, [text, text]),
        auto_name(text, text, "mlp", "e2p", positional_encoding=True),
    ]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]*", part) for part in parts)
    names = ExperimentNames("E", parts[1], "mlp", "e2p", dict.fromkeys(("vision", "resampler", "finetune"), parts[4]),
                            ("vision", "resampler", "finetune"))  # fmt: skip
    for stage in names.stages:
        path = f"{names.stage_dir(stage)}/{checkpoint_name(names.checkpoint_prefix(stage), 0, 1.0)}"
        assert posixpath.normpath(path) == path and path.startswith(f"runs/E/{stage}/e2p_mlp/")


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:20]))
def test_an_experiments_name_is_refused_wherever_it_comes_from(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config/experiments").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"experiment\.name must"):
        WorkflowConfig.from_dict({"experiment": {"name": text}})
    with pytest.raises(ConfigError):
        Project(".").experiment(text)
    before = sorted(tmp_path.rglob("*"))
    for words in (["names"], ["status"], ["config", "show"], ["config", "diff", "x"]):
        monkeypatch.setattr("sys.argv", ["panollava", *words, "--", text])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2, words
        assert "Traceback" not in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


# ---- configurations ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.mkdir [{}]", "!!python/object/new:os.mkdir [{}]", "!!python/name:os.system {}",
     "!!python/module:os {}", "!<tag:yaml.org,2002:python/object/apply:os.mkdir> [{}]"],
)  # fmt: skip
def test_yaml_makes_no_objects(tmp_path: Path, text: str) -> None:
    (tmp_path / "E.yaml").write_text("experiment: {name: E}\nlora: " + text.format(tmp_path / "pwned") + "\n")
    with pytest.raises(ConfigError, match=r"the tag .* is not allowed"):
        WorkflowConfig.load(tmp_path / "E.yaml", tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["$(touch pwned)", "a b", "../x/..", "a;b", "-x", "/nowhere", "a/b/c"])
def test_what_is_no_model_is_refused_before_any_job(tmp_path: Path, name: str) -> None:
    for csv in ("train", "valid", "test"):
        (tmp_path / f"{csv}.csv").write_text("url,query,annotation\na.png,q,x\n")
    config = WorkflowConfig.from_dict(
        {
            "experiment": {"name": "E"},
            "models": {"vision_name": name},
            "data": {"csv_train": "train.csv", "csv_val": "valid.csv", "csv_test": "test.csv"},
        },
        tmp_path,
    )
    with pytest.raises(ConfigError, match=r"models\.vision_name must be a hub id \(owner/name\) or a folder"):
        config.slice_json("train_vision")


# ---- checkpoints and models --------------------------------------------------------------------------
def test_a_checkpoint_holds_tensors_and_runs_nothing(tmp_path: Path) -> None:
    trap = tmp_path / "pwned"
    for name, save in (("pickle.ckpt", _pickled), ("torch.ckpt", torch.save)):
        save({"panollava": {}, "state_dict": {"a": torch.zeros(1)}, "x": Sentinel(trap)}, tmp_path / name)
        with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
            load_weights(tmp_path / name)
    assert not trap.exists()


def test_safetensors_come_first_and_pickles_of_models_run_nothing(tmp_path: Path) -> None:
    folder, trap = vision_folder(tmp_path, "siglip"), tmp_path / "pwned"
    _pickled({"weights": Sentinel(trap)}, folder / "pytorch_model.bin")
    VisionEncoder(str(folder))
    (folder / "model.safetensors").unlink()
    with pytest.raises(PanollavaError) as caught:
        VisionEncoder(str(folder))
    assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An encoder that brings Python code, which makes a file when it is imported."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = vision_folder(tmp_path, "own-code")
    for module in folder.glob("*.py"):
        module.write_text(f"import os; os.makedirs({str(tmp_path / 'ran')!r}, exist_ok=True)\n" + module.read_text())
    return folder


def test_code_of_a_model_runs_only_by_its_key_and_the_log_names_it(
    own_code: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"own-code brings Python code of its own.*models\.trust_remote_code: true"):
        describe_vision(str(own_code))
    assert not (tmp_path / "ran").exists() and not caplog.records
    with caplog.at_level(logging.WARNING, "panollava"):
        describe_vision(str(own_code), (24, 16), trust_remote_code=True)
    assert (tmp_path / "ran").exists()
    assert f"models.trust_remote_code: Python code of {own_code} runs here" in caplog.text


class Reached(Exception):
    """The model would be built now."""


@pytest.mark.parametrize("allowed", [False, True])
def test_a_folder_of_weights_cannot_switch_foreign_code_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    folder = _stage_folder(tmp_path, model_config={"trust_remote_code": True})
    seen: list[bool] = []

    def build(config: Any, **_: object) -> None:
        seen.append(config.trust_remote_code)
        raise Reached

    monkeypatch.setattr(loading, "build_model", build)
    with pytest.raises(Reached):
        load_stage(folder, trust_remote_code=allowed)
    same = {"vision_name": "owner/vision", "language_model_name": "owner/language"}
    for models in ({**same}, {**same, "trust_remote_code": True},
                   {**same, "vision_name": "owner/other", "trust_remote_code": True}):  # fmt: skip
        config = WorkflowConfig.from_dict({"experiment": {"name": "E"}, "models": models})
        with pytest.raises(Reached):
            load_stage(folder, config=config)
    assert seen == [allowed, False, True, False]  # trust in one model is none in another


@pytest.mark.parametrize("stage", ["vision", "finetune"])
@pytest.mark.parametrize("backbones", [{}, {"vision": None}, {"vlm": None}])
@pytest.mark.parametrize("vlm", [None, "stranger/model"])
def test_trust_in_ones_own_models_is_none_in_those_that_a_folder_names(
    stage: str, backbones: dict[str, None], vlm: str | None
) -> None:
    """Whatever parts the folder tells of: each model that it has loaded must be the configuration's own."""
    models = {"vision_name": "owner/vision", "language_model_name": "owner/language", "trust_remote_code": True}
    config = WorkflowConfig.from_dict({"experiment": {"name": "E"}, "models": models})
    told = {"vision_name": "stranger/vision", "language_model_name": "owner/language", "vlm_name": vlm}
    assert not may_run_code({"stage": stage, "model_config": told, "backbones": backbones}, {}, config)
    own = {**told, "vision_name": "owner/vision", "vlm_name": None}
    assert may_run_code({"stage": stage, "model_config": own, "backbones": {"vision": None}}, {}, config)
    native = WorkflowConfig.from_dict(
        {"experiment": {"name": "E"}, "models": {"vlm_name": "owner/model", "trust_remote_code": True}}
    )
    own = {**told, "vlm_name": "owner/model"}
    assert may_run_code({"stage": "finetune", "model_config": own, "backbones": {"vlm": None}}, {}, native)


@pytest.mark.parametrize("name", ["../../../home", "/tmp/x", "a b", "", None, 5])
def test_a_folder_of_weights_cannot_choose_where_results_go(tmp_path: Path, name: Any) -> None:
    with pytest.raises(CheckpointError, match=r"checkpoint_metadata\.json: experiment\.name must"):
        read_metadata(_stage_folder(tmp_path, experiment_name=name))


@pytest.mark.parametrize("file", ["../other.ckpt", "/etc/passwd", "a/b.ckpt", ".."])
def test_a_folder_of_weights_names_only_its_own_files(tmp_path: Path, file: str) -> None:
    with pytest.raises(CheckpointError, match="a checkpoint's file must lie in the folder"):
        read_metadata(_stage_folder(tmp_path, epoch_info={"checkpoints": [{"file": file, "epoch": 0, "step": 1}]}))


def _stage_folder(root: Path, **changes: Any) -> Path:
    """Metadata of a stage that names a hub model, and a file that stands for its weights."""
    folder = root / "runs/E/finetune/e2p_mlp"
    folder.mkdir(parents=True)
    (folder / "best.ckpt").touch()
    document = {
        "experiment_name": "E",
        "stage": "finetune",
        "model_config": {
            "vision_name": "owner/vision",
            "language_model_name": "owner/language",
            "resampler_type": "mlp",
            "latent_dimension": 8,
            "image_size": [16, 16],
            **changes.pop("model_config", {}),
        },
        "training_config": {"precision": "32-true"},
        "dataset": {},
        "backbones": {"vision": None, "language": None},
        "processor": {},
        "remembered": {},
        "checkpoint_info": {"project_root": str(root)},
    }
    (folder / METADATA).write_text(json.dumps(document | changes))
    return folder


def _pickled(document: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(document))


# Composed by functions that quote each part (`shlex`), or fixed words.
QUOTED_BEFORE = ("params.options", "params.blind", "threads")


# ---- the code itself ---------------------------------------------------------------------------------
def test_the_code_calls_nothing_that_runs_what_it_reads() -> None:
    """No eval, no shell, no pickles, no YAML that makes objects, no weights that may hold more than tensors."""
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                forbidden = (
                    name in ("eval", "exec", "compile", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load")
                    or (name in ("pickle.load", "pickle.loads") and file.name != "distributed.py")
                    or keywords.get("shell", "False") != "False"
                    or (name == "torch.load" and keywords.get("weights_only") != "True")
                    or keywords.get("allow_pickle", "False") != "False"
                )
                if forbidden:
                    found.append(f"{file.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node)}")
    assert not found  # distributed.py: what a process of ours wrote into the pipe to its own child


def test_a_shell_is_never_on_the_way() -> None:
    """Every value that a rule puts into its command line is quoted."""
    rules = [file for file in (SOURCE.parents[1] / "workflow/rules").glob("*.smk") if file.name != "common.smk"]
    assert len(rules) >= 5  # common.smk holds functions only
    for file in rules:
        text = file.read_text(encoding="utf-8")
        for field in re.findall(r"\{((?:input|output|params|wildcards|log|threads|resources)[^}{]*)\}", text):
            assert field.endswith(":q") or field in QUOTED_BEFORE, f"{file.name}: {{{field}}}"
