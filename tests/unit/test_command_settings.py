"""`snakemake --config` and `--configfile`: settings of every experiment that a command asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from panollava.cli.workflow import _nested_settings
from panollava.config import ConfigError, Project
from panollava.config.command import command_settings
from panollava.config.overlay import record_command
from panollava.files import read_json

DATA = "data: {csv_train: synthetic, csv_val: synthetic, csv_test: synthetic}\n"
LR = "training.stage_configs.finetune.lr"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config/experiments"
    folder.mkdir(parents=True)
    (folder / "one.yaml").write_text(f"experiment: {{name: ONE}}\nlora: {{rank: 4}}\n{DATA}", encoding="utf-8")
    (folder / "two.yaml").write_text(f"experiment: {{name: TWO}}\ntraining: {{seed: 7}}\n{DATA}", encoding="utf-8")
    (folder / "auto.yaml").write_text("experiment: {name: auto}\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"training": {"seed": 3}}, {"training.seed": 3}),
        ({"training.seed": 3}, {"training.seed": 3}),
        ({"training": {"stage_configs.finetune": {"lr": "1e-3"}}}, {LR: 0.001}),  # Snakemake leaves it as text
        ({"evaluation": {"metrics": ["bleu4", "cider"]}}, {"evaluation.metrics": ["bleu4", "cider"]}),
        (
            {"lora": {"use_lora": "false"}, "data": {"csv_test": "null"}},
            {"lora.use_lora": False, "data.csv_test": None},
        ),
        ({"system_messages": {"default": "Note: {x"}}, {"system_messages.default": "Note: {x"}),
        ({}, {}),
    ],
)
def test_sections_nest_and_keys_may_hold_dots(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert command_settings(given, []) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"training": {"sed": 3}}, r"^--config: training\.sed is not a key.* Nearest valid key: training\.seed"),
        ({"traning": {"seed": 3}}, r"^--config: traning is not a key.* Nearest valid key: training"),
        ({"training": 3}, r"^--config: training is a section: write training\.KEY"),
        ({"experiment": {"name": "X"}}, r"^--config: experiment\.name belongs in an experiment's file"),
    ],
)
def test_what_is_no_setting_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        command_settings(given, [])


def test_files_come_first_and_are_named(root: Path) -> None:
    (root / "a.yaml").write_text("training.seed: 1\nlora: {rank: 2}\n", encoding="utf-8")
    (root / "b.yaml").write_text("training: {seed: 5}\n", encoding="utf-8")
    files = [Path("a.yaml"), Path("b.yaml")]
    assert command_settings({"lora": {"rank": 3}}, files) == {"training.seed": 5, "lora.rank": 3}
    (root / "b.yaml").write_text("training: {sed: 5}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^b\.yaml: training\.sed is not a key"):
        command_settings({}, files)


def test_every_experiment_asked_for_is_changed_and_it_is_recorded(root: Path) -> None:
    values = command_settings({"training": {"seed": 3}}, [])
    project, written = Project(".", command=values), Project(".")
    for name in ("ONE", "TWO"):
        assert project.experiment(name).settings.training.seed == 3
        assert project.experiment(name).digest("synthetic") == written.experiment(name).digest("synthetic")
        assert project.experiment(name).digest("predict") != written.experiment(name).digest("predict")
        assert project.as_written(name).to_dict() == written.experiment(name).to_dict()
    assert project.experiment("ONE").settings.lora.rank == 4
    record_command(project, ["TWO"], values)
    (record,) = root.glob("runs/*/overlays/*.json")
    document = read_json(record)
    assert record.parent.parent.name == "TWO" and document["before"] == {"training.seed": 7}
    assert document["values"] == {"training.seed": 3}


def test_settings_of_the_whole_project_can_be_given(root: Path) -> None:
    values = {"paths.results_dir": "elsewhere", "workflow.experiments": ["ONE"]}
    project = Project(".", command=command_settings(values, []))
    assert project.paths.results_dir == "elsewhere" and project.default_experiments == ["ONE"]
    assert project.experiment("ONE").names.metrics == "elsewhere/ONE/metrics.json"


def test_wrong_values_and_names_that_would_change_are_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"^ONE with --config: lora\.rank must be .*got 0"):
        Project(".", command={"lora.rank": 0}).experiment("ONE")
    project = Project(".", command={"models.vision_name": "facebook/dinov2-base"})
    name = next(one for one in project.experiments() if one not in ("ONE", "TWO"))
    with pytest.raises(ConfigError, match=rf"{name}, whose name is composed of them, would be called dinov2"):
        project.experiment(name)
    assert project.experiment("ONE").settings.models.vision_name == "facebook/dinov2-base"


def test_the_front_door_takes_dotted_keys() -> None:
    words = ["-n", "--config", "training.seed=3", "a=b=c", f"{LR}=1e-3", "--", "x.y=z"]
    assert _nested_settings(words) == [
        "-n", "--config", 'training={"seed": "3"}', "a=b=c",
        'training={"stage_configs": {"finetune": {"lr": "1e-3"}}}', "--", "x.y=z",
    ]  # fmt: skip
