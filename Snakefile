# panollava's DAG: from an experiment's name to its metrics.
#   snakemake --cores all results/EXP1/metrics.json
from snakemake.utils import min_version

min_version("9.14")


# Only with `--software-deployment-method apptainer`: the Dockerfile's image (`make docker-build`), turned into a file by
# `apptainer build panollava.sif docker-daemon://panollava:latest`. Otherwise the jobs run in Snakemake's own Python.
container: "panollava.sif"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/backbones.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/ablation.smk"


report: "workflow/report/workflow.rst"


# Snakemake keeps the last handler of a kind: one of each, here.
onstart:
    check_writable()
    make_room()
    before_jobs()
    warn_of_metrics()
    warn_of_bytecode()
    show_ablations(quiet=True)


onerror:
    show_ablations()


wildcard_constraints:
    experiment=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    stage="vision|resampler|finetune",
    split="train|val|test",
    variant=r"[A-Za-z0-9._-]+",
    key="[0-9a-f]{16}",
    ablation=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    control="predict|predict_blind|predict_text_only",
    shard=r"[0-9]+-of-[0-9]+",


rule all:
    default_target: True
    input:
        planned(lambda w: targets_of_all(PROJECT)),
