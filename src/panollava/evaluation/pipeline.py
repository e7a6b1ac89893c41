"""The steps of an evaluation, each written once: the DAG's jobs take one each, `panollava eval` one after the other.

Each step takes a model, the questions and their images (`Evaluation`) and writes its file
(`config.names.RESULT_FILES`): answers, those of a control, those about rolled panoramas, a measure. `score_files`
combines them into metrics.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from panollava.checkpoints.loading import LoadedStage
from panollava.data.dataset import PictureStore
from panollava.data.prepared_images import digests_of_pictures
from panollava.data.samples import Sample, last_turns
from panollava.data.tables import write_table
from panollava.devices import first_device
from panollava.evaluation.measures.measured import Measured
from panollava.evaluation.measures.overlap import overlap
from panollava.evaluation.measures.perplexity import perplexity
from panollava.evaluation.measures.rolled import COLUMNS, RolledPictures, picture_turns, rolled_samples
from panollava.evaluation.predict import (
    FinishedAnswers,
    PredictionSettings,
    predict,
    shuffled_options,
    shuffled_pictures,
)
from panollava.evaluation.predictions import Prediction, write_predictions
from panollava.logs import LOGGER
from panollava.versions import package_versions
from panollava.views.panorama import PanoramaError, Pixels

_PLOT_WIDTH = 720


def prediction_settings(config: Mapping[str, Any]) -> PredictionSettings:
    """From a configuration (or slice) with the sections `generation` and `training`."""
    generation = config["generation"]
    return PredictionSettings(
        max_new_tokens=generation["max_new_tokens"],
        do_sample=generation["do_sample"],
        temperature=generation["temperature"],
        top_p=generation["top_p"],
        batch_size=config["training"]["eval_batch_size"],
        seed=config["training"]["seed"],
    )


def as_shown(samples: list[Sample], evaluation: Mapping[str, Any], seed: int) -> list[Sample]:
    """The samples that `evaluation.turns` has asked, with their options in the order that `evaluation.shuffle_options`
    has them shown in."""
    if evaluation.get("turns", "last") == "last":
        samples = last_turns(samples)
    return shuffled_options(samples, seed) if evaluation.get("shuffle_options", False) else samples


@dataclass(frozen=True)
class Evaluation:
    """A model and its questions. `pictures` gives the views of an image path, `contents` its SHA-256, where known.

    Panoramas themselves are read below `root`; with `refuse_changed` one whose content is another by now raises
    FileChanged.
    """

    loaded: LoadedStage
    samples: list[Sample]
    pictures: PictureStore
    contents: Mapping[str, str]
    seed: int
    root: Path = Path()
    refuse_changed: bool = True
    log_every: int = 25

    @cached_property
    def stand_ins(self) -> dict[str, str] | None:
        """The blind control's picture for each image path; None where there is only one picture."""
        return shuffled_pictures(self.samples, self.seed, self.contents)

    def can_shuffle(self, what: object) -> bool:
        """Whether `what` has a blind control; where it has none, the log says so."""
        if self.stand_ins is None:
            LOGGER.warning("%s holds one picture only: nothing to shuffle, so no blind control", what)
        return self.stand_ins is not None

    # ---- answers ---------------------------------------------------------------------------------
    def predict(
        self, node: str, settings: PredictionSettings, output: Path, finished: FinishedAnswers
    ) -> list[Prediction]:
        """Answer every sample. `node` is `predict`, or a control: `predict_blind` shows each sample another picture
        (a file without rows where there is only one), `predict_text_only` none."""
        predictions = self.answers(node, settings, finished)
        write_predictions(output, predictions)
        failed = sum(bool(one.error) for one in predictions)
        LOGGER.info("%d predictions, %d failed: %s", len(predictions), failed, output)
        return predictions

    def answers(
        self,
        node: str,
        settings: PredictionSettings,
        finished: FinishedAnswers,
        part: tuple[int, int] | None = None,
        device: torch.device | None = None,
    ) -> list[Prediction]:
        """What `predict` writes, or the k-th `part` of n of it; none for a blind control of a single picture."""
        if node == "predict_blind" and self.stand_ins is None:
            return []
        return predict(
            self.loaded.model,
            self.loaded.processor,
            self.samples,
            self.pictures,
            settings,
            device=device or first_device(),
            stand_ins=self.stand_ins if node == "predict_blind" else None,
            finished=finished,
            log_every=self.log_every,
            group_by_image=self.loaded.model.shares_prefix,
            text_only=node == "predict_text_only",
            part=part,
        )

    def predict_rolled(self, settings: PredictionSettings, output: Path, finished: FinishedAnswers) -> None:
        """Ask about rolled panoramas; a header only, where no turn fits both the views and the questions' words."""
        processor, sha256 = self.loaded.processor, self.contents if self.refuse_changed else None
        turns_deg = picture_turns(self.samples, processor.views)
        rows: list[tuple[str, ...]] = []
        if turns_deg:
            answers = predict(
                self.loaded.model,
                processor,
                rolled_samples(self.samples, turns_deg),
                RolledPictures(
                    processor.views, processor.image_size, processor.rendering, turns_deg, self.root, sha256=sha256
                ),
                settings,
                device=first_device(),
                finished=finished,
                log_every=self.log_every,
                group_by_image=self.loaded.model.shares_prefix,
            )
            rows = [
                (str(one.sample_id), one.image_path, sample.query, str(turns_deg[one.image_path]), one.query, one.text,
                 one.error)
                for sample, one in zip(self.samples, answers, strict=True)
            ]  # fmt: skip
        write_table(output, COLUMNS, rows)
        LOGGER.info("%d answers about rolled panoramas: %s", len(rows), output)

    # ---- measures --------------------------------------------------------------------------------
    def measure_perplexity(self, batch_size: int, output: Path, provenance: Mapping[str, Any]) -> None:
        """The perplexity of the references, and blind."""
        measured = perplexity(
            self.loaded.model, self.loaded.processor, self.samples, self.pictures, batch_size=batch_size,
            device=first_device(), stand_ins=self.stand_ins,
        )  # fmt: skip
        _write(measured, output, provenance)

    def measure_overlap(self, output: Path, plot: Path, provenance: Mapping[str, Any]) -> None:
        """Whether the views of the pictures agree, and the plot of it, with the first panorama as its example."""
        from panollava.evaluation.measures.overlap_plot import plot_overlap  # matplotlib: only who draws waits for it

        paths = list(dict.fromkeys(sample.image_path for sample in self.samples))
        measured, agreements = overlap(
            self.loaded.model, self.loaded.processor, paths, self.pictures, device=first_device(),
            stand_ins=self.stand_ins,
        )  # fmt: skip
        title = f"{self.loaded.metadata['experiment_name']}: do neighbouring views agree on what both see?"
        plot_overlap(agreements, plot, title, self._example(paths[0]))
        _write(measured, output, provenance)

    def _example(self, path: str) -> Pixels | None:
        sha256 = self.contents.get(path) if self.refuse_changed else None
        try:
            return self.loaded.processor.panorama(self.root / path, min_width=_PLOT_WIDTH, sha256=sha256)
        except PanoramaError as error:
            LOGGER.warning("the plot's panorama is not shown: %s", error)
            return None

    # ---- provenance ------------------------------------------------------------------------------
    def provenance(self, csv: Mapping[str, Any], settings: PredictionSettings) -> dict[str, Any]:
        """What answers depend on beside the weights: questions (`csv`: path, sha256), pictures, settings, seed, device,
        dtype, versions of libraries."""
        return {
            "csv": dict(csv),
            "pictures": digests_of_pictures(self.contents, (sample.image_path for sample in self.samples)),
            **self.made_with(settings),
        }

    def made_with(self, settings: PredictionSettings) -> dict[str, Any]:
        """The part of `provenance` that is about the model and the machine."""
        generation = asdict(settings)
        return {
            "seed": generation.pop("seed"),
            "device": _device_name(first_device()),
            "dtype": str(self.loaded.model.dtype).removeprefix("torch."),
            "generation": generation,
            "predicted_with": package_versions(),
        }


def _write(measured: Measured, output: Path, provenance: Mapping[str, Any]) -> None:
    measured.write(output, provenance)
    for key, result in measured.metrics.items():
        value, blind = result.value, measured.blind[key]
        LOGGER.info("%s: %s, blind %s", key, result.reason if value is None else f"{value:.6f}",
                    "null" if blind is None else f"{blind:.6f}")  # fmt: skip


def _device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
