"""Ablations: grids become experiments with names of their own, and their table never shows what is not current."""

from __future__ import annotations

import csv
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from panollava.config import ConfigError, Project, WorkflowConfig
from panollava.dag.job_logs import first_line, last_line, read_job_log
from panollava.dag.records import job_logs_of, rows_so_far
from panollava.dag.several import summary_slice
from panollava.dag.tasks import Tasks
from panollava.errors import EvaluationError
from panollava.evaluation.ablation import CellRow, compare_cells
from panollava.files import canonical_json, write_json
from panollava.reports.ablation_table import SO_FAR, plot, write_csv, write_html, write_so_far

ROOT = Path(__file__).parents[2]
DATA = "data: {csv_train: synthetic, csv_val: synthetic, csv_test: synthetic}\n"
MINI = DATA + "models: {vision_name: miniature/siglip, language_model_name: miniature/qwen3}\n"
BASE = MINI + "lora: {dropout: 0.25}\nimage_processing: {image_size: 64}\n"
LORA = "base: B\nlora_configs: [{lora_r: 4, lora_alpha: 8}, {lora_r: 8, lora_alpha: 16}]\n"


def project(root: Path, **files: str) -> Project:
    """`e_NAME` is an experiment's YAML (experiment.name is added), `a_NAME` an ablation's."""
    for name, text in {"e_B": BASE, **files}.items():
        kind, _, stem = name.partition("_")
        folder = root / "config" / {"e": "experiments", "a": "ablations"}[kind]
        folder.mkdir(parents=True, exist_ok=True)
        head = f"experiment: {{name: {stem}}}\n" if kind == "e" else ""
        (folder / f"{stem}.yaml").write_text(head + text, encoding="utf-8")
    return Project(root)


def names(root: Path, text: str) -> list[str]:
    return [cell.name for cell in project(root, a_g=text).ablation("g").cells]


# ---- cells ---------------------------------------------------------------------------------------
def test_the_originals_form_becomes_experiments(tmp_path: Path) -> None:
    text = (
        "experiment_name: lora_grid\nbase: B\n"
        "models:\n"
        "  - {name: small, vision_name: miniature/siglip, language_model_name: miniature/qwen3, latent_dimension: 64}\n"
        "  - {name: wide, latent_dimension: 128, training.stage_configs.finetune.batch_size: 4}\n"
        "lora_configs:\n"
        "  - {lora_r: 4, lora_alpha: 8, lora_dropout: 0.0}\n"
        "  - {lora_r: 8, lora_alpha: 16, lora_dropout: 0.1}\n"
        "training: {stage_configs: {finetune: {epochs: 2, batch_size: 16}}}\n"
    )
    found = project(tmp_path, a_grid=text)
    cells = [cell.name for cell in found.ablation("grid").cells]
    assert cells == [f"lora_grid_{model}_{lora}" for model in ("small", "wide") for lora in ("r4a8", "r8a16")]
    assert found.experiments() == sorted(["B", *cells])
    one, other = (found.experiment(name).settings for name in (cells[0], cells[3]))
    assert (one.lora.rank, one.lora.alpha, one.lora.dropout, one.models.latent_dimension) == (4, 8, 0.0, 64)
    assert (other.lora.rank, other.lora.dropout, other.models.latent_dimension) == (8, 0.1, 128)
    batches = [s.training.stage_configs.finetune.batch_size for s in (one, other)]
    assert batches == [16, 4] and one.training.stage_configs.finetune.epochs == 2
    assert one.image_processing.image_size == 64 and one.experiment.name == cells[0]
    names = found.experiment(cells[0]).names
    assert names.metrics == f"results/{cells[0]}/metrics.json" and names.stage_dir("vision").startswith(
        f"runs/{cells[0]}/"
    )


