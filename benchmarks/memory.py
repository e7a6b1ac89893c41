"""Peak memory of preparing a large CSV and of feeding a training from it, beside the model.

    python benchmarks/memory.py --rows 100000

Draws a few panoramas and writes a CSV of that many rows about them, each with a text of its own. Each step then runs in
a process of its own, which imports what its job imports: prepare; the rows of a finetune stage with their lengths and
an epoch's order, and batches of views, of cached features, and of both with two worker processes. `imports` is the
memory after the imports and before the work; the model is tiny, its weights do not count.

Memory is what is resident. `beside them` is how far it rose: in the process, by the kernel's own high-water mark, or in
process and workers together where that is more, a page that several hold divided among them (PSS, looked at ten times
a second). Pages of mapped files, such as the view cache's, are in it, though the kernel takes them back where memory is
short; `private` is without them, and the least that counts: a library weighs less once others load it, too. What the
disk cache holds and nobody maps is nobody's, and not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ("behind", "you", "is", "a", "red", "box", "beside", "the", "window", "of", "an", "old", "hall", "광장", "전경")
PICTURES = 20


def write_csv(folder: Path, rows: int) -> None:
    """data.csv about 20 panoramas of noise; queries of about 60 characters, answers of about 200."""
    from panollava.data.synthetic.draw import png_bytes

    rng = np.random.default_rng(0)
    for number in range(PICTURES):
        (folder / f"{number}.png").write_bytes(png_bytes(rng.integers(0, 256, (256, 512, 3), dtype=np.uint8)))
    with (folder / "data.csv").open("w", encoding="utf-8") as stream:
        stream.write("url,query,annotation\n")
        for number in range(rows):
            words = rng.choice(WORDS, 52)
            stream.write(f"{number % PICTURES}.png,{number} {' '.join(words[:12])}?,{' '.join(words[12:])}.\n")


def prepare(folder: Path) -> Callable[[], None]:
    from panollava.data.prepare import prepare_csv

    def work() -> None:
        prepare_csv(
            [folder / "data.csv"], folder / "prepared.csv", folder / "rejected.csv", root=folder, progress=False
        )

    return work


def views(folder: Path) -> Callable[[], None]:
    from panollava.data.samples import read_rows
    from panollava.views.cache_build import build_view_cache
    from panollava.views.strategies import plan_views

    def work() -> None:
        paths = list(dict.fromkeys(row.image_path for row in read_rows(folder / "prepared.csv")))
        build_view_cache(paths, plan_views("anyres_e2p"), (64, 64), folder / "views", root=folder, progress=False)

    return work


def feed(folder: Path, cached: bool, workers: int) -> Callable[[], None]:
    """What `build_stage` and Lightning do with the rows, without steps between the batches."""
    import torch
    from random_models import EXP1, build_backbones

    import panollava.training.run_stage  # noqa: F401
    from panollava.data.batches import composition, picture_numbers
    from panollava.data.datamodule import StageDataModule
    from panollava.data.dataset import CaptionDataset, Collator
    from panollava.data.lengths import row_lengths
    from panollava.data.samples import read_rows
    from panollava.models.processor import PanoramaProcessor
    from panollava.models.vlm import PanoramaVLM
    from panollava.training.features import cached_features
    from panollava.views.cache import ViewCache

    config = build_backbones(folder / "backbones", EXP1, None)
    model = PanoramaVLM(config)

    def work() -> None:
        rows = read_rows(folder / "prepared.csv")
        pictures: Any = ViewCache.open(folder / "views")
        processor = PanoramaProcessor.for_model(config, model.vision)
        if cached:
            pictures = cached_features(model, processor, pictures, "noise", folder, device=torch.device("cpu"))
        assert model.prompt is not None
        collate, lengths = Collator(processor, model.prompt, 128, cached), row_lengths(model.prompt, rows, 128)
        compose = composition("group_by_image", 24, picture_numbers(rows), lengths)
        data = StageDataModule(
            CaptionDataset(rows, pictures), CaptionDataset(rows, pictures), collate, batch_size=24,
            num_workers=workers, seed=0, compose=compose,
        )  # fmt: skip
        for _, batch in zip(range(200), data.train_dataloader(), strict=False):
            assert len(batch["labels"]) == 24

    return work


STEPS: dict[str, Callable[[Path], Callable[[], None]]] = {
    "prepare": prepare,
    "cache views": views,
    "feed views": lambda folder: feed(folder, cached=False, workers=0),
    "feed features": lambda folder: feed(folder, cached=True, workers=0),
    "feed features, 2 workers": lambda folder: feed(folder, cached=True, workers=2),
}


def run_step(name: str, folder: Path) -> None:
    """In a process of its own: prints what the process held before and by how much that rose."""
    work = STEPS[name](folder)
    imports, before = own("VmRSS"), held()
    most = list(before)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            most[:] = map(max, most, held())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        work()
    finally:
        done.set()
    watching.join()
    rose, private = (high - low for high, low in zip(most, before, strict=True))
    print(json.dumps({"imports": imports, "rose": max(own("VmHWM") - imports, rose, private), "private": private}))


def own(name: str) -> float:
    """GiB of this process alone, by a name of /proc/self/status."""
    return int(read(Path("/proc/self/status")).split(f"{name}:")[1].split()[0]) / 2**20


def held() -> tuple[float, float]:
    """GiB of this process and its children: all that is resident, and what no file backs."""
    total = private = 0
    children = [child for task in Path("/proc/self/task").iterdir() for child in read(task / "children").split()]
    for process in ("self", *children):
        sizes = dict(line.split(":") for line in read(Path(f"/proc/{process}/smaps_rollup")).splitlines()[1:])
        total += int(sizes.get("Pss", "0 kB").split()[0])
        private += int(sizes.get("Pss_Anon", "0 kB").split()[0])
    return total / 2**20, private / 2**20


def read(path: Path) -> str:
    """The text of a file of a process or thread, empty once that has ended."""
    try:
        return path.read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        run_step(given.step, given.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        write_csv(Path(name), given.rows)
        size = (Path(name) / "data.csv").stat().st_size
        print(f"{given.rows} rows about {PICTURES} panoramas, a CSV of {size / 2**20:.0f} MiB; GiB")
        print(f"{'':26}{'imports':>9}{'beside them':>13}{'private':>9}")
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, "--folder", name]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                  env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{step:26}{found['imports']:>9.2f}{found['rose']:>13.2f}{found['private']:>9.2f}", flush=True)


if __name__ == "__main__":
    main()
