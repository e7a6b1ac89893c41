"""Jobs of a cluster: the snapshot that they work with, the jobs of a dead command, the profile."""

from __future__ import annotations

import os
import re
import stat
import uuid
from pathlib import Path

import pytest
import yaml
from snakemake.resources import Resource

from panollava.config import ConfigError, Project
from panollava.dag import cluster
from panollava.dag.nodes import NODES
from panollava.dag.script import run
from panollava.dag.tasks import Tasks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one experiment on CSVs of its own; the working folder."""
    (tmp_path / "config/experiments").mkdir(parents=True)
    (tmp_path / "a.csv").write_text("url,query,annotation\nhttp://x/a.jpg,q,a\n", encoding="utf-8")
    write_experiment(tmp_path, lr=0.001)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cluster.VARIABLE, "")  # so that it is as before when the test has ended
    monkeypatch.delenv(cluster.VARIABLE)
    return tmp_path


def write_experiment(root: Path, lr: float) -> None:
    document = {
        "experiment": {"name": "ONE"},
        "data": {"csv_train": "a.csv", "csv_val": "a.csv", "csv_test": "a.csv"},
        "training": {"stage_configs": {"finetune": {"lr": lr}}},
    }
    (root / "config/experiments/one.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def slices(project: Project) -> dict[str, str]:
    experiment = project.experiment("ONE")
    return {node: experiment.slice_json(node) for node in NODES}


def test_a_job_works_with_what_was_submitted(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens to YAML files and CSVs while the job is pending."""
    submitted = Project(".")
    before = slices(submitted)
    key = submitted.experiment("ONE").csv_key("train")
    path = cluster.leave_snapshot(submitted)
    assert os.environ[cluster.VARIABLE] == path.as_posix() and not path.is_absolute()
    write_experiment(root, lr=0.5)
    (root / "config/default.yaml").write_text("no_such_key: 1\n", encoding="utf-8")
    (root / "a.csv").write_text("url,query,annotation\nhttp://x/b.jpg,q,b\n", encoding="utf-8")
    job = cluster.project_of_job()
    assert slices(job) == before
    assert job.paths == submitted.paths and job.experiments() == ["ONE"]
    assert Tasks(job).by_key("prepare_csv", key).slice_json == before["prepare_train"]
    with pytest.raises(ConfigError, match="TWO is not among the experiments of the snapshot: ONE"):
        job.experiment("TWO")


def test_equal_configurations_share_a_snapshot(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = []
    for lr in (0.001, 0.001, 0.002):
        write_experiment(root, lr)
        project = Project(".")
        slices(project)
        paths.append(cluster.leave_snapshot(project))
    assert paths[0] == paths[1] != paths[2]


def test_a_job_without_a_snapshot_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="without a snapshot of its configuration"):
        cluster.project_of_job()
    monkeypatch.setenv(cluster.VARIABLE, "gone.json")
    with pytest.raises(ConfigError, match=r"gone\.json, this job's configuration: .*No such file"):
        cluster.project_of_job()


def test_a_csv_that_changed_since_the_plan_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = Project(".")
    given = ["--csvs", "a.csv", "--images", "images", "--survivor", "kept.csv", "--log", "job.log"]
    given += ["--slice", project.experiment("ONE").slice_json("prepare_train"), "--prepared", "out/p.csv"]
    (root / "a.csv").write_text("url,query,annotation\nhttp://x/b.jpg,q,b\n", encoding="utf-8")
    assert run("prepare_csv.py", [*given, "--rejected", "out/r.csv"]) == 1
    assert "a.csv changed after this job was planned" in (root / "job.log").read_text()
    assert not (root / "out").exists()


def test_jobs_of_a_dead_command_are_cancelled_and_no_others(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With stand-ins for squeue, which lists four jobs until scancel was called, and scancel."""
    ours = f"7|{uuid.uuid4()}|rule_train_finetune_wildcards_ONE|{root}"
    foreign = [
        f"8|{uuid.uuid4()}|rule_train_finetune|{root.parent}",
        f"9|my_job|rule_of_mine|{root}",
        f"10|{uuid.uuid4()}|(null)|{root}",
    ]
    (root / "bin").mkdir()
    listed = "\n".join([ours, *foreign])
    scripts = {
        "squeue": f"#!/bin/sh\ntest -e {root}/cancelled || cat <<'END'\n{listed}\nEND\n",
        "scancel": f"#!/bin/sh\necho $* >>{root}/cancelled\n",
    }
    for name, text in scripts.items():
        script = root / "bin" / name
        script.write_text(text, encoding="utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    cluster.cancel_orphans()
    assert (root / "cancelled").read_text() == "7\n"
    assert "cancelling Slurm jobs that an earlier command left: 7" in capsys.readouterr().err
    cluster.cancel_orphans()
    assert (root / "cancelled").read_text() == "7\n"


def test_the_slurm_profile_repeats_what_it_replaces() -> None:
    default, slurm = (
        yaml.safe_load((ROOT / f"profiles/{name}/config.yaml").read_text(encoding="utf-8"))
        for name in ("default", "slurm")
    )
    only_local = {"resources", "latency-wait"}
    assert {key: slurm.get(key) for key in default if key not in only_local} == {
        key: value for key, value in default.items() if key not in only_local
    }
    # Here two trainings share no GPU, and memory keeps no jobs apart; a cluster has more than one GPU.
    assert default["resources"] == ["gpu=1", "downloads=1"]
    assert slurm["resources"] == ["downloads=1"]


def test_partitions_and_accounts_as_the_documents_quote_them_reach_slurm_as_they_are() -> None:
    """Snakemake evaluates a profile's resources as Python: each example here must come out as the name it shows."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("profiles/slurm/config.yaml", "docs/cluster.md")]
    examples = [
        match for text in texts for match in re.findall(r"(slurm_(?:partition|account)): (\"'[^'\"]+'\"|[\w-]+)", text)
    ]
    quoted = [(name, yaml.safe_load(value)) for name, value in examples if value.startswith('"')]
    assert len(quoted) >= 5 and ("slurm_account", "'2024-11'") in quoted
    for name, value in quoted:
        assert _evaluated(name, value) == value.strip("'")
    assert _evaluated("slurm_account", "2024-11") == 2013  # why the quotes are needed
    plain = [value for _, value in examples if not value.startswith('"')]
    assert plain == ["2024-11", "all"]  # shown as what goes wrong


def _evaluated(name: str, value: str) -> object:
    resource = Resource.from_cli_expression(name, value)
    return resource.evaluate(None, input=None, attempt=1, threads=1, rulename="x", async_run=None).value
