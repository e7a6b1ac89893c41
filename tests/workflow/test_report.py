"""The report: made by Snakemake, opened in a browser, every entry pressed. And what the catalogue wants to see."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from browser import open_report
from conftest import ROOT, Project

from panollava.reports.samples_page import SAMPLES

pytestmark = pytest.mark.workflow


def test_the_report_shows_everything_in_a_browser(project: Project, tmp_path: Path) -> None:
    project.call("snakemake", "--report", "results/report.html", "--", "results/SMALL/metrics.json")
    seen = open_report(project.root / "results/report.html", tmp_path)
    assert seen["menu"] == ["Workflow", "Statistics", "About", "Data", "Metrics", "Predictions", "Training"]
    assert "blind control" in seen["introduction"] and seen["graph"] == 1
    entries = {(entry["category"], entry["label"]): entry for entry in seen["entries"]}
    assert {category for category, _ in entries} == {"Data", "Metrics", "Predictions", "Training"}
    for stage in ("1 vision", "2 resampler", "3 finetune"):
        assert entries["Training", stage]["kind"] == "image" and entries["Training", stage]["width"] > 500
    (sheet,) = (entry for entry in seen["entries"] if entry["category"] == "Data")
    assert sheet["kind"] == "image" and sheet["width"] > 500
    scores = entries["Metrics", "scores, blind control"]["text"]
    assert "BLEU-4" in scores and "exact_match" in scores and "blind control" in scores
    samples = entries["Predictions", "panoramas, answers"]
    assert samples["images"] == [512] * SAMPLES
    assert samples["text"].count("question") == samples["text"].count("references") - 1 == SAMPLES
    assert samples["text"].count("✓ right") + samples["text"].count("✗ wrong") == SAMPLES


def test_pages_that_nobody_made_are_an_error_of_the_report(project: Project) -> None:
    """The report is of finished results: it never runs anything."""
    (project.root / "results/SMALL/report_samples.html").unlink()
    done = project.call("snakemake", "--report", "r.html", "--", "results/SMALL/metrics.json", check=False)
    assert done.returncode != 0 and "report_samples.html" in done.stdout + done.stderr


def test_snakemakes_linter_and_formatter_are_content(project: Project) -> None:
    done = project.call("snakemake", "--lint")
    assert "good condition" in done.stdout + done.stderr
    snakefmt = shutil.which("snakefmt", path=str(Path(sys.executable).parent))
    if snakefmt is None:
        pytest.skip("no snakefmt: pip install -e '.[dev]'")
    checked = subprocess.run(
        [snakefmt, "--check", "Snakefile", "workflow"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_catalogues_files_are_there() -> None:
    document = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text(encoding="utf-8"))
    assert document["usage"]["report"] is True
    assert document["usage"]["software-stack-deployment"]["apptainer"] is True
    readme = (ROOT / "config/README.md").read_text(encoding="utf-8")
    for kind in ("experiments", "ablations"):
        assert f"{kind}/NAME.yaml" in readme
