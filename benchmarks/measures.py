"""What the further scores (docs/evaluation.md) say of weights that have learnt, and of weights that have not.

    python benchmarks/measures.py EXP1 --pictures 40 --yaw

Run from a project's root, with a finished experiment. A row for each of its stages, for its backbones as they were
before the first one, and for random weights; the blind value in brackets. Then the seconds that each score took for the
last stage. `--yaw` answers twice, with and without shuffled pictures, and once more with rolled ones.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from panollava.checkpoints.loading import load_stage
from panollava.config import WorkflowConfig
from panollava.data.samples import Sample, read_samples
from panollava.devices import first_device
from panollava.evaluation.measures.measured import EXTRA, Measured
from panollava.evaluation.measures.overlap import overlap
from panollava.evaluation.measures.perplexity import perplexity
from panollava.evaluation.measures.rolled import RolledPictures, equivariance, picture_turns, rolled_samples
from panollava.evaluation.of_folder import RenderedPictures
from panollava.evaluation.pipeline import generation_settings
from panollava.evaluation.predict import PredictionSettings, predict, shuffled_pictures
from panollava.models.processor import PanoramaProcessor
from panollava.models.vlm import PanoramaVLM

DEVICE = first_device()
SEED = 0


class Bench:
    """Some samples of a test set, and what is measured on them."""

    def __init__(self, samples: list[Sample], settings: PredictionSettings) -> None:
        self.samples, self.settings = samples, settings
        self.paths = list(dict.fromkeys(sample.image_path for sample in samples))
        self.stand_ins = shuffled_pictures(samples, SEED)
        self.seconds: dict[str, float] = {}

    def views(self, model: PanoramaVLM, processor: PanoramaProcessor) -> Measured:
        started = time.perf_counter()
        pictures = RenderedPictures(processor, Path())
        measured, _ = overlap(model, processor, self.paths, pictures, device=DEVICE, stand_ins=self.stand_ins)
        self.seconds["overlap_consistency, dino_similarity"] = time.perf_counter() - started
        return measured

    def words(self, model: PanoramaVLM, processor: PanoramaProcessor) -> Measured:
        started = time.perf_counter()
        measured = perplexity(
            model, processor, self.samples, RenderedPictures(processor, Path()), device=DEVICE,
            batch_size=self.settings.batch_size, stand_ins=self.stand_ins,
        )  # fmt: skip
        self.seconds["perplexity"] = time.perf_counter() - started
        return measured

    def turned(self, model: PanoramaVLM, processor: PanoramaProcessor) -> Measured:
        turns = picture_turns(self.samples, processor.views)
        plain = RenderedPictures(processor, Path())
        rolled = RolledPictures(processor.views, processor.image_size, processor.rendering, turns)
        first = self._answers(model, processor, self.samples, plain)
        blind = self._answers(model, processor, self.samples, plain, self.stand_ins)
        started = time.perf_counter()
        asked = rolled_samples(self.samples, turns)
        second = self._answers(model, processor, asked, rolled)
        self.seconds["yaw_equivariance, yaw_agreement"] = time.perf_counter() - started
        for sample, row, question in zip(self.samples, second, asked, strict=True):
            row |= {"original_query": sample.query, "asked": question.query,
                    "turn_deg": str(turns[sample.image_path])}  # fmt: skip
        return equivariance(first, second, blind)

    def _answers(
        self, model: PanoramaVLM, processor: PanoramaProcessor, samples: list[Sample], pictures: Any,
        stand_ins: dict[str, str] | None = None,
    ) -> list[dict[str, str]]:  # fmt: skip
        found = predict(model, processor, samples, pictures, self.settings, device=DEVICE, stand_ins=stand_ins)
        return [
            {"sample_id": str(one.sample_id), "image_path": one.image_path, "original_query": one.query,
             "prediction": one.text, "error": one.error}
            for one in found
        ]  # fmt: skip


def show(name: str, *measured: Measured) -> None:
    scores = {key: result.value for one in measured for key, result in one.metrics.items()}
    blind = {key: value for one in measured for key, value in one.blind.items()}
    cells = [
        f"{scores[key]:8.3f} ({blind[key]:.3f})" if scores.get(key) is not None and blind.get(key) is not None else "-"
        for key in EXTRA
    ]
    print(f"{name:<12}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--yaw", action="store_true")
    options = parser.parse_args()
    config = WorkflowConfig.load(options.experiment)
    names = config.names
    torch.set_num_threads(config.settings.training.cpu_threads)
    samples = read_samples(names.prepared("test"))
    paths = list(dict.fromkeys(sample.image_path for sample in samples))[: options.pictures]
    samples = [sample for sample in samples if sample.image_path in set(paths)]
    bench = Bench(samples, generation_settings(config.to_dict()))
    print(f"{options.experiment}: {len(samples)} questions about {len(paths)} pictures, {DEVICE.type}; (blind)")
    print(f"{'weights':<12}" + "".join(f"{key:>22}" for key in EXTRA))

    first = load_stage(names.stage_dir(names.stages[0]))
    torch.manual_seed(SEED)
    fresh = PanoramaVLM(first.model.config, with_language=False).eval()
    for module in fresh.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    show("random", bench.views(fresh, first.processor))
    torch.manual_seed(SEED)
    show("pre-trained", bench.views(PanoramaVLM(first.model.config, with_language=False).eval(), first.processor))
    for stage in names.stages:
        loaded = load_stage(names.stage_dir(stage))
        found = [bench.views(loaded.model, loaded.processor)]
        if loaded.model.language is not None:
            found.append(bench.words(loaded.model, loaded.processor))
            if options.yaw:
                found.append(bench.turned(loaded.model, loaded.processor))
        show(stage, *found)
    for key, seconds in bench.seconds.items():
        print(f"{seconds:8.1f} s  {key}")


if __name__ == "__main__":
    main()
