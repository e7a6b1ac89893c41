"""Generate `docs/migration.md` from the legacy keys: from the original project's configuration to this one.

    python -m panollava.config.migration_file > docs/migration.md

after `legacy.py` changed. A test compares the file with the code, and the keys it names with the schema.
"""

from __future__ import annotations

import re
import sys

from panollava.config.legacy import MOVED, PREFIX, REPLACED

_HEAD = """\
# From the original project's configuration and commands to this one

A configuration of the original project is read as it is wherever its keys kept their names: put it into
`config/experiments/` and look at what `panollava config show` says of the file. Keys below "Still read" are taken, with
a warning. Keys below "Gone" are errors that name file and line and say what to do instead, all of a file at once.
Everything else that the schema does not know is an error with the nearest valid key.

    cp OLD.yaml config/experiments/MINE.yaml
    panollava config show config/experiments/MINE.yaml     # errors until it fits; then the merged configuration
    panollava config diff config/experiments/MINE.yaml config/default.yaml

Checkpoints of the original layouts (`runs/{prefix}_{crop}_{stage}_{resampler}/`, `runs/vlm_{stage}/checkpoints/`,
`runs/vlm_{stage}/model_final.safetensors`) are still found; a folder without `checkpoint_metadata.json` loads with
`--config`, and keys that do not fit are listed.

## Commands

One command goes from nothing to the scores, `panollava run MINE`; the scripts of the original have these successors:

| original | today |
|---|---|
| `scripts/train_all_stages.sh` | `panollava run MINE`, or `panollava train --config MINE --stage all` |
| `scripts/train_vision.sh`, `train_resampler.sh`, `train_finetune.sh` | `panollava train --config MINE --stage STAGE` |
| `scripts/config.sh` | `config/experiments/MINE.yaml` |
| `train.py --stage`, `--stages`, `train_custom.sh --stage` | `panollava train --config MINE --stage STAGE` |
| `--csv-train`, `--csv-val`, `--data-dir` | `data.csv_train`, `data.csv_val`; `panollava train --data-dir DIR` |
| `--vision-name`, `--lm-name`, `--resampler` | `models.vision_name`, `language_model_name`, `resampler_type` |
| `--resume-from`, `--resume CKPT` | none: the same command goes on; `panollava train --resume CKPT` |
| `eval.py --ckpt CKPT --csv-val CSV` | `panollava eval --checkpoint-dir DIR --csv-input CSV` |
| `csv_eval.py` | `panollava eval --csv-input predictions.csv` |
| `inference.py`, `scripts/simple_inference.py` | `panollava infer PANO.jpg --query Q --checkpoint-dir DIR` |
| `scripts/run_vlm_ablation.sh`, `scripts/ablation.sh` | `panollava run NAME` with `config/ablations/NAME.yaml` |
| `scripts/eval_compare.sh` | `panollava compare MINE OTHER` |
| `create_config.py`, `scripts/yaml_config_manager.py` | `panollava models --interactive`, `panollava config show` |
| `check_env.py`, `scripts/install_eval_metrics.sh` | `panollava check-env`, `panollava setup-metrics` |
| `download_raw.py` | none: addresses in a CSV are downloaded by `panollava run` and `panollava prepare` |
| `scripts/visualize.sh`, `quick_test_viz.sh` | `panollava views PANO.jpg --output-dir DIR`, `snakemake --report` |

## What behaves otherwise

- `experiment.name` names everything. Without it and without `training.prefix` the experiment is called `panovlm_exp`,
  with a warning; the file's name is never used.
- A setting out of its range is an error before any job runs: a temperature outside [0.1, 1.0], for instance, which
  `generate()` itself still clamps with a warning.
- `training.stages` keeps the order vision, resampler, finetune, and ends with a stage that answers.
- The vision stage is refused where its views share no directions (`resize`, `cubemap`, `anyres_max` by default).
- Rows that cannot be used are rejected with their line and reason; none is swapped, repaired or given a black image.
  "None", "NA" and "nan" are text.
- Scores: `evaluation.protocol: original` repeats the original recipe, to compare with its figures; the default,
  `grouped`, scores each (image, query) once against all its references. SPICE is SPICE: no similarity of embeddings
  replaces it.

"""


def migration_file() -> str:
    """The whole document."""
    moved = {**MOVED, PREFIX: "experiment.name"}
    lines = ["## Still read, with a warning", "", "| key of the original project | today |", "|---|---|"]
    lines += [f"| `{old}` | `{new}` |" for old, new in sorted(moved.items())]
    lines += ["", "Where a file has both, today's key counts.", ""]
    lines += ["## Gone", "", "| key of the original project | instead |", "|---|---|"]
    lines += [f"| {_readable(old)} | {instead} |" for old, instead in sorted(REPLACED.items())]
    return _HEAD + "\n".join(lines) + "\n"


def _readable(pattern: str) -> str:
    """A pattern as people write it: `pe_*` stands for several keys, STAGE for any stage."""
    written = pattern.replace("stage_configs.*.", "stage_configs.STAGE.")
    before, choice, rest = re.fullmatch(r"([^[]*)(?:\[(\w+)\](.*))?", written).groups()  # type: ignore[union-attr]
    return ", ".join(f"`{before}{letter}{rest or ''}`" for letter in choice or [""])


if __name__ == "__main__":
    sys.stdout.write(migration_file())
