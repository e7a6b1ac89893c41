"""The real lmms-eval asks a miniature checkpoint about a local task folder, and its samples are scored here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.score_files import score_csv
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM

pytest.importorskip(
    "lmms_eval", reason="lmms-eval is not installed: pip install -e '.[lmms-eval]', in an environment of its own"
)

TASK = """\
task: pano_tiny
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.picture
doc_to_text: !function utils.question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 6, temperature: 0, do_sample: false}}
process_results: !function utils.results
metric_list:
  - metric: right
    aggregation: !function utils.mean
    higher_is_better: true
metadata:
  - version: 0.0
"""
UTILS = """\
from pathlib import Path

from PIL import Image


def picture(doc):
    return [Image.open(Path(__file__).parent / doc["image"]).convert("RGB")] if doc["image"] else []


def question(doc, lmms_eval_specific_kwargs=None):
    return "<image> " + doc["question"]


def results(doc, said):
    return {"right": float(said[0].strip().casefold().startswith(doc["answer"]))}


def mean(values):
    return sum(values) / len(values)
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("miniature")
    vision_folder(root, "siglip")
    language_folder(root, "llama", seed=2)
    torch.manual_seed(0)
    model = PanoramaVLM(tiny_config(root, "siglip", "llama")).eval()
    model.save_pretrained(root / "exported")
    PanoramaProcessor.for_model(model.config, model.vision).save_pretrained(root / "exported")
    return root / "exported"


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks") / "pano_tiny"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for number in range(2):
        Image.fromarray(rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)).save(folder / f"p{number}.png")
        for question in ("is it day?", "is there a box?"):
            rows.append({"image": f"p{number}.png", "question": question, "answer": "yes", "answer_type": "yes_no",
                         "category": "sky" if "day" in question else "box"})  # fmt: skip
    rows.append({"image": "", "question": "is it day?", "answer": "no", "answer_type": "yes_no", "category": "sky"})
    data = folder / "questions.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (folder / "pano_tiny.yaml").write_text(TASK.format(data=data), encoding="utf-8")
    (folder / "utils.py").write_text(UTILS, encoding="utf-8")
    return folder.parent


def lmms_eval(task: Path, arguments: str, output: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "panollava", "--model_args", arguments, "--tasks", "pano_tiny",
        "--include_path", str(task), "--batch_size", "2", "--output_path", str(output), "--log_samples",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(output / "cache"),
                   "HF_HOME": str(output / "home")}  # fmt: skip
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=600)
    said = done.stdout + done.stderr
    assert not check or (done.returncode == 0 and "Error during evaluation" not in said), (
        said
    )  # it ends with 0 then too
    return done


def test_lmms_eval_asks_a_checkpoint_and_its_samples_are_scored_here(
    checkpoint: Path, task: Path, tmp_path: Path
) -> None:
    lmms_eval(task, f"checkpoint_dir={checkpoint}", tmp_path)
    (results,) = tmp_path.rglob("*_results.json")
    (samples,) = tmp_path.rglob("*_samples_pano_tiny.jsonl")
    told = json.loads(results.read_text(encoding="utf-8"))
    right = next(value for key, value in told["results"]["pano_tiny"].items() if key.startswith("right,"))
    rows = read_predictions(samples)
    assert len(rows) == 5 and {row["answer_type"] for row in rows} == {"yes_no"}
    assert "image_path" not in rows[0]  # one question has no picture, so rows are scored one by one
    said = [row["prediction"] for row in rows]
    assert all(said[:4])
    answers = [text.casefold().startswith(row["reference"]) for text, row in zip(said, rows, strict=True)]
    assert right == pytest.approx(sum(answers) / len(answers))
    _, document = score_csv(samples)
    assert document["num_samples"] == 5 and document["metrics"]["accuracy"]["value"] is not None

    # the same answers as ours, by the same folder
    from panollava.evaluation.answer import InferRequest, answer

    asked = InferRequest(task / "pano_tiny/p1.png", "is there a box?", checkpoint)
    assert answer(asked, {"max_new_tokens": 6})["text"] == said[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("checkpoint=x", "--model_args of panollava are checkpoint_dir, stage, epoch, step, batch_size"),
        ("stage=finetune", "checkpoint_dir=FOLDER"),
        ("checkpoint_dir=/nowhere", "/nowhere"),
    ],
)
def test_wrong_arguments_are_told(task: Path, tmp_path: Path, arguments: str, message: str) -> None:
    done = lmms_eval(task, arguments, tmp_path, check=False)
    assert message in done.stdout + done.stderr
