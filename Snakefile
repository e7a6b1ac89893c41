# panollava's DAG: from an experiment's name to its metrics.
#   snakemake --cores all results/EXP1/metrics.json
from snakemake.utils import min_version

min_version("9.10")


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/backbones.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"


report: "workflow/report/workflow.rst"


wildcard_constraints:
    experiment=r"[A-Za-z0-9][A-Za-z0-9._-]*",
    stage="vision|resampler|finetune",
    split="train|val|test",
    variant=r"[A-Za-z0-9._-]+",
    key="[0-9a-f]{16}",


onstart:
    check_writable()


rule all:
    default_target: True
    input:
        targets_of_all,