def test_cells_share_the_keys_of_common_work_with_their_base(tmp_path: Path) -> None:
    found = project(tmp_path, a_g=LORA)
    base, one, other = (found.experiment(name) for name in ("B", "g_r4a8", "g_r8a16"))
    for node in (
        "prepare_train",
        "views_train",
        "views_test",
        "miniature_vision",
        "miniature_language",
        "train_vision",
    ):
        assert len({config.digest(node) for config in (base, one, other)}) == 1, node
    assert len({config.digest("train_finetune") for config in (base, one, other)}) == 3
    assert Tasks(Project(tmp_path)).slice_by_key("views", one.views_key("val")) == one.slice_of("views_val")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora_configs: [{lora_r: 4, lora_alpha: 8}]", ["g_r4a8"]),
        (
            "lora_configs: [{rank: 4, alpha: 0.5}, {use_lora: false}, {lora_r: 1, name: one}]",
            ["g_r4a0.5", "g_nolora", "g_one"],
        ),
        (
            "lora_configs: [{rank: 4, alpha: 8, dropout: 0}, {rank: 4, alpha: 8, dropout: 0.2}]",
            ["g_r4a8", "g_r4a8d0.2"],
        ),
        ("training.seed: [1, 2]", ["g_seed1", "g_seed2"]),
        ("training: {stage_configs: {finetune: {lr: [1e-5, 5e-4]}}}", ["g_lr1e-05", "g_lr0.0005"]),
        (
            "training.stage_configs: {finetune: {lr: [1e-3]}, resampler: {lr: [1, 0.1]}}",
            ["g_finetune-lr0.001_resampler-lr1", "g_finetune-lr0.001_resampler-lr0.1"],
        ),
        (
            "vary: {models.resampler_type: [mlp, qformer], models: {use_projection_positional_encoding: [true]}}",
            [f"g_resampler_type-{kind}_use_projection_positional_encoding-true" for kind in ("mlp", "qformer")],
        ),
        ("vary: {data.csv_train: {one: a.csv, both: [a.csv, b.csv]}}", ["g_one", "g_both"]),
        (
            "vary: {training.stages: [[finetune], [resampler, finetune]]}",
            ["g_stages-finetune", "g_stages-resampler-finetune"],
        ),
        ("models: [{name: m}]\ntraining.seed: [3]\nlora: {rank: 2}", ["g_m_seed3"]),
        ("models: {latent_dimension: [8, 16]}\nexperiment_name: x", ["x_latent_dimension8", "x_latent_dimension16"]),
    ],
)
def test_names_say_what_varies(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert names(tmp_path, text) == expected


def test_a_longer_grid_keeps_the_names_it_had(tmp_path: Path) -> None:
    before = names(tmp_path, "lora_configs: [{lora_r: 4, lora_alpha: 8, lora_dropout: 0.1}]")
    after = names(
        tmp_path,
        "lora_configs: [{lora_r: 4, lora_alpha: 8, lora_dropout: 0.1}, {lora_r: 4, lora_alpha: 8, lora_dropout: 0}]",
    )
    assert after[0] == before[0] == "g_r4a8"


def test_the_ablation_that_comes_with_the_project(tmp_path: Path) -> None:
    found = Project(ROOT)
    ablation = found.ablation("lora")
    configs = found.cells(ablation)
    assert [config.names.experiment for config in configs] == ["lora_r4a8", "lora_r8a16", "lora_r16a32"]
    exp1 = found.experiment("EXP1")
    assert all(config.views_key("train") == exp1.views_key("train") for config in configs)
    assert len({config.digest("train_resampler") for config in configs}) == 1


# ---- errors --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"g\.yaml: nothing is varied\. Write models, lora_configs, or lists below `vary`"),
        (
            "experiment_nam: x\n",
            r"g\.yaml:1: experiment_nam is not a key of an ablation\. Nearest valid key: experiment_name",
        ),
        ("lora_config: []\n", r"g\.yaml:1: lora_config is not a key of an ablation\. Nearest valid key: lora_configs"),
        ("experiment_name: 3\n", r"g\.yaml:1: experiment_name must be text, got 3"),
        ("models: []\n", r"g\.yaml:1: models must be a list of at least one entry, got \[\]"),
        ("models: [mini]\n", r"g\.yaml:1: each entry of models must hold `key: value` pairs, got 'mini'"),
        ("models:\n  - name: a\n  - latent_dimension: 3\n", r"g\.yaml:3: entry 2 of models has no name"),
        ("models: [{name: a b}]\n", r"g\.yaml:1: the name 'a b' must hold only letters"),
        (
            "lora_configs:\n  - lora_r: 3\n",
            r"g\.yaml:2: entry 1 of lora_configs needs lora_r and lora_alpha, or a name",
        ),
        ("lora_configs: [{lora_r: 3, rank: 4, lora_alpha: 1}]\n", r"g\.yaml:1: rank and lora_r are one setting"),
        ("vary:\n  training.sed: [1]\n", r"g\.yaml:2: training\.sed is not a key\. Nearest valid key: training\.seed"),
        (
            "vary:\n  training.seed: 3\n",
            r"g\.yaml:2: training\.seed must be a list of values to vary, or `label: value`",
        ),
        ("vary: [1]\n", r"g\.yaml:1: vary must hold `key: \[values\]` lines, got \[1\]"),
        ("training.seed: []\n", r"g\.yaml:1: training\.seed must be a list of values"),
        ("training.seed: [1]\ntraining:\n  seed: [2]\n", r"g\.yaml:\d: training\.seed appears twice"),
        ("training.seed: [1]\nvary:\n  training.seed: [2]\n", r"g\.yaml:3: training\.seed is varied twice"),
        (
            "lora_configs: [{lora_r: 1, lora_alpha: 2}]\nlora:\n  rank: [1, 2]\n",
            r"g\.yaml:3: lora\.rank is varied here and in line 1\. Keep it in one of them",
        ),
        (
            "training.seed: [1, 1]\n",
            r"g\.yaml: two cells are called g_seed1: training\.seed: 1 and training\.seed: 1\. Name",
        ),
        (
            "models:\n  - {name: a, latent_dimension: 8}\n  - {name: a, latent_dimension: 16}\n",
            r"g\.yaml:3: two cells are called g_a: models\.latent_dimension: 8 and models\.latent_dimension: 16",
        ),
        ("experiment: {name: x}\ntraining.seed: [1]\n", r"g\.yaml:1: experiment\.name cannot be set in an ablation"),
        ("models: [{name: a, experiment.name: x}]\n", r"g\.yaml:1: experiment\.name cannot be set in an ablation"),
        ("workflow: {experiments: [A]}\ntraining.seed: [1]\n", r"g\.yaml:1: workflow\.experiments belongs in"),
        (
            f"training.seed: {list(range(101))}\nlora.rank: {list(range(1, 101))}\n",
            r"g\.yaml: 101 x 100 values give 10,100 cells, at most 10,000 in one file\. Is a list longer",
        ),
        (f"experiment_name: {'x' * 98}\ntraining.seed: [1]\n", r"g\.yaml:1: the cell's name 'x+_seed1' cannot be one"),
        ("experiment_name: a/b\ntraining.seed: [1]\n", r"g\.yaml:1: the cell's name 'a/b_seed1' cannot be one"),
        ("training.seed: [1\n", r"g\.yaml:1: not valid YAML"),
    ],
)
def test_wrong_files_are_named_with_their_line_and_hinder_nobody(tmp_path: Path, text: str, message: str) -> None:
    found = project(tmp_path, a_g=text, a_fine=LORA)
    with pytest.raises(ConfigError, match=rf"^config/ablations/{message}"):
        found.ablation("g")
    assert found.experiment("B").names.experiment == "B"
    assert len(found.cells(found.ablation("fine"))) == 2 and found.ablations() == ["fine"]


