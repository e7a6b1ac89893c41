"""The four resamplers on EXP1: what each reaches beside its blind control, and how many tokens it spends on a panorama.

    python benchmarks/resamplers.py                            # all four
    python benchmarks/resamplers.py --split val --only qformer --set models.qformer.num_queries=9

Runs the ablation `config/ablations/resamplers.yaml` in a folder of its own. `--cache DIR` copies the `cache` folder of
a finished EXP1 there first, so that only stages, prediction and metrics run. `--split val` scores the validation
scenes: settings are chosen there, never on the test scenes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from panollava.config.ablations import read_ablation
from panollava.models.config import ModelConfig
from panollava.models.shapes import count_image_tokens

ROOT = Path(__file__).parents[1]


def make_project(folder: Path, cache: Path | None, only: list[str], split: str, changes: dict[str, Any]) -> list[str]:
    """A project in `folder` whose ablation has the wanted cells; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("Snakefile", "workflow", "profiles", "config"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, folder / name)
    if cache is not None and not (folder / "cache").exists():
        shutil.copytree(cache, folder / "cache", symlinks=True)
    path = folder / "config/ablations/resamplers.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["vary"]["models.resampler_type"] = only
    document |= changes
    if split == "val":
        document["data.csv_test"] = None  # null: the validation split is scored
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return [cell.name for cell in read_ablation(path, folder).cells]


def row_of(folder: Path, cell: str) -> list[str]:
    """One line of the table, from the cell's metrics and its last stage's metadata."""
    scores = json.loads((folder / f"results/{cell}/metrics.json").read_text(encoding="utf-8"))
    (last,) = folder.glob(f"runs/{cell}/finetune/*/checkpoint_metadata.json")
    config = json.loads(last.read_text(encoding="utf-8"))["model_config"]
    config |= {key: str(folder / config[key]) for key in ("vision_path", "language_path")}
    state = json.loads((folder / f"runs/{cell}_stage_state.json").read_text(encoding="utf-8"))
    minutes = sum(stage["elapsed_minutes"] for stage in state["stages"].values())
    found, blind = scores["metrics"], scores["controls"]["blind"]
    return [
        config["resampler_type"],
        str(count_image_tokens(ModelConfig.from_json(config))),
        *(f"{value:.3f}" for value in (found["exact_match"]["value"], blind["exact_match"])),
        *(f"{value:.2f}" for value in (found["cider"]["value"], blind["cider"])),
        f"{minutes:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["mlp", "qformer", "perceiver", "bimamba"])
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings to try, as YAML")
    parser.add_argument("--cache", type=Path, help="the cache folder of a finished EXP1")
    parser.add_argument("--keep", type=Path, help="run in this folder and keep it")
    arguments = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="resamplers-"))
    cells = make_project(folder, arguments.cache, arguments.only, arguments.split, changes)
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--", "results/ablations/resamplers/summary.csv"]
    with (folder / "run.log").open("w", encoding="utf-8") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    head = ["resampler", "tokens", "exact match", "blind", "CIDEr", "blind", "minutes"]
    rows = [head, *(row_of(folder, cell) for cell in cells)]
    print(f"EXP1's {arguments.split} scenes, one training each; minutes are those of the three stages")
    for row in rows:
        print("  ".join(text.rjust(max(9, len(name))) for text, name in zip(row, head, strict=True)))
    if not arguments.keep:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
