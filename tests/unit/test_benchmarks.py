"""Seconds and memory of the jobs, from Snakemake's benchmark files to `status` and the report's first page."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT, SMALL
from docutils.core import publish_parts

from panollava.config import WorkflowConfig
from panollava.dag.benchmarks import COLUMNS, used_by
from panollava.dag.nodes import RULES
from panollava.dag.records import job_logs_of
from panollava.dag.tasks import tasks_behind
from panollava.reports.landing import landing_page


def write(path: Path, seconds: float, memory: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\tmax_vms\n{seconds}\t0:00:01\t{memory}\t1\n", encoding="utf-8")


def test_jobs_are_summed_by_rule_and_shared_ones_count_once(tmp_path: Path) -> None:
    experiment = WorkflowConfig.from_dict(SMALL, tmp_path)
    other = experiment.with_values({"experiment.name": "OTHER"})
    assert used_by([experiment]) == []
    prepared = [task for task in tasks_behind(experiment, "metrics") if task.node.rule == "prepare_csv"]
    assert len(prepared) == 3
    for number, task in enumerate(prepared):
        write(tmp_path / task.fill(task.node.benchmark_template), 1.0 + number, "NA" if number else "100.0")
    write(tmp_path / "logs/SMALL/predict.tsv", 2.25, "812.4")
    write(tmp_path / "logs/OTHER/predict.tsv", 1.0, "900.0")
    (tmp_path / "logs/SMALL/compute_metrics.tsv").write_text("half", encoding="utf-8")
    rows = [one.row for one in used_by([experiment, other])]
    assert rows == [["prepare_csv", "3", "6.0", "100"], ["predict", "2", "3.2", "900"]]


def test_jobs_that_no_other_asks_for_count_too_in_the_order_of_the_dag(tmp_path: Path) -> None:
    experiment = WorkflowConfig.from_dict({**SMALL, "training": {"stages": ["finetune"]}}, tmp_path)
    rules = ["prepare_experiment", "train_finetune", "write_stage_state", "predict", "measure_perplexity"]
    for rule in [*reversed(rules), "train_vision", "train_resampler"]:
        path = experiment.root / "logs/SMALL" / f"{rule}.tsv"
        if rule.startswith("train_"):
            path = path.with_name(f"{rule}_{experiment.names.variant}.tsv")
        write(path, 1.0, "1.0")
    assert [one.rule for one in used_by([experiment])] == rules


def test_jobs_that_share_answers_count_and_their_logs_are_read(tmp_path: Path) -> None:
    experiment = WorkflowConfig.from_dict({**SMALL, "evaluation": {**SMALL["evaluation"], "shards": 2}}, tmp_path)
    logs = [log for rule, log, _ in job_logs_of(experiment) if rule == "predict_shard"]
    assert len(logs) == len(set(logs)) >= 2
    for log in logs:
        write(tmp_path / log.replace(".log", ".tsv"), 2.0, "10.0")
    assert [one.row[:3] for one in used_by([experiment])] == [["predict_shard", str(len(logs)), f"{2.0 * len(logs)}"]]


def test_every_rule_has_a_benchmark_file_a_log_and_a_script_of_its_name() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "workflow/rules").glob("*.smk")))
    for rule in RULES:
        for part in ("benchmark_of", "log_of", "script"):
            assert text.count(f'{part}("{rule}")') == 1, f"{part} of {rule}"


def test_the_first_page_is_valid_and_shows_both_tables() -> None:
    metrics = {"bleu4": {"value": 0.25, "interval": [0.2, 0.3]}, "spice": {"value": None, "interval": None}}
    document = {"metrics": metrics, "controls": {"blind": {"bleu4": 0.125}}}
    text = landing_page({"A_b*": document}, COLUMNS, [["predict", "2", "3.2", ""]])
    html = publish_parts(text, writer_name="html", settings_overrides={"halt_level": 2})["html_body"]
    for said in ("A_b*", "0.2500", "0.2000 to 0.3000", "0.1250", "spice", "predict", "peak memory (MiB)"):
        assert said in html
    assert landing_page({}, COLUMNS, []) == ""


@pytest.mark.parametrize("text", ["", "s\n", "s\tmax_rss\nx\t1\n"])
def test_what_is_no_benchmark_is_left_out(tmp_path: Path, text: str) -> None:
    experiment = WorkflowConfig.from_dict(SMALL, tmp_path)
    write(tmp_path / "logs/SMALL/predict.tsv", 1, "1")
    (tmp_path / "logs/SMALL/predict.tsv").write_text(text, encoding="utf-8")
    assert used_by([experiment]) == []