def test_a_grid_of_many_cells(tmp_path: Path) -> None:
    grid = project(tmp_path, a_g=f"training.seed: {list(range(50))}\nlora.rank: {list(range(1, 11))}\n").ablation("g")
    assert len(grid.cells) == 500 and grid.cells[-1].name == "g_seed49_rank10"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lora_configs:\n  - {lora_r: 4, lora_alpha: 8}\n  - {lora_r: 0, lora_alpha: 8}\n",
            r"g\.yaml:3: lora\.rank must be",
        ),
        (
            "models:\n  - name: a\n    latent_dimensio: 3\n",
            r"g\.yaml:3: models\.latent_dimensio is not a key\. Nearest",
        ),
        ("training:\n  sed: [1]\nvary: {training.seed: [1]}\n", r"g\.yaml:2: training\.sed is not a key"),
        ("training: 3\nlora.rank: [1]\n", r"g\.yaml:1: training must hold `key: value` lines, got 3"),
        (
            "lora_configs: [{lora_r: [1, 2], lora_alpha: 3}]\n",
            r"g\.yaml:1: lora\.rank must be a whole number .*, got \[1, 2\]",
        ),
        ("base: NOBODY\ntraining.seed: [1]\n", r"g\.yaml:1: base: there is no experiment NOBODY"),
        ("base: fine_r4a8\ntraining.seed: [1]\n", r"g\.yaml:1: base must be an experiment with a file of its own"),
        ("base: BAD\ntraining.seed: [1]\n", r"config/experiments/BAD\.yaml:3: lora\.rank must be"),
        (
            "paths: {runs_dir: elsewhere}\ntraining.seed: [1]\n",
            r"g\.yaml: paths\.runs_dir belongs in config/default\.yaml",
        ),
    ],
)
def test_wrong_settings_are_errors_when_the_grid_is_planned(tmp_path: Path, text: str, message: str) -> None:
    found = project(tmp_path, a_g=text, a_fine=LORA, e_BAD=f"lora: {{alpha: 1,\n  rank: 0}}\n{MINI}")
    with pytest.raises(ConfigError, match=message):
        found.cells(found.ablation("g"))
    assert len(found.cells(found.ablation("fine"))) == 2


