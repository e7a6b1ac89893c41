"""docs/extending.md: a crop strategy, a resampler, a benchmark, a metric and a setting, as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_models import language_folder, tiny_config, vision_folder

from panollava import WorkflowConfig, compute_text_metrics
from panollava.data import formats
from panollava.data.prepare import prepare_csv
from panollava.data.samples import read_rows
from panollava.evaluation.score import score_predictions
from panollava.models.choices import STAGES, Stage
from panollava.models.resamplers import RESAMPLERS
from panollava.models.shapes import count_image_tokens
from panollava.models.stages import freeze_for_stage
from panollava.models.vlm import PanoramaVLM
from panollava.views import strategies
from panollava.views.render import render_views
from panollava.views.strategies import CROP_STRATEGIES, neighbour_pairs, plan_views

ROOT = Path(__file__).parents[2]


def examples(heading: str, language: str = "python") -> list[str]:
    text = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = (part for part in section if part.startswith(f"{heading}\n"))
    return re.findall(rf"```{language}\n(.*?)```", found, re.DOTALL)


# ---- a crop strategy -----------------------------------------------------------------------------
def test_a_strategy_from_its_views_to_what_follows_from_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "CROP_STRATEGIES", dict(CROP_STRATEGIES))
    names = vars(strategies).copy()
    for block in examples("A crop strategy"):
        exec(block, names)
    views = plan_views("two_rings", fov_deg=80.0, overlap_ratio=0.3)
    assert [view.pitch_deg for view in views] == [30.0] * 7 + [-30.0] * 7
    assert neighbour_pairs(views)[:8] == [*zip(range(7), [1, 2, 3, 4, 5, 6, 0], strict=True), (7, 8)]
    assert (0, 7) in neighbour_pairs(views)
    panorama = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    first, rolled = (
        render_views(picture, plan_views("two_rings"), (8, 8)) for picture in (panorama, np.roll(panorama, 64, 1))
    )
    np.testing.assert_array_equal(np.roll(first.reshape(2, 8, 8, 8, 3), 4, 1), rolled.reshape(2, 8, 8, 8, 3))


# ---- a resampler ---------------------------------------------------------------------------------
@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> Any:
    names: dict[str, Any] = {"__name__": "pooled"}
    for block in examples("A resampler"):
        exec(block, names)
    monkeypatch.setitem(RESAMPLERS, "pooled", names["PooledResampler"])
    return names["PooledResampler"]


@pytest.mark.parametrize("grid", [(4, 6), (3, 3)])
def test_a_token_is_the_mean_of_its_patches(pooled: Any, grid: tuple[int, int]) -> None:
    resampler = pooled(5, 5, grid)
    torch.nn.init.eye_(resampler.skip.weight)
    torch.nn.init.zeros_(resampler.mlp[2].weight)
    torch.nn.init.zeros_(resampler.mlp[2].bias)
    tokens, positions = torch.randn(2, 3, grid[0] * grid[1], 5), torch.randn(3, grid[0] * grid[1], 5)
    out = resampler(tokens, positions)
    assert out.shape == (2, 3, resampler.num_tokens, 5)
    seen = (resampler.norm(tokens) + positions).unflatten(2, grid)  # [2, 3, rows, columns, 5]
    torch.testing.assert_close(out[:, :, 0], seen[:, :, :2, :2].mean(dim=(2, 3)))
    torch.testing.assert_close(out[:, :, -1], seen[:, :, -2:, -2:].mean(dim=(2, 3)))


def test_it_takes_part_in_every_stage(pooled: Any, tmp_path: Path) -> None:
    vision_folder(tmp_path, "siglip")
    language_folder(tmp_path, "qwen3")
    config = tiny_config(tmp_path, stitching_mode="drop_overlap").model_copy(update={"resampler_type": "pooled"})
    pixels = torch.randn(2, 9, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    for stage in STAGES:
        torch.manual_seed(0)
        model = PanoramaVLM(config, with_language=stage != "vision")
        losses = train(model, stage, pixels)
        assert losses[-1] < losses[0], (stage, losses)
    assert model.encode_panorama(model.encode_vision(pixels)).shape[1] == count_image_tokens(config)
    assert len(model.generate(pixels, ["what?", "where?"], max_new_tokens=3)["text"]) == 2


def train(model: PanoramaVLM, stage: Stage, pixels: torch.Tensor, steps: int = 4) -> list[float]:
    freeze_for_stage(model, stage, 0)
    batch: dict[str, Any] = {}
    if model.prompt is not None:
        rows = [model.prompt.training("what?", answer, 32) for answer in ("a red box", "a blue sphere")]
        batch = dict(model.prompt.collate(rows, "right"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(pixels, **batch, stage=stage)["loss"]
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- a benchmark ---------------------------------------------------------------------------------
def test_a_benchmark_from_its_file_to_its_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    file, entry = examples("A benchmark")
    names: dict[str, Any] = {"__name__": "rooms", "FORMATS": formats.FORMATS}
    exec(file, names)
    exec(entry, names)
    formats.FORMATS = {"rooms": formats.FORMATS.pop("rooms"), **formats.FORMATS}  # before csv, as its file has it
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 8)).save("a.png")
    Path("kitchen.rooms").write_text("a.png | How many chairs? | 4\na.png | How many?\n", encoding="utf-8")
    prepare_csv(["kitchen.rooms"], "p.csv", "r.csv", max_rejected_fraction=1, progress=False)
    (row,) = read_rows("p.csv")
    assert (row.query, row.annotation, row.details.sample_id) == ("How many chairs?", "4", "kitchen/1")
    assert "expected image | question | answer" in Path("r.csv").read_text(encoding="utf-8")
    line = {"image_path": "a.png", "original_query": row.query, "reference": "4", **row.details.to_fields()}
    found = score_predictions([{**line, "prediction": "three"}], metrics="auto").metrics
    assert (found["accuracy"].value, found["mean_score"].value) == (0, 0.75)
    assert found["accuracy"].signature == "rule rooms/count" and found["accuracy.rooms"].value == 0


# ---- a metric ------------------------------------------------------------------------------------
def test_a_metric_in_a_file_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (code, *_), (settings,) = examples("A metric"), examples("A metric", "yaml")
    Path("my_metrics.py").write_text(code, encoding="utf-8")
    config = WorkflowConfig.from_dict({"experiment": {"name": "A"}, **yaml.safe_load(settings)}, tmp_path)
    (metric,) = config.settings.evaluation.custom_metrics
    answers, references = ["a red box", "sky"], [["a red box"], ["the sky"]]
    found = compute_text_metrics(answers, references, metrics=["bleu4"], custom_metrics=[metric])["words"]
    assert (found["value"], found["scale"]) == (2.0, "0 or more")


_METRIC = """
from panollava.config import WorkflowConfig
from panollava.evaluation.score import score_predictions

