"""What the jobs ask a cluster for."""

from __future__ import annotations

import re

import pytest
from conftest import Project

from panollava.dag.machine import limits_without_gpu

pytestmark = pytest.mark.workflow

# They take a moment, and run where the command was typed.
LOCAL_JOBS = {"prepare_experiment", "select_checkpoint", "write_stage_state"}


def resources(project: Project, *options: str) -> dict[str, dict[str, int]]:
    """By rule: what a job asks for, in a dry run of everything."""
    done = project.call("snakemake", "-n", "-F", *options, "--", "results/SMALL/metrics.json")
    found = {}
    pattern = r"^rule (\w+):\n(?:    .*\n)*?    resources: (.*)$"
    for rule, text in re.findall(pattern, done.stdout + done.stderr, re.MULTILINE):
        found[rule] = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)(?:,|$)", text)}
    return found


def test_every_job_of_a_cluster_says_what_it_needs_and_more_on_a_retry(finished: Project) -> None:
    first, third = (resources(finished, "--attempt", attempt) for attempt in ("1", "3"))
    assert first.keys() == third.keys() and first.keys() > LOCAL_JOBS
    for rule in first.keys() - LOCAL_JOBS:
        assert third[rule]["mem_mb"] == 3 * first[rule]["mem_mb"], rule
        # A stage resumes, so that it needs no longer limit, which a partition may not have.
        assert third[rule]["runtime"] == first[rule]["runtime"] * (1 if rule.startswith("train_") else 3), rule
    assert {rule for rule, asked in first.items() if "downloads" in asked} == {"prepare_csv"}
    with_gpu = {"train_vision", "train_resampler", "train_finetune", "predict", "predict_blind"}
    assert {rule for rule, asked in first.items() if "gpu" in asked} == with_gpu
    assert all(first[rule]["gpu"] == 1 and first[rule]["cpus_per_task"] == 2 for rule in with_gpu)


@pytest.mark.parametrize("granted", [(), ("--resources", "gpu=1", "downloads=1", "mem_mb=5000")])
def test_without_a_gpu_jobs_share_cores_and_memory(project: Project, granted: tuple[str, ...]) -> None:
    target = "results/SMALL/prepared/train.csv"
    done = project.call("snakemake", "--cores", "3", "-R", "prepare_experiment", *granted, "--", target)
    told = dict(re.findall(r"(\w+)=Resource\(\"\w+\", (\d+)\)", done.stdout + done.stderr))
    expected = {"gpu": 1, "downloads": 1} | limits_without_gpu(3)
    if granted:  # what the command grants itself
        expected["mem_mb"] = 5000
    assert {name: int(amount) for name, amount in told.items()} == expected