def test_each_error_of_a_grid_is_said_once(tmp_path: Path) -> None:
    found = project(tmp_path, a_g="training: {sed: 1}\nlora.rank: [1, 2, 3]\n")
    with pytest.raises(ConfigError) as caught:
        found.cells(found.ablation("g"))
    assert str(caught.value).count("training.sed") == 1


def test_one_name_for_a_cell_and_an_experiment_is_an_error_that_names_both_files(tmp_path: Path) -> None:
    found = project(tmp_path, a_g=LORA, e_g_r4a8=BASE)
    with pytest.raises(ConfigError, match=r"experiments/g_r4a8\.yaml and config/ablations/g\.yaml both name .* g_r4a8"):
        found.experiment("g_r4a8")
    assert found.experiment("g_r8a16") and found.experiment("B")


def test_what_is_not_there_is_an_error_with_the_choices(tmp_path: Path) -> None:
    found = project(tmp_path, a_grid=LORA)
    with pytest.raises(ConfigError, match=r"no ablation gri in config/ablations\. Did you mean grid\? Ablations: grid"):
        found.ablation("gri")
    with pytest.raises(
        ConfigError, match=r"no experiment grid_r4a .* Did you mean grid_r4a8\? .*B\. Ablations: grid \(2"
    ):
        found.experiment("grid_r4a")
    with pytest.raises(ConfigError, match=r"is an ablation of 2 experiments\. Name one of them: grid_r4a8, grid_r8a16"):
        WorkflowConfig.load(tmp_path / "config/ablations/grid.yaml", tmp_path)
    (tmp_path / "config/ablations/grid.yml").write_text(LORA, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"grid\.yaml and config/ablations/grid\.yml are one ablation by name"):
        Project(tmp_path).ablation("grid")


