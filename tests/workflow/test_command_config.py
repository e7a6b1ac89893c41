"""`snakemake --config` changes the experiments of one command, is recorded, and is gone with the next one."""

from __future__ import annotations

import json

import pytest
from conftest import Project
from plans import plan, targets

pytestmark = pytest.mark.workflow

LR = "training={stage_configs: {finetune: {lr: 0.25}}}"


def test_settings_of_one_command(local: Project) -> None:
    done = local.call("snakemake", "-n", "--config", LR, "--", *targets("LOCAL"))
    assert "rule train_finetune:" in done.stdout + done.stderr
    assert not list(local.root.glob("runs/LOCAL/overlays/*")), "a dry run records nothing"
    for wrong in ("training={sed: 3}", "traning={seed: 3}"):
        refused = local.call("snakemake", "-n", "--config", wrong, "--", *targets("LOCAL"), check=False)
        assert refused.returncode == 2 and "Nearest valid key: training" in refused.stderr

    (local.root / "shorter.yaml").write_text("generation.max_new_tokens: 3\n", encoding="utf-8")
    local.call("snakemake", "--cores", "1", "--configfile", "shorter.yaml", "--", *targets("LOCAL"))
    (record,) = local.root.glob("runs/LOCAL/overlays/*.json")
    document = json.loads(record.read_text(encoding="utf-8"))
    assert document["values"] == {"generation.max_new_tokens": 3}
    assert document["before"] == {"generation.max_new_tokens": 8} and "--configfile" in document["command"]
    metrics = json.loads((local.root / "results/LOCAL/metrics.json").read_text(encoding="utf-8"))
    assert metrics["provenance"]["generation"]["max_new_tokens"] == 3
    assert plan(local) == {"predict": 1, "compute_metrics": 1}, "without the file what it changed is stale"
    header, row = (local.root / "logs/LOCAL/predict.tsv").read_text(encoding="utf-8").splitlines()
    assert float(dict(zip(header.split("\t"), row.split("\t"), strict=True))["s"]) > 0
