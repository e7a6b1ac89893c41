"""Questions with right answers through the DAG: accuracy, both controls, the pages; OSR-Bench's rooms as they come."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import SHARED, Project
from plans import plan

pytestmark = pytest.mark.workflow

ROOMS = SHARED / "data/osr"
ROWS = (
    "image_path,question,answer,answer_type,A,B,category\n"
    "{0},Is it day?,yes,yes_no,,,seen\n{0},Which?,B,,left,right,side\n{0},How many?,2,number,,,count\n"
    "{1},Is it day?,no,yes_no,,,seen\n{1},Where?,behind,direction,,,side\n{1},Say it.,a red box,text,,,\n"
)


def metrics_of(project: Project) -> dict[str, Any]:
    path = project.root / f"results/{project.name}/metrics.json"
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_questions_from_a_csv_to_the_report(local: Project) -> None:
    with (local.root / "data/train.csv").open(encoding="utf-8", newline="") as stream:
        pictures = list(dict.fromkeys(next(iter(row.values())) for row in csv.DictReader(stream)))
    (local.root / "data/questions.csv").write_text(ROWS.format(pictures[0], pictures[-1]), encoding="utf-8")
    local.configure({"data.csv_test": "data/questions.csv", "evaluation.blind_control": True})
    results = local.root / f"results/{local.name}"
    local.panollava("run", local.name)
    document = metrics_of(local)
    assert document["num_samples"] == 6 and 0 <= document["num_unreadable"] <= 5
    assert {"bleu4", "accuracy", "accuracy_macro", "accuracy.seen", "accuracy.side"} <= document["metrics"].keys()
    assert document["controls"]["text_only"].keys() == document["metrics"].keys()
    with (results / "predictions_text_only.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["answer_type"] for row in rows] == ["yes_no", "choice", "number", "yes_no", "direction", ""]
    assert rows[1]["options"] == '["left", "right"]' and rows[0]["prediction"] == rows[3]["prediction"]  # same text
    page = (results / "report_metrics.html").read_text(encoding="utf-8")
    assert "text only" in page and "Answers where each is true: choice" in page
    assert plan(local) == {}
    local.configure({"data.csv_test": "data/questions.csv", "evaluation.number_tolerance": 0.5})
    assert plan(local) == {"compute_metrics": 1}  # without the blind control, too
    out = local.root / "by hand"
    local.panollava(
        "eval", "--checkpoint-dir", f"runs/{local.name}", "--csv-input", "data/questions.csv", "--output-dir", str(out)
    )
    again = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert again["metrics"]["accuracy"]["value"] == document["metrics"]["accuracy"]["value"]
    assert again["controls"]["text_only"]["accuracy"] == document["controls"]["text_only"]["accuracy"]


def test_a_judge_from_the_yaml_to_the_report(local: Project) -> None:
    language = str(local.base["models"]["language_model_name"])
    judged = {"evaluation.judge.model": language, "evaluation.judge.max_new_tokens": 2}
    local.panollava("run", local.name)
    before = metrics_of(local)
    assert "judge" not in before["metrics"] and not (local.root / "cache/judge").exists()
    local.configure(judged)
    assert plan(local) == {"judge": 1, "compute_metrics": 1}
    local.panollava("run", local.name)
    document = metrics_of(local)
    score = document["metrics"].pop("judge")
    assert score["signature"].startswith(f"{language}; weights ") and score["scale"] == "0-100"
    assert document["num_unjudged"] <= document["num_samples"] and document["metrics"] == before["metrics"]
    assert (score["value"] is None) == (document["num_unjudged"] == document["num_samples"])
    assert document["provenance"]["measures"].keys() == {"judge.json"}
    assert "judge" in (local.root / f"results/{local.name}/report_metrics.html").read_text(encoding="utf-8")
    replies = list((local.root / "cache/judge").glob("*/replies.jsonl"))
    assert len(replies) == 1 and plan(local) == {}
    (local.root / "prompt.txt").write_text("{question}\n{reference}\n{answer}\n", encoding="utf-8")
    local.configure({**judged, "evaluation.judge.prompt_file": "prompt.txt"})
    assert plan(local) == {"judge": 1, "compute_metrics": 1}
    local.configure({})
    assert plan(local) == {"compute_metrics": 1}


@pytest.mark.skipif(not ROOMS.is_dir(), reason="the OSR-Bench rooms are not on this machine")
def test_rooms_of_osr_bench_with_their_pictures(local: Project) -> None:
    rooms = {f"data.csv_{split}": str(ROOMS) for split in ("train", "val", "test")}
    local.configure({**rooms, "training.stage_configs.finetune.max_text_length": 64, "generation.max_new_tokens": 3})
    local.panollava("run", local.name)
    document = metrics_of(local)
    skills = ("cognitive_map", "object_counting", "relative_distance", "relative_direction")
    assert {f"accuracy.{skill}" for skill in skills} <= document["metrics"].keys()
    assert document["metrics"]["accuracy"]["signature"].count("rule osr_bench/") == 4
    rejected = (local.root / f"results/{local.name}/prepared/rejected.csv").read_text(encoding="utf-8")
    assert "missing value: answer" in rejected
    assert Path(ROOMS).is_dir() and document["num_samples"] > 50
