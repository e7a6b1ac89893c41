"""Answers a second in batches against one by one, and whether they are the same answers.

    python benchmarks/generate.py                                                         # random weights, EXP1's sizes
    python benchmarks/generate.py --checkpoint-dir runs/EXP1/finetune/anyres-e2p_mlp      # what EXP1 trained

Draws scenes and asks the questions of EXP1's test set about them, `--samples` in all. Greedy, with one batch size after
the other in one process; samples a second are of the clock, CPU milliseconds of all threads. Answers that differ from
those of batch size 1 are counted: sums are rounded differently, which decides where two words are equally likely. Then
samples, twice with one seed. Answers of random weights never end, so those of a trained model are the fairer measure.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_models import EXP1, build_backbones

from panollava.checkpoints.loading import load_stage
from panollava.data.samples import Sample
from panollava.data.synthetic.captions import questions
from panollava.data.synthetic.scenes import render, sample_scene
from panollava.devices import first_device
from panollava.evaluation.predict import PredictionSettings, predict
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM
from panollava.views.geometry import view_rays


def load(checkpoint: Path | None, folder: Path) -> tuple[PanoramaVLM, PanoramaProcessor]:
    if checkpoint is not None:
        loaded = load_stage(checkpoint)
        return loaded.model, loaded.processor
    config = build_backbones(folder, EXP1, None)
    torch.manual_seed(1)
    model = PanoramaVLM(config)
    return model.eval(), PanoramaProcessor.for_model(config, model.vision)


def draw(processor: PanoramaProcessor, count: int) -> tuple[list[Sample], dict[str, np.ndarray]]:
    """Samples, all questions of scene after scene, and each scene's views, uint8 [V, h, w, 3]."""
    rng = np.random.default_rng(7)
    samples: list[Sample] = []
    pictures: dict[str, np.ndarray] = {}
    while len(samples) < count:
        scene, path = sample_scene(rng), f"{len(pictures)}.png"
        pictures[path] = np.stack(
            [render(scene, view_rays(view, *processor.image_size))[0] for view in processor.views]
        )
        for question in questions(scene)[: count - len(samples)]:
            samples.append(Sample(len(samples), path, question.query, question.references))
    return samples, pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(given.threads)
    device = first_device()
    with tempfile.TemporaryDirectory() as folder:
        model, processor = load(given.checkpoint_dir, Path(folder))
    samples, pictures = draw(processor, given.samples)
    settings = PredictionSettings(given.max_new_tokens, False, 1.0, 1.0, batch_size=1, seed=0)

    def answer(some: list[Sample], **changes: Any) -> list[str]:
        changed = replace(settings, **changes)
        return [one.text for one in predict(model, processor, some, pictures, changed, device=device)]

    answer(samples[:8], batch_size=8)  # warms up
    print(
        f"{given.checkpoint_dir or 'random weights'}: {len(samples)} samples about {len(pictures)} pictures, {device}"
    )
    print(f"{'batch':>6}{'samples/s':>11}{'CPU ms':>9}{'times':>7}{'other answers':>15}")
    first: tuple[float, list[str]] | None = None
    for size in given.batch_sizes:
        cpu, wall = time.process_time(), time.perf_counter()
        texts = answer(samples, batch_size=size)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        cost = wall if device.type == "cuda" else cpu
        first = first or (cost, texts)
        other = sum(one != two for one, two in zip(texts, first[1], strict=True))
        print(
            f"{size:>6}{len(samples) / wall:>11.2f}{1000 * cpu / len(samples):>9.1f}{first[0] / cost:>7.2f}{other:>15}",
            flush=True,
        )
    sampling: dict[str, Any] = {
        "do_sample": True,
        "temperature": 1.0,
        "top_p": 0.9,
        "batch_size": given.batch_sizes[-1],
    }
    once, again, greedy = answer(samples, **sampling), answer(samples, **sampling), first[1] if first else []
    print(f"sampled: {'the same' if once == again else 'OTHER'} answers again with one seed, ", end="")
    print(f"{sum(a != b for a, b in zip(once, greedy, strict=True))} other than greedy")


if __name__ == "__main__":
    main()
