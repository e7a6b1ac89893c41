"""Preparing and scoring as tables grow: seconds and peak memory by the number of rows, beside an earlier build.

    python benchmarks/large.py --baseline /tmp/baseline --rows 100000 200000 400000

Draws small panoramas, a tenth as many as rows, and writes a CSV about them; and as many predictions with references.
Each step runs in a process of its own, both builds in turn. What is written must be equal to the byte, and so must the
scores. `slope` is what each further row costs between the smallest and the largest table.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import THIS, Build, Cost, add_baseline, alternate, baseline, cost

WORDS = ("behind", "you", "is", "a", "red", "box", "beside", "the", "window", "of", "an", "old", "hall", "tall", "lamp")
ROWS_A_PICTURE = 10

PREPARE = """
import sys
from pathlib import Path
from panollava.data.prepare import prepare_csv
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
prepare_csv([folder / "data.csv"], out / "prepared.csv", out / "rejected.csv", root=folder, progress=False)
"""
SCORE = """
import csv, json, sys
from pathlib import Path
from panollava.evaluation.score import compute_text_metrics
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
predictions, references = [], []
with (folder / "predictions.csv").open(newline="") as stream:
    for row in csv.DictReader(stream):
        predictions.append(row["prediction"])
        references.append(row["reference"])
found = compute_text_metrics(predictions, references, metrics=["bleu4", "rouge_l"])
(out / "scores.json").write_text(json.dumps({name: found[name]["value"] for name in ("bleu4", "rouge_l")}))
"""


def draw(folder: Path, rows: int) -> None:
    """data.csv about small panoramas of noise, and predictions.csv; texts of about 60 and 130 characters."""
    from panollava.data.synthetic.draw import png_bytes

    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    pictures = max(1, rows // ROWS_A_PICTURE)
    for number in range(pictures):
        pixels = rng.integers(0, 256, (8, 16, 3), dtype=np.uint8)
        (folder / f"images/{number}.png").write_bytes(png_bytes(pixels))
    data, answers = (folder / name for name in ("data.csv", "predictions.csv"))
    with data.open("w", newline="") as one, answers.open("w", newline="") as other:
        plain, predicted = csv.writer(one, lineterminator="\n"), csv.writer(other, lineterminator="\n")
        plain.writerow(["url", "query", "annotation"])
        predicted.writerow(["image_path", "query", "prediction", "reference"])
        for number in range(rows):
            words = rng.choice(WORDS, 48)
            picture, query = f"images/{number % pictures}.png", f"{number} {' '.join(words[:12])}?"
            plain.writerow([picture, query, f"{' '.join(words[12:36])}."])
            predicted.writerow([picture, query, f"{' '.join(words[24:])}.", f"{' '.join(words[12:36])}."])


def steps(build: Build, label: str, folder: Path, outputs: Path) -> dict[str, tuple[Path, list[str], Build]]:
    found = {}
    for step, text in (("prepare", PREPARE), ("score", SCORE)):
        out = outputs / f"{label}-{step}"
        out.mkdir()
        found[f"{step}|{label}"] = (out, [str(build.python), "-c", text, str(folder), str(out)], build)
    return found


def same(outputs: Path, labels: list[str]) -> None:
    """What the builds have written is equal."""
    for step, name in (("prepare", "prepared.csv"), ("score", "scores.json")):
        contents = {(outputs / f"{label}-{step}" / name).read_bytes() for label in labels}
        if len(contents) != 1:
            sys.exit(f"{name} differs between {' and '.join(labels)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_baseline(parser)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 200_000])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="this build only")
    parser.add_argument("--smoke", action="store_true", help="a few rows, this build only, once")
    given = parser.parse_args()
    builds = {"ours": THIS}
    sizes = [50, 100] if given.smoke else sorted(given.rows)
    with tempfile.TemporaryDirectory() as temporary:
        if not (given.smoke or given.alone):
            builds["theirs"] = baseline(given.baseline or Path(temporary) / "baseline", given.commit)
        costs: dict[int, dict[str, Cost]] = {}
        for rows in sizes:
            folder, outputs = Path(temporary) / f"{rows}", Path(temporary) / f"{rows}-out"
            outputs.mkdir()
            draw(folder, rows)
            jobs = {k: v for label, build in builds.items() for k, v in steps(build, label, folder, outputs).items()}
            measured = {name: (lambda c=command, o=out: cost(c, o)) for name, (out, command, _) in jobs.items()}
            costs[rows] = alternate(measured, given.runs, warm=False)
            same(outputs, list(builds))
            for name, one in costs[rows].items():
                print(f"{rows:>9,} rows  {name:<16} {one.cpu_s:8.1f} CPU s  {one.peak_mib:8.0f} MiB", flush=True)
    for name in costs[sizes[0]]:
        first, last = costs[sizes[0]][name], costs[sizes[-1]][name]
        slope = (last.peak_mib - first.peak_mib) * 2**20 / (sizes[-1] - sizes[0])
        print(f"{name:<16} {slope:7.0f} bytes of memory for each further row")
    if len(builds) > 1:
        for step in ("prepare", "score"):
            ours, theirs = (costs[sizes[-1]][f"{step}|{label}"] for label in ("ours", "theirs"))
            time, memory = ours.cpu_s / theirs.cpu_s, ours.peak_mib / theirs.peak_mib
            print(f"{step}: {time:.2f} of the time, {memory:.2f} of the memory")


if __name__ == "__main__":
    main()