def test_two_hundred_cells_are_named_at_once_and_loaded_when_asked_for(tmp_path: Path) -> None:
    found = project(tmp_path, a_g=f"base: B\ntraining.seed: {list(range(200))}\n")
    started = time.perf_counter()
    assert found.experiment("g_seed17").settings.training.seed == 17
    assert time.perf_counter() - started < 1.0
    assert len(found._loaded) == 1


# ---- logs of jobs --------------------------------------------------------------------------------
def log(path: Path, *messages: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{m}\n" if m[:1].isspace() or "Error" in m[:20] else f"12:00:00 {m}\n" for m in messages))
    return path


def test_a_jobs_log_says_how_it_stands(tmp_path: Path) -> None:
    begin, end = f"INFO    {first_line('predict', 'ab12')}", f"INFO    {last_line('predict', 3.21, 0.5)}"
    assert read_job_log(tmp_path / "none.log") is None
    assert read_job_log(log(tmp_path / "a.log", "INFO    something else")) is None
    running = read_job_log(log(tmp_path / "a.log", begin, "INFO    batch 1"))
    assert running is not None and (running.digest, running.running, running.error) == ("ab12", True, None)
    done = read_job_log(log(tmp_path / "a.log", begin, end))
    assert done is not None and (done.running, done.error) == (False, None)
    failed = read_job_log(log(tmp_path / "a.log", begin, "ERROR   no pictures", "INFO    more", end))
    assert failed is not None and failed.error == "no pictures"
    text = ["ERROR   predict failed", "   ", "  File x", end]
    text[1] = "Traceback (most recent call last):"
    path = log(tmp_path / "a.log", begin, *text)
    path.write_text(
        path.read_text().replace("12:00:00 Traceback", "Traceback").replace("  File x\n", "  File x\nValueError: 3\n")
    )
    crashed = read_job_log(path)
    assert crashed is not None and crashed.error == "ValueError: 3"


def test_a_killed_job_is_no_running_one(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    begin = first_line("predict", "ab12").replace(f"process {os.getpid()}", f"process {child.stdout.strip()}")
    killed = read_job_log(log(tmp_path / "a.log", f"INFO    {begin}", "INFO    batch 1"))
    assert killed is not None and not killed.running and "its process is gone" in str(killed.error)
    elsewhere = begin.replace(f"on {platform.node()}", "on another-host")
    believed = read_job_log(log(tmp_path / "a.log", f"INFO    {elsewhere}"))
    assert believed is not None and believed.running


# ---- the table -----------------------------------------------------------------------------------
def finish(config: WorkflowConfig, score: float, digest: str | None = None) -> None:
    """Write what a finished cell leaves behind; `digest` is that of another configuration."""
    root, names = config.root, config.names
    trained = digest or config.digest("train_finetune")
    metric = {"value": score, "scale": "0-1", "library": "x", "version": "1", "signature": None, "reason": None}
    metrics = {"bleu4": metric, "spice": {**metric, "value": None, "reason": "no Java"}}
    document = {
        "metrics": metrics, "protocol": "grouped", "num_samples": 3,
        "controls": {"blind": {"bleu4": score / 2, "spice": None}},
        "provenance": {"config": digest or config.digest("metrics"), "checkpoint": {"config_digest": trained}},
    }  # fmt: skip
    write_json(root / names.metrics, document)
    stages: dict[str, Any] = {}
    for stage in names.stages:
        folder = names.stage_dir(stage)
        record = {
            "stage": stage, "status": "completed", "elapsed_minutes": 1.5, "best_val_loss": 0.5, "artifact_dir": folder,
            "config_digest": trained if stage == "finetune" else config.digest(f"train_{stage}"),
        }  # fmt: skip
        write_json(root / names.state_dir(stage) / "record.json", record)
        write_json(root / folder / "checkpoint_metadata.json", {"trainable_parameters": 1234})
        stages[stage] = record
    write_json(root / names.stage_state, {"stages": stages})


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_table_of_a_finished_grid(tmp_path: Path) -> None:
    found = project(tmp_path, a_g="base: B\nlora_configs: [{lora_r: 4, lora_alpha: 8}, {lora_r: 8, lora_alpha: 8}]\n")
    ablation = found.ablation("g")
    configs = found.cells(ablation)
    for index, config in enumerate(configs):
        finish(config, 0.25 * (index + 1))
    document = json.loads(canonical_json(summary_slice(1, ablation, configs)))
    files = [
        [tmp_path / config.names.metrics for config in configs],
        [tmp_path / config.names.stage_state for config in configs],
    ]
    rows = compare_cells(document, *files, tmp_path)
    write_csv(rows, tmp_path / "summary.csv")
    assert (tmp_path / "summary.csv").read_text().splitlines()[:2] == [
        "experiment,lora.rank,status,protocol,num_samples,bleu4,blind_bleu4,spice,blind_spice,best_val_loss,"
        "trainable_parameters,minutes,error",
        "g_r4a8,4,completed,grouped,3,0.25,0.125,,,0.5,1234,4.5,",
    ]
    assert rows == rows_so_far(ablation, configs) and write_so_far(rows, tmp_path) is None
    write_html(rows, tmp_path / "summary.html", "Ablation <g>")
    page = (tmp_path / "summary.html").read_text()
    assert "Ablation &lt;g&gt;" in page and "blind 0.1250" in page
    assert 'class="number best"' not in page  # without intervals nothing says which one is better
    plot(rows, tmp_path / "summary.png", "g")
    assert (tmp_path / "summary.png").read_bytes().startswith(b"\x89PNG")
    state = json.loads(files[1][0].read_text())
    state["stages"]["finetune"]["config_digest"] = "0123456789abcdef"
    write_json(files[1][0], state)
    with pytest.raises(
        EvaluationError, match=r"g_r4a8_stage_state\.json and .* belong to different trainings of g_r4a8"
    ):
        compare_cells(document, *files, tmp_path)
    finish(configs[0], 0.75, digest="0123456789abcdef")
    with pytest.raises(
        EvaluationError, match=r"g_r4a8/metrics\.json was computed for another configuration \(digest 0123"
    ):
        compare_cells(document, *files, tmp_path)


def test_bold_are_the_best_cell_and_those_that_cannot_be_told_from_it(tmp_path: Path) -> None:
    def cell(name: str, value: float, interval: list[float] | None) -> CellRow:
        metric = {"value": value, "scale": "0-1", "library": "x", "interval": interval}
        document = {"metrics": {"bleu4": metric}, "protocol": "grouped", "num_samples": 9, "controls": {"blind": None},
                    "intervals": {"note": "intervals of 8 panoramas are too narrow"}}  # fmt: skip
        return CellRow(name, {"lora.rank": 4}, "completed", document)

    rows = [cell("g_a", 0.5, [0.4, 0.6]), cell("g_b", 0.45, [0.38, 0.52]), cell("g_c", 0.2, [0.1, 0.3])]
    write_html(rows, tmp_path / "s.html", "g")
    page = (tmp_path / "s.html").read_text()
    bold = re.findall(r'<td class="number best">(= )?([\d.]+)', page)
    assert bold == [("= ", "0.5000"), ("= ", "0.4500")] and "0.3800 to 0.5200" in page
    assert '<p class="warning" role="note">Intervals of 8 panoramas are too narrow.</p>' in page
    write_html([rows[0], rows[2]], tmp_path / "s.html", "g")
    page = (tmp_path / "s.html").read_text()
    assert (
        re.findall(r'<td class="number best">(= )?([\d.]+)', page) == [("", "0.5000")]
        and "nothing here tells" not in page
    )


@pytest.mark.parametrize("what", ["nothing", "test set", "rule"])
def test_scores_of_other_questions_or_rules_have_no_best_cell(tmp_path: Path, what: str) -> None:
    def cell(name: str, value: float, other: bool) -> CellRow:
        metric = {"value": value, "scale": "0-1", "library": "x", "interval": [value - 0.1, value + 0.1],
                  "signature": "angle:10" if other and what == "rule" else "angle:30"}  # fmt: skip
        asked = {"path": "test.csv", "sha256": "b" if other and what == "test set" else "a"}
        return CellRow(name, {"lora.rank": 4}, "completed", {
            "metrics": {"accuracy": metric}, "protocol": "grouped", "num_samples": 9, "controls": {"blind": None},
            "provenance": {"inputs": {"csvs": [asked]}},
        })  # fmt: skip

    write_html([cell("g_a", 0.5, False), cell("g_b", 0.2, True)], tmp_path / "s.html", "g")
    page = (tmp_path / "s.html").read_text()
    assert ('class="number best"' in page) is (what == "nothing")
    assert ("The cells answered different test sets" in page) is (what == "test set")


def test_unfinished_cells_stand_as_such_and_old_scores_do_not_stand_at_all(tmp_path: Path) -> None:
    found = project(tmp_path, a_g="base: B\ntraining.seed: [1, 2, 3, 4, 5]\n")
    ablation = found.ablation("g")
    done, old, failed, running, untouched = configs = found.cells(ablation)
    finish(done, 0.5)
    finish(old, 0.9, digest="0123456789abcdef")
    for config, messages in ((failed, ["ERROR   out of memory", f"INFO    {last_line('x', 1, 1)}"]), (running, [])):
        rule, path, digests = next(entry for entry in job_logs_of(config) if entry[0] == "train_finetune")
        log(tmp_path / path, f"INFO    {first_line(rule, min(digests))}", *messages)
    _, path, _ = next(entry for entry in job_logs_of(untouched) if entry[0] == "predict")
    log(tmp_path / path, f"INFO    {first_line('predict', 'feedfeedfeedfeed')}", "ERROR   of an older configuration")
    folder = tmp_path / "results/ablations/g"
    folder.mkdir(parents=True)
    for name in ("summary.csv", "summary.png"):
        (folder / name).write_text("of an earlier configuration")
    rows = rows_so_far(ablation, configs)
    assert write_so_far(rows, folder) == folder / SO_FAR
    assert [path.name for path in folder.iterdir()] == [SO_FAR]
    written = table(folder / SO_FAR)
    assert [row["status"] for row in written] == ["completed", "pending", "failed", "running", "pending"]
    assert [row["bleu4"] for row in written] == ["0.5", "", "", "", ""]
    assert [row["blind_bleu4"] for row in written] == ["0.25", "", "", "", ""]
    assert [row["error"] for row in written] == ["", "", "train_finetune: out of memory", "", ""]
    assert [row["training.seed"] for row in written] == ["1", "2", "3", "4", "5"]


def test_an_interrupted_cell_is_pending_and_a_shared_failure_is_every_cells(tmp_path: Path) -> None:
    found = project(tmp_path, a_g="base: B\ntraining.seed: [1, 2]\n")
    ablation = found.ablation("g")
    configs = found.cells(ablation)
    rule, path, digests = next(entry for entry in job_logs_of(configs[0]) if entry[0] == "train_vision")
    last = f"INFO    {last_line(rule, 1, 1)}"
    log(tmp_path / path, f"INFO    {first_line(rule, min(digests))}", "ERROR   interrupted", last)
    assert [row.status for row in rows_so_far(ablation, configs)] == ["pending", "pending"]
    rule, path, digests = next(entry for entry in job_logs_of(configs[0]) if entry[0] == "pretrain_vision")
    log(tmp_path / path, f"INFO    {first_line(rule, min(digests))}", "ERROR   no space left on device", last)
    rows = rows_so_far(ablation, configs)
    assert [row.status for row in rows] == ["failed", "failed"]
    assert {row.error for row in rows} == {"pretrain_vision: no space left on device"}


def test_the_snakefiles_part_imports_nothing_heavy() -> None:
    code = (
        "import sys, panollava.reports.ablation_table, panollava.config, panollava.dag.freshness; "
        "print([m for m in ('torch', 'pandas', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
