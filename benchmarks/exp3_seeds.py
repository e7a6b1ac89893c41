"""EXP3 with several seeds: what a native model says before any training, and what LoRA adds; both with blind controls.

    python benchmarks/exp3_seeds.py --seeds 1 2 3 --split test

Runs EXP3_zero_shot and EXP3 in one folder a seed (scenes, the native model and training all take the seed; what both
share is built once) and prints a row each; at the end the medians. `--split val` scores the validation scenes: settings
are chosen there, never on the test scenes.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import yaml
from exp1_seeds import run_seed

SEEDS = ("data.synthetic.seed", "models.miniature.vlm.seed", "training.seed")
EXPERIMENTS = ("EXP3_zero_shot", "EXP3")
SHOWN = ("exact_match", "blind_exact_match", "swapped_exact_match", "place_thing_f1", "wall_s", "cpu_s", "peak_gib")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings to try, as YAML")
    parser.add_argument("--keep", type=Path, help="keep the runs' folders here")
    arguments = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in EXPERIMENTS}
    for seed in arguments.seeds:
        folder = arguments.keep / f"seed{seed}" if arguments.keep else Path(tempfile.mkdtemp(prefix="exp3-"))
        folder.mkdir(parents=True, exist_ok=True)
        for name in EXPERIMENTS:
            own = {
                key: value for key, value in changes.items() if name == "EXP3" or not key.startswith("training.stage_")
            }
            row = run_seed(seed, arguments.split, folder, own, name, SEEDS)
            rows[name].append(row)
            told = "  ".join(f"{key}={row[key]:.3f}" for key in SHOWN if key in row)
            print(f"{name} seed {seed}: {told}", flush=True)
            print(
                "  seconds: " + "  ".join(f"{k[2:]}={v:.0f}" for k, v in row.items() if k.startswith("s:")), flush=True
            )
        if not arguments.keep:
            shutil.rmtree(folder)
    for name, found in rows.items():
        print(f"{name}: median of {len(found)} seeds, {arguments.split} split:")
        for key in SHOWN:
            if all(key in row for row in found):
                print(f"  {key:<20} {statistics.median(row[key] for row in found):.3f}")


if __name__ == "__main__":
    main()
