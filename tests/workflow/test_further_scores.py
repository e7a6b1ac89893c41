"""Further scores through the DAG: planned where they are asked for, each made again exactly when it is stale."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from browser import open_report
from conftest import Project
from plans import plan

from panollava.evaluation.measures import EXTRA_NODES

pytestmark = pytest.mark.workflow

EXTRA = list(EXTRA_NODES)
MEASURES = {"measure_overlap": 1, "measure_perplexity": 1, "predict_rolled": 1}


def read(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    document: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text(encoding="utf-8"))
    return document


def test_further_scores_from_the_yaml_to_the_report(project: Project, tmp_path: Path) -> None:
    root, results = project.root, project.root / "results/SMALL"
    before = read(results / "metrics.json")
    project.configure({"evaluation.extra": EXTRA})
    assert plan(project) == {**MEASURES, "compute_metrics": 1}
    project.panollava("run", "SMALL")

    document = read(results / "metrics.json")
    assert list(document["metrics"]) == [*before["metrics"], *EXTRA] == list(document["controls"]["blind"])
    assert {key: document["metrics"][key] for key in before["metrics"]} == before["metrics"]
    for key in EXTRA:
        metric, blind = document["metrics"][key], document["controls"]["blind"][key]
        assert metric["value"] is not None and blind is not None and metric["library"] == "panollava"
        assert "interval" not in metric  # of three panoramas there is none
    assert set(document["provenance"]["measures"]) == {"perplexity.json", "overlap.json", "predictions_rolled.csv"}
    samples = read(results / "measures/perplexity.json")["samples"]
    assert len(samples["nll"]) == document["num_samples"] and min(samples["nll"]) > 0
    with (results / "predictions_rolled.csv").open(encoding="utf-8", newline="") as stream:
        asked = list(csv.DictReader(stream))
    assert {row["turn_deg"] for row in asked} == {"90.0", "180.0", "270.0"}
    assert any(row["asked"] != row["original_query"] for row in asked)

    # by hand, from the folder alone: the same numbers
    project.panollava(
        "eval", "--checkpoint-dir", "runs/SMALL/finetune/anyres-e2p_mlp", "--extra", ",".join(EXTRA),
        "--output-dir", str(tmp_path / "out"),
    )  # fmt: skip
    by_hand = read(tmp_path / "out/metrics.json")
    for key in EXTRA:
        assert by_hand["metrics"][key] == document["metrics"][key], key
        assert by_hand["controls"]["blind"][key] == document["controls"]["blind"][key], key
    assert (tmp_path / "out/measures/overlap.png").is_file()

    # exactly what is stale
    assert plan(project) == {}
    both = {"evaluation.extra": EXTRA}
    predictions = {"predict": 1, "predict_blind": 1, "predict_rolled": 1, "compute_metrics": 1}
    for changes, expected in [
        ({"generation.max_new_tokens": 5, **both}, predictions),
        ({"training.eval_batch_size": 3, **both}, {**predictions, "measure_perplexity": 1}),
        ({"evaluation.extra": ["perplexity"]}, {"compute_metrics": 1}),
        ({"evaluation.extra": []}, {"compute_metrics": 1}),
        ({"evaluation.blind_control": False, **both}, {"compute_metrics": 1}),
    ]:
        project.configure(changes)
        assert plan(project) == dict(sorted(expected.items())), changes
    project.configure(both)
    for node in MEASURES:
        (tmp_path / "sitecustomize.py").write_text(
            "import sys\n"
            "if 'snakemake' in ' '.join(sys.orig_argv):\n"
            "    from dataclasses import replace\n"
            "    from panollava.dag.nodes import TABLE\n"
            f"    old = TABLE[{node!r}]\n"
            f"    TABLE[{node!r}] = replace(old, code_version=old.code_version + 1)\n"
        )
        assert plan(project, env={"PYTHONPATH": str(tmp_path)}) == dict(sorted({node: 1, "compute_metrics": 1}.items()))
    picture = results / "measures/overlap.png"
    kept = picture.rename(tmp_path / "overlap.png")
    assert plan(project, ["results/SMALL/measures/overlap.png"]) == {"measure_overlap": 1}
    kept.rename(picture)

    project.call("snakemake", "--report", "results/report.html", "--", "results/SMALL/metrics.json")
    seen = open_report(root / "results/report.html", tmp_path)
    (plot,) = (entry for entry in seen["entries"] if entry["label"] == "agreement of overlapping views")
    assert plot["category"] == "Metrics" and plot["kind"] == "image" and plot["width"] > 1000
    (scores,) = (entry for entry in seen["entries"] if entry["label"] == "scores, blind control")
    assert all(key in scores["text"] for key in EXTRA)
