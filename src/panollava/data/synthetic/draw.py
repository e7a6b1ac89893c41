"""Draw the synthetic data set: a folder of panoramas and QuIC-360-style CSVs.

The folder holds `train.csv`, `val.csv` and `test.csv` (`image_path,query,annotation`; paths relative to the CSV),
`images/SPLIT_NNNNN.png`, `scenes.json` (what each picture shows) and `contact_sheet.png` (for the eye). Each scene
has a generator of its own, seeded by (seed, split, number): splits share no scene, scenes can be drawn in any order
by any number of processes, and the same seed gives the same bytes. PNGs are compressed fast rather than small.
"""

from __future__ import annotations

import csv
import io
import os
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from panollava.config.embedded import SyntheticSettings
from panollava.config.names import SPLITS
from panollava.data.details import columns_of
from panollava.data.synthetic.captions import DrawnQuestion, draw_questions, questions
from panollava.data.synthetic.exact import draw_typed, exact_questions
from panollava.data.synthetic.scenes import Scene, render, sample_scene
from panollava.files import atomic_path, write_json, write_text
from panollava.processes import die_with_parent
from panollava.progress import track
from panollava.views.geometry import view_rays
from panollava.views.strategies import GLOBAL_VIEW

_SHEET_COLUMNS, _SHEET_ROWS, _SHEET_WIDTH = 3, 4, 384
_FEWEST_FOR_PROCESSES = 48  # below, starting processes costs more than it saves


@dataclass(frozen=True)
class DrawnScene:
    """A scene of a split, its picture's path relative to the data folder, and its questions."""

    image_path: str
    scene: Scene
    questions: tuple[DrawnQuestion, ...]
    every_question: tuple[DrawnQuestion, ...] = field(repr=False)


def draw_synthetic(
    settings: SyntheticSettings, folder: str | Path, progress: bool = True, workers: int | None = None
) -> None:
    """Write the data set into `folder`, the CSVs last; `workers` is None for one process per usable core."""
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    jobs = [(split, number) for split in SPLITS for number in range(_count(settings, split))]
    draw_one = partial(_draw_scene, settings, folder)
    drawn: dict[str, list[DrawnScene]] = {split: [] for split in SPLITS}
    scenes = _in_processes(draw_one, jobs, workers)
    for (split, _), scene in zip(jobs, track(scenes, len(jobs), "Drawing panoramas", enabled=progress), strict=True):
        drawn[split].append(scene)
    write_json(
        folder / "scenes.json",
        {one.image_path: one.scene.to_json() for split in SPLITS for one in drawn[split]},
    )
    _write_contact_sheet(folder / "contact_sheet.png", folder, drawn["train"])
    for split in SPLITS:
        write_text(folder / f"{split}.csv", _csv_text(settings, split, drawn[split]))


def _count(settings: SyntheticSettings, split: str) -> int:
    return int(getattr(settings, f"{split}_scenes"))


def _in_processes(
    draw_one: partial[DrawnScene], jobs: list[tuple[str, int]], workers: int | None
) -> Iterator[DrawnScene]:
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 2 or len(jobs) < _FEWEST_FOR_PROCESSES:
        yield from map(draw_one, jobs)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), die_with_parent) as pool:
        yield from pool.map(draw_one, jobs, chunksize=8)


def _draw_scene(settings: SyntheticSettings, folder: Path, job: tuple[str, int]) -> DrawnScene:
    """Draw one picture, write it, and ask the questions of its split."""
    split, number = job
    rng = np.random.default_rng([settings.seed, SPLITS.index(split), number])
    scene = sample_scene(rng)
    colours, _ = render(scene, _panorama_rays(settings.image_height))
    image_path = f"images/{split}_{number:05d}.png"
    (folder / image_path).write_bytes(png_bytes(colours))
    every = tuple(questions(scene))
    types = settings.question_types
    if types == ["text"]:
        asked = tuple(draw_questions(rng, scene, settings.train_queries)) if split == "train" else every
        return DrawnScene(image_path, scene, asked, every)
    typed = tuple(question for kind in types if kind != "text" for question in exact_questions(rng, scene, kind))
    every = (*every, *typed) if "text" in types else typed
    if split != "train":
        return DrawnScene(image_path, scene, every, every)
    exact = [kind for kind in types if kind != "text"]
    asked = tuple(
        question
        for kind in rng.choice(types, settings.train_queries)
        for question in (
            draw_questions(rng, scene, 1)
            if kind == "text"
            else draw_typed(rng, scene, [kind], 1) or draw_typed(rng, scene, exact, 1)
        )
    )
    return DrawnScene(image_path, scene, asked, every)


@cache
def _panorama_rays(height: int) -> NDArray[np.float32]:
    return view_rays(GLOBAL_VIEW, height, 2 * height).astype(np.float32)


def png_bytes(colours: NDArray[np.uint8]) -> bytes:
    """An RGB picture [H, W, 3] as PNG, always with the same encoder settings."""
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG", compress_level=1, optimize=False)
    return buffer.getvalue()


def _csv_text(settings: SyntheticSettings, split: str, drawn: list[DrawnScene]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    further = columns_of(question.details for one in drawn for question in one.questions)
    writer.writerow(["image_path", "query", "annotation", *further])
    for number, one in enumerate(drawn):
        rng = np.random.default_rng([settings.seed, len(SPLITS) + SPLITS.index(split), number])
        for question in one.questions:
            references = list(question.references)
            if split == "train":
                rng.shuffle(references)
                references = references[: settings.train_annotations]
            details = question.details.to_fields()
            fields = [details.get(name, "") for name in further]
            writer.writerows([one.image_path, question.query, reference, *fields] for reference in references)
    return buffer.getvalue()


def _write_contact_sheet(path: Path, folder: Path, drawn: list[DrawnScene]) -> None:
    """Some pictures with a query and an answer under each, so that a person can check the set at a glance."""
    font = ImageFont.load_default()
    tile_height = _SHEET_WIDTH // 2 + 56
    sheet = Image.new("RGB", (_SHEET_COLUMNS * _SHEET_WIDTH, _SHEET_ROWS * tile_height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, one in enumerate(drawn[: _SHEET_COLUMNS * _SHEET_ROWS]):
        left, top = number % _SHEET_COLUMNS * _SHEET_WIDTH, number // _SHEET_COLUMNS * tile_height
        with Image.open(folder / one.image_path) as picture:
            sheet.paste(picture.resize((_SHEET_WIDTH, _SHEET_WIDTH // 2)), (left, top))
        question = one.every_question[-1 - number % len(one.every_question)]
        lines = [question.query, *textwrap.wrap(question.references[0], 64)]
        pen.multiline_text((left + 4, top + _SHEET_WIDTH // 2 + 2), "\n".join(lines), "black", font, spacing=1)
    with atomic_path(path) as partial_path:
        partial_path.write_bytes(png_bytes(np.asarray(sheet)))