def report(said):
    same = {"original_query": "q", "reference": "a red box"}
    rows = [{**same, "image_path": f"{number}.png", "prediction": text} for number, text in enumerate(said)]
    return score_predictions(rows, metrics=cfg.settings.evaluation.metrics, bootstrap_samples=50)

cfg = WorkflowConfig.from_dict({"experiment": {"name": "A"}, "evaluation": {"metrics": ["rouge_l", "chrf"]}})
found = report(["a red box", "a red ball", "sky"] * 3).metrics["chrf"]
low, high = found.interval
assert 0 < low < found.value < high < 1 and found.signature.startswith("nrefs:1|chars|nc:6|"), found
assert report(["a red box"] * 6).metrics["chrf"].value == 1
"""


def test_a_standard_metric_is_a_module_and_two_names(tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "src/panollava", tmp_path / "src/panollava")
    _, module, entry = examples("A metric")
    (package / "evaluation/metrics/chrf.py").write_text(module, encoding="utf-8")
    assert entry == 'METRICS["chrf"] = CHRF2\n'
    changes = {
        "evaluation/metrics/__init__.py": [
            (", CIDER)", ", CIDER, CHRF2)"),
            ("\nMETRICS", "from panollava.evaluation.metrics.chrf import CHRF2\n\nMETRICS"),
        ],
        "settings/choices.py": [('"cider"]', '"cider", "chrf"]')],
    }
    for name, replacements in changes.items():
        for old, new in replacements:
            before = (package / name).read_text(encoding="utf-8")
            (package / name).write_text(before.replace(old, new, 1), encoding="utf-8")
            assert (package / name).read_text(encoding="utf-8") != before, old
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run([sys.executable, "-c", _METRIC], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- a node of the DAG ---------------------------------------------------------------------------
def test_a_nodes_entry_stands_in_the_table_as_it_is() -> None:
    """That it works is shown by tests/workflow/test_new_node.py."""
    _, entry, script = examples("A node of the DAG")
    assert entry.startswith("    Node(") and entry.endswith("    ),\n")
    compile(f"NODES = (\n{entry})", "nodes.py", "exec")
    compile(script, "count_words.py", "exec")


# ---- a setting -----------------------------------------------------------------------------------
_SETTING = """
from panollava.config import WorkflowConfig
from panollava.config.default_file import default_yaml
from panollava.dag.nodes import TABLE, earliest_node
from panollava.models.config import ModelConfig
from panollava.models.stage_config import stage_model_config

key = "image_processing.view_gap"
assert "# Blank tokens between two views. In [0, 64]; typically in [0, 4]." in default_yaml()
assert [name for name, node in TABLE.items() if key in node.reads] == ["train_resampler", "train_finetune"]
assert earliest_node(key) == "train_resampler" and ModelConfig(view_gap=3).view_gap == 3
cfg = WorkflowConfig.from_dict({"experiment": {"name": "A"}, "data": dict.fromkeys(
    ("csv_train", "csv_val", "csv_test"), "synthetic"), "models": {
    "vision_name": "miniature/siglip", "language_model_name": "miniature/qwen3"}})
changed = cfg.with_values({key: 3})
assert "view_gap" not in cfg.slices.text("train_finetune")  # nobody's results become stale
stale = {node: cfg.digest(node) != changed.digest(node) for node in ("train_vision", "train_resampler")}
assert stale == {"train_vision": False, "train_resampler": True}
found = stage_model_config("finetune", changed.slice_of("train_finetune")["config"], (8, 8), None, None)
assert found.view_gap == 3
"""


def test_a_setting_of_the_model_is_one_field_in_one_file(tmp_path: Path) -> None:
    package = shutil.copytree(ROOT / "src/panollava", tmp_path / "src/panollava")
    (field,) = examples("A setting")
    file = package / "settings/model.py"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("    view_labels: bool", f"{field}    view_labels: bool"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != before
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run([sys.executable, "-c", _SETTING], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
