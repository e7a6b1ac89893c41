"""Native models before any job and beside training: names, refusals while planning, full fine-tuning, overlap loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import language_folder, tiny_config, vision_folder
from tiny_vlms import vlm_folder

from panollava.config import WorkflowConfig
from panollava.config.names import vlm_token
from panollava.dag import native_check
from panollava.errors import ConfigError
from panollava.models.config import ModelConfig
from panollava.models.native_loading import quantization_config
from panollava.models.vlm import PanoramaVLM
from panollava.training import full_finetune
from panollava.training.full_finetune import MasterAdamW, refuse_without_memory, training_bytes

pytest.importorskip("torchvision", reason="native models need the extra `native`")


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen2.5-VL"),
        ("OpenGVLab/InternVL3_5-1B-HF", "InternVL3.5"),
        ("google/gemma-3-4b-it", "gemma-3"),
        ("LiquidAI/LFM2-VL-450M", "LFM2-VL"),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", "SmolVLM"),
        ("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava-onevision-qwen2"),
        ("zai-org/GLM-4.1V-9B-Thinking", "GLM-4.1V"),
        ("miniature/vlm", "vlm"),
        ("weights/my model", "my-model"),
    ],
)
def test_names_say_family_and_version_without_the_size(name: str, token: str) -> None:
    assert vlm_token(name) == token


def experiment(root: Path, vlm: str, **changes: Any) -> WorkflowConfig:
    document: dict[str, Any] = {
        "experiment": {"name": "N"}, "models": {"vlm_name": vlm}, "training": {"stages": []},
        "data": dict.fromkeys(("csv_train", "csv_val", "csv_test"), "synthetic"), **changes,
    }  # fmt: skip
    return WorkflowConfig.from_dict(document, root)


def planned(root: Path, vlm: str, **changes: Any) -> None:
    experiment(root, vlm, **changes).slice_of("select_checkpoint")


def test_a_family_is_refused_while_planning_with_what_it_lacks(tmp_path: Path) -> None:
    for family in ("llava_next", "llava_onevision", "llava", "deepseek_vl"):
        vlm_folder(tmp_path, family)
    with pytest.raises(ConfigError, match=r"llava_next \(LLaVA-NeXT\) cannot be used: its processor always cuts"):
        planned(tmp_path, "llava_next")
    with pytest.raises(ConfigError, match="resize gives 1 view, which LLaVA-OneVision would cut into tiles"):
        planned(tmp_path, "llava_onevision", image_processing={"crop_strategy": "resize"})
    with pytest.raises(ConfigError, match=r"image_size: \[64, 64\] does not fit llava.* takes \[56, 56\] alone"):
        planned(tmp_path, "llava", image_processing={"image_size": 64})
    planned(tmp_path, "deepseek_vl")  # in no table: every probe holds
    config = json.loads((tmp_path / "deepseek_vl/config.json").read_text(encoding="utf-8"))
    (tmp_path / "deepseek_vl/config.json").write_text(json.dumps({**config, "model_type": "git"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"GitForCausalLM takes no image features that were computed before"):
        planned(tmp_path, "deepseek_vl")


def test_what_is_not_installed_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = vlm_folder(tmp_path, "llava").name
    monkeypatch.setattr(native_check, "version", lambda package: "5.17.0")
    with pytest.raises(ConfigError, match=r"needs transformers 5\.18 or later.*5\.17\.0 is installed"):
        planned(tmp_path, folder)
    monkeypatch.setattr(native_check, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"needs the package torchvision.*pip install -e '\.\[native\]'"):
        planned(tmp_path, folder)


def test_quantised_weights_are_refused_where_they_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("panollava.models.native_loading.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=r"bitsandbytes is not installed: pip install -e '\.\[quant\]'"):
        quantization_config("4bit", torch.bfloat16)
    monkeypatch.setattr("panollava.models.native_loading.find_spec", lambda package: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="8bit cannot be used: this machine has no GPU"):
        quantization_config("8bit", torch.bfloat16)


def test_masters_keep_what_half_precision_would_lose() -> None:
    """Steps far below bfloat16's resolution add up, as in float32; a resumed optimiser goes on exactly."""

    def steps(count: int, optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter) -> None:
        for number in range(count):
            parameter.grad = torch.full_like(parameter, 1.0 + number % 3)
            optimizer.step()

    half, full = (torch.nn.Parameter(torch.ones(4, dtype=dtype)) for dtype in (torch.bfloat16, torch.float32))
    plain = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    groups = {"lr": 1e-4, "betas": (0.9, 0.98), "weight_decay": 0.0}
    master = MasterAdamW([{"params": [half], **groups}])
    steps(60, master, half)
    steps(60, torch.optim.AdamW([{"params": [full], **groups}]), full)
    steps(60, torch.optim.AdamW([{"params": [plain], **groups}]), plain)
    assert torch.equal(half, full.bfloat16()) and not torch.equal(plain, half)
    again = torch.nn.Parameter(half.detach().clone())
    resumed = MasterAdamW([{"params": [again], **groups}])
    resumed.load_state_dict(master.state_dict())
    steps(40, master, half)
    steps(40, resumed, again)
    assert torch.equal(half, again)


def test_full_finetuning_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Linear(1000, 1000, bias=False, dtype=torch.bfloat16)
    assert training_bytes(list(layer.parameters())) == 1_000_000 * (2 + 2 + 8 + 4)
    refuse_without_memory(layer)
    monkeypatch.setattr(full_finetune, "_memory", lambda: (2**20, "this GPU"))
    with pytest.raises(ConfigError, match=r"full_finetune: 1,000,000 weights .* this GPU has 0\.0 GiB"):
        refuse_without_memory(layer)


@pytest.mark.parametrize("features", ["tower", "connector"])
def test_a_composed_model_takes_the_overlap_loss_beside_the_answers(tmp_path: Path, features: str) -> None:
    vision_folder(tmp_path, "siglip")
    language_folder(tmp_path, "qwen3")
    settings = {"crop_strategy": "e2p", "overlap_features": features, "full_finetune": True}
    configs: list[ModelConfig] = [tiny_config(tmp_path, overlap_loss_weight=w, **settings) for w in (0.0, 0.5)]
    torch.manual_seed(0)
    plain = PanoramaVLM(configs[0])
    torch.manual_seed(0)
    model = PanoramaVLM(configs[1])
    assert model.stage_parts("finetune")[-1] == "language_model" and model.prompt is not None
    model.set_trainable(model.stage_parts("finetune"), 1)
    batch = model.prompt.collate([model.prompt.training("what is it?", "a red box", 40)], side="right")
    pixels = torch.randn(1, len(model.views), 3, 16, 16)
    found: Any = model(pixels, stage="finetune", **batch)
    wanted: Any = plain(pixels, stage="finetune", **batch)
    assert torch.equal(found["ar_loss"], wanted["loss"]) and "overlap_loss" not in wanted
    torch.testing.assert_close(found["loss"], found["ar_loss"] + 0.5 * found["overlap_loss"])
    model.zero_grad()
    found["overlap_loss"].backward()
    reached = {name for name, parts in model.named_part_parameters().items()
               if any(p.grad is not None and bool(p.grad.any()) for p in parts.values())}  # fmt: skip
    assert reached == ({"vision_encoder"} if features == "tower" else {"vision_encoder", "resampler"})
    model.eval()
    assert "overlap_loss" not in model(pixels, stage="finetune", **batch)
