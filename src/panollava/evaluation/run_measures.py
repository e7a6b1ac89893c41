"""From a checkpoint and a prepared CSV to what `evaluation.extra` asks for: the jobs behind the rules
`measure_perplexity`, `measure_overlap` and `predict_rolled`, and their part of `panollava eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from panollava.checkpoints.loading import LoadedStage
from panollava.data.prepared_images import read_images, views_of_csv
from panollava.data.samples import Sample
from panollava.data.tables import write_table
from panollava.devices import first_device
from panollava.evaluation.measures import EXTRA_NODES
from panollava.evaluation.measures.measured import Measured
from panollava.evaluation.measures.overlap import overlap
from panollava.evaluation.measures.perplexity import perplexity
from panollava.evaluation.measures.rolled import COLUMNS, RolledPictures, picture_turns, rolled_samples
from panollava.evaluation.predict import FinishedAnswers, GenerationSettings, kept_answers, predict, shuffled_pictures
from panollava.evaluation.run_predict import generation_settings, load_chosen
from panollava.files import digest_of, sha256_file
from panollava.logs import LOGGER
from panollava.views.panorama import PanoramaError, Pixels

_PLOT_WIDTH = 720


def measure_perplexity_csv(
    config: dict[str, Any], digest: str, checkpoint: dict[str, Any], csv_path: Path, views: Path, output: Path
) -> None:
    """The perplexity of the references in `csv_path`, and blind."""
    training = config["training"]
    loaded, samples = load_chosen(config, checkpoint, csv_path)
    pictures = views_of_csv(views, csv_path)
    measured = perplexity(
        loaded.model, loaded.processor, samples, pictures, batch_size=training["eval_batch_size"],
        device=first_device(), stand_ins=shuffled_pictures(samples, training["seed"], pictures.sha256),
    )  # fmt: skip
    _write(measured, output, digest, checkpoint)


def measure_overlap_csv(
    config: dict[str, Any],
    digest: str,
    checkpoint: dict[str, Any],
    csv_path: Path,
    views: Path,
    output: Path,
    plot: Path,
) -> None:
    """Whether the views of the pictures in `csv_path` agree, and the plot of it."""
    loaded, samples = load_chosen(config, checkpoint, csv_path)
    pictures = views_of_csv(views, csv_path)
    stand_ins = shuffled_pictures(samples, config["training"]["seed"], pictures.sha256)
    measured = overlap_of(loaded, samples, pictures, Path(), stand_ins, plot, pictures.sha256)
    _write(measured, output, digest, checkpoint)


def overlap_of(
    loaded: LoadedStage,
    samples: list[Sample],
    pictures: Any,
    root: Path,
    stand_ins: Mapping[str, str] | None,
    plot: Path,
    sha256: Mapping[str, str] | None = None,
) -> Measured:
    """Measure and draw; the first panorama below `root` is the plot's example.

    Raises FileChanged where that is not the one that `sha256` (by image path) tells of.
    """
    from panollava.evaluation.measures.overlap_plot import plot_overlap  # matplotlib: only who draws waits for it

    paths = list(dict.fromkeys(sample.image_path for sample in samples))
    measured, agreements = overlap(
        loaded.model, loaded.processor, paths, pictures, device=first_device(), stand_ins=stand_ins
    )
    title = f"{loaded.metadata['experiment_name']}: do neighbouring views agree on what both see?"
    plot_overlap(agreements, plot, title, _panorama(loaded, root / paths[0], (sha256 or {}).get(paths[0])))
    return measured


def _panorama(loaded: LoadedStage, path: Path, sha256: str | None) -> Pixels | None:
    try:
        return loaded.processor.panorama(path, min_width=_PLOT_WIDTH, sha256=sha256)
    except PanoramaError as error:
        LOGGER.warning("the plot's panorama is not shown: %s", error)
        return None


def predict_rolled_csv(
    config: dict[str, Any], digest: str, checkpoint: dict[str, Any], csv_path: Path, output: Path, state: Path
) -> None:
    """Answer every (image, query) of `csv_path` once more with rolled panoramas. Killed, it goes on."""
    loaded, samples = load_chosen(config, checkpoint, csv_path)
    key = digest_of({"slice": digest, "checkpoint": checkpoint["sha256"], "csv": sha256_file(csv_path)})
    with kept_answers(state, key) as kept:
        settings = generation_settings(config)
        answer_rolled(loaded, samples, Path(), settings, output, kept("answers"), read_images(csv_path))


def answer_rolled(
    loaded: LoadedStage,
    samples: list[Sample],
    root: Path,
    settings: GenerationSettings,
    output: Path,
    finished: FinishedAnswers,
    sha256: Mapping[str, str] | None = None,
) -> None:
    """predictions_rolled.csv; a header only, where no turn fits both the views and the questions' words.

    Raises FileChanged for a panorama that is not the one that `sha256` (by image path) tells of.
    """
    processor = loaded.processor
    turns_deg = picture_turns(samples, processor.views)
    rows: list[tuple[str, ...]] = []
    if turns_deg:
        pictures = RolledPictures(
            processor.views, processor.image_size, processor.rendering, turns_deg, root, sha256=sha256
        )
        asked = rolled_samples(samples, turns_deg)
        answers = predict(
            loaded.model,
            processor,
            asked,
            pictures,
            settings,
            device=first_device(),
            finished=finished,
            by_picture=loaded.model.shares_prefix,
        )
        rows = [
            (str(one.sample_id), one.image_path, sample.query, str(turns_deg[one.image_path]), one.query, one.text,
             one.error)
            for sample, one in zip(samples, answers, strict=True)
        ]  # fmt: skip
    write_table(output, COLUMNS, rows)
    LOGGER.info("%d answers about rolled panoramas: %s", len(rows), output)


def measure_folder(
    loaded: LoadedStage,
    samples: list[Sample],
    pictures: Any,
    root: Path,
    extra: Sequence[str],
    settings: GenerationSettings,
    stand_ins: Mapping[str, str] | None,
    output: Path,
    kept: Callable[[str], FinishedAnswers],
) -> tuple[list[Path], Path | None]:
    """All that `extra` asks for, below `output`: the measures' files, and the answers about rolled panoramas.

    `kept` gives the answers that an earlier start has finished, by name.
    """
    asked, files = {EXTRA_NODES[key] for key in extra}, []
    provenance = {"checkpoint": loaded.checkpoint.sha256()}
    if "measure_perplexity" in asked:
        measured = perplexity(
            loaded.model, loaded.processor, samples, pictures, batch_size=settings.batch_size, device=first_device(),
            stand_ins=stand_ins,
        )  # fmt: skip
        files.append(output / "measures/perplexity.json")
        measured.write(files[-1], provenance)
    if "measure_overlap" in asked:
        measured = overlap_of(loaded, samples, pictures, root, stand_ins, output / "measures/overlap.png")
        files.append(output / "measures/overlap.json")
        measured.write(files[-1], provenance)
    if "predict_rolled" not in asked:
        return files, None
    answer_rolled(loaded, samples, root, settings, output / "predictions_rolled.csv", kept("predictions_rolled"))
    return files, output / "predictions_rolled.csv"


def _write(measured: Measured, output: Path, digest: str, checkpoint: dict[str, Any]) -> None:
    measured.write(output, {"config": digest, "checkpoint": checkpoint["sha256"]})
    for key, result in measured.metrics.items():
        value, blind = result.value, measured.blind[key]
        LOGGER.info("%s: %s, blind %s", key, result.reason if value is None else f"{value:.6f}",
                    "null" if blind is None else f"{blind:.6f}")  # fmt: skip
