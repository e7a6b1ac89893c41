"""EXP1 with several seeds: does it learn, and does it answer from the picture?

    python benchmarks/exp1_seeds.py --seeds 1 2 3 --split test

Runs the whole DAG once per seed in a folder of its own (scenes, backbones and training all take the seed) and prints
a row each: exact match and CIDEr with their blind controls, seconds per rule; at the end the medians. `--split val`
scores the validation scenes: settings are chosen there, never on the test scenes.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
JOB_LINE = re.compile(r"INFO\s+(?P<job>\w+): (?P<seconds>[\d.]+) s, peak memory (?P<gib>[\d.]+) GiB")


SEEDS = ("data.synthetic.seed", "models.miniature.vision.seed", "models.miniature.language.seed", "training.seed")


def run_seed(
    seed: int,
    split: str,
    folder: Path,
    changes: dict[str, object],
    experiment: str = "EXP1",
    keys: tuple[str, ...] = SEEDS,
) -> dict[str, float]:
    """Build an experiment with `seed` in all `keys`, in `folder`: its scores, seconds by job, largest peak memory."""
    for name in ("Snakefile", "workflow", "profiles", "config"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, folder / name)
    path = folder / f"config/experiments/{experiment}.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    seeds: dict[str, object] = dict.fromkeys(keys, seed)
    for key, value in {**seeds, **changes}.items():
        node = document
        *head, last = key.split(".")
        for part in head:
            node = node.setdefault(part, {})
        node[last] = value
    if split == "val":
        document["data"]["csv_test"] = None  # null: the validation split is scored
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    started, before = time.monotonic(), _cpu_s()
    command = [sys.executable, "-m", "snakemake", "--cores", "all", "--", f"results/{experiment}/metrics.json"]
    with (folder / "run.log").open("w", encoding="utf-8") as log:
        subprocess.run(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=True)
    wall, cpu = time.monotonic() - started, _cpu_s() - before
    scores = json.loads((folder / f"results/{experiment}/metrics.json").read_text(encoding="utf-8"))
    row = {"seed": float(seed), "wall_s": wall, "cpu_s": cpu}
    for name in ("exact_match", "place_thing_f1", "cider", "bleu4"):
        row[name] = scores["metrics"][name]["value"]
        row[f"blind_{name}"] = scores["controls"]["blind"][name]
    row["cider_ratio"] = row["cider"] / row["blind_cider"]
    for log_file in sorted((folder / "logs").rglob("[!.]*.log")):
        for match in JOB_LINE.finditer(log_file.read_text(encoding="utf-8")):
            name = log_file.stem.split("_anyres")[0]
            name = re.sub(r"_[0-9a-f]{16}$", "", name)
            row[f"s:{name}"] = row.get(f"s:{name}", 0.0) + float(match["seconds"])
            row["peak_gib"] = max(row.get("peak_gib", 0.0), float(match["gib"]))
    if document["training"].get("stages") != []:
        row["swapped_exact_match"] = swapped_pictures(folder, "val" if split == "val" else "test", experiment)
    return row


def _cpu_s() -> float:
    """CPU seconds of all processes that were started here and have ended, with theirs: fair on a shared machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def swapped_pictures(folder: Path, split: str, experiment: str) -> float:
    """Exact match when every question of the CSV meets another scene's picture, by `panollava eval` on the folder."""
    (source,) = folder.glob(f"cache/synthetic/*/{split}.csv")
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    pictures = list(dict.fromkeys(row["image_path"] for row in rows))
    other = dict(zip(pictures, pictures[1:] + pictures[:1], strict=True))
    swapped = source.with_name("swapped.csv")
    with swapped.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "image_path": other[row["image_path"]]} for row in rows)
    command = [sys.executable, "-m", "panollava", "eval", "--checkpoint-dir", f"runs/{experiment}", "--csv-input"]
    with (folder / "swapped.log").open("w", encoding="utf-8") as log:
        subprocess.run(
            [*command, str(swapped), "--output-dir", "swapped"],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    scores = json.loads((folder / "swapped/metrics.json").read_text(encoding="utf-8"))
    return float(scores["metrics"]["exact_match"]["value"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other settings to try, as YAML")
    parser.add_argument("--keep", type=Path, help="keep the runs' folders here")
    arguments = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, _, value in (item.partition("=") for item in arguments.set)}
    rows = []
    for seed in arguments.seeds:
        folder = arguments.keep / f"seed{seed}" if arguments.keep else Path(tempfile.mkdtemp(prefix="exp1-"))
        folder.mkdir(parents=True, exist_ok=True)
        row = run_seed(seed, arguments.split, folder, changes)
        rows.append(row)
        print("  ".join(f"{key}={value:.3f}" for key, value in row.items() if not key.startswith("s:")), flush=True)
        print("  seconds: " + "  ".join(f"{k[2:]}={v:.0f}" for k, v in row.items() if k.startswith("s:")), flush=True)
        if not arguments.keep:
            shutil.rmtree(folder)
    print(f"median of {len(rows)} seeds, {arguments.split} split:")
    for key in (
        "exact_match",
        "blind_exact_match",
        "swapped_exact_match",
        "cider_ratio",
        "place_thing_f1",
        "wall_s",
        "cpu_s",
        "peak_gib",
    ):
        print(f"  {key:<18} {statistics.median(row[key] for row in rows):.3f}")


if __name__ == "__main__":
    main()
