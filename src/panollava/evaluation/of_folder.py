"""`panollava eval`: evaluate a stage folder and write metrics.json.

Takes a folder and the user's overrides, and writes predictions.csv, predictions_blind.csv and metrics.json to the
output folder. What the weights depend on comes from the folder's metadata; settings of generation and evaluation come
from the command line, else from a configuration, else from what the folder remembers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from panollava.checkpoints.any_folder import open_stage
from panollava.checkpoints.loading import LoadedStage
from panollava.config.names import OVERLAP_PLOT, RESULT_FILES
from panollava.config.schema import MINIATURE_LANGUAGE
from panollava.data.download import ImageCache
from panollava.data.formats import read_source
from panollava.data.prepare import prepare_csv
from panollava.data.prepared_images import IMAGES, read_images
from panollava.data.samples import Sample, has_right_answers, read_samples
from panollava.errors import DataError, EvaluationError, PanollavaError
from panollava.evaluation.answer import refuse_without_language
from panollava.evaluation.config_mismatches import config_mismatches, describe
from panollava.evaluation.measures import measures_of
from panollava.evaluation.pipeline import Evaluation, as_shown, prediction_settings
from panollava.evaluation.predict import answers_in_locked
from panollava.evaluation.predictions import Prediction, read_predictions
from panollava.evaluation.protocols import PROTOCOLS
from panollava.evaluation.run_judge import JudgeJob, judge_files, judges_of
from panollava.evaluation.score import require_metrics
from panollava.evaluation.score_files import DEFAULTS, check_output, score_files
from panollava.files import digest_of, sha256_file
from panollava.locks import FolderLock
from panollava.logs import LOGGER
from panollava.models.processor import PanoramaProcessor
from panollava.trust import find_inside, runnable_metrics

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

_RESULTS = ("metrics.json", *RESULT_FILES.values(), OVERLAP_PLOT)


@dataclass(frozen=True)
class EvalRequest:
    """What a user asks for; None means: as the configuration says, else as the folder remembers.

    Without `checkpoint_dir` the experiment's own folder is evaluated, or its model as it comes where it trains none.
    """

    checkpoint_dir: Path | None
    stage: str | None = None
    csv_input: Path | None = None
    max_samples: int | None = None
    epoch: int | None = None
    step: int | None = None
    batch_size: int | None = None
    protocol: str | None = None
    output_dir: Path | None = None
    log_samples: bool = False
    log_interval: int = 25
    log_max_samples: int = 50
    image_cache: Path = Path("cache/images")
    extra: list[str] | None = None
    results_dir: Path = Path("results")
    custom_metrics: list[str] | None = None
    judge: dict[str, Any] | None = None
    """`evaluation.judge`'s keys that the user gives for this evaluation."""
    replies: Path = Path("cache/judge")
    answers_version: int | None = None
    """The code's version behind answers (`dag.nodes`): those of another one are not kept."""

    def __post_init__(self) -> None:
        """Report wrong arguments before anything is written."""
        least = {"max_samples": 1, "epoch": 0, "step": 1, "batch_size": 1, "log_interval": 1, "log_max_samples": 1}
        for name, lowest in least.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be a whole number, got {value!r}")
            if value < lowest:
                raise ValueError(f"{name} must be >= {lowest}, got {value}")
        if self.protocol is not None and self.protocol not in PROTOCOLS:
            raise EvaluationError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}.")


class RenderedPictures:
    """Views rendered when they are asked for: what a cache would hold, byte for byte. Paths start at `root`."""

    def __init__(self, processor: PanoramaProcessor, root: Path) -> None:
        self.processor, self.root = processor, root

    def __getitem__(self, image_path: str) -> np.ndarray:
        return self.processor.open(self.root / image_path)


def evaluate_folder(
    request: EvalRequest, experiment: WorkflowConfig | None = None, settings: dict[str, Any] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Predict and score; returns metrics.json's path and document.

    The settings of generation and evaluation of `experiment` (and, before them, `settings`: sections generation,
    evaluation, training, data) override what the folder remembers; those that the weights depend on do not: one
    warning lists the keys on which it and the folder disagree. `experiment` replaces the metadata of a folder
    without. Custom metrics that only the folder names do not run (see `trust`). Killed, the same call goes on with the
    answers that are there. Raises CheckpointError, DataError and EvaluationError with what to do instead.
    """
    loaded = open_stage(request.checkpoint_dir, experiment, stage=request.stage, epoch=request.epoch, step=request.step)
    refuse_without_language(loaded.model, request.checkpoint_dir or loaded.checkpoint.folder)
    for line in describe(loaded):
        LOGGER.info(line)
    if experiment is not None and loaded.metadata["stage"] is not None:
        differing = config_mismatches(experiment, loaded.metadata, csv_chosen=request.csv_input is not None)
        if differing:
            LOGGER.warning("the configuration differs from the folder, which counts: %s", "; ".join(differing))
    remembered = _settings(loaded.metadata["remembered"], experiment, settings)
    torch.set_num_threads(remembered["training"]["cpu_threads"])
    generation = prediction_settings(remembered)
    if request.batch_size is not None:
        generation = replace(generation, batch_size=request.batch_size)
    evaluation = remembered["evaluation"]
    evaluation["protocol"] = request.protocol or evaluation["protocol"]
    if request.extra is not None:
        evaluation["extra"] = request.extra
    if request.custom_metrics is not None:
        evaluation["custom_metrics"] = request.custom_metrics
    elif experiment is None and "custom_metrics" not in (settings or {}).get("evaluation", {}):
        _only_trusted_metrics(evaluation)
    evaluation["judge"] = _judge_of(request, experiment, evaluation, (settings or {}).get("evaluation", {}))
    require_metrics(evaluation["metrics"], evaluation["protocol"])

    csv_path, why = _csv_of(request, loaded)
    LOGGER.info("questions: %s (%s)", csv_path, why)
    output = request.output_dir or request.results_dir / loaded.metadata["experiment_name"] / "eval" / csv_path.stem
    check_output(output, csv_path, ("prepared.csv", "rejected.csv", *_RESULTS))
    foreign = request.csv_input is None and not loaded.made_here
    # A CSV of the project names its pictures from the project's root, wherever the command runs.
    inside = csv_path.resolve().is_relative_to(loaded.project_root.resolve())
    root = loaded.project_root if inside else Path.cwd()
    # What the folder remembers is the format of its own data, not of a file that is named now.
    own = request.csv_input is not None and experiment is None
    format = "auto" if own else remembered["data"]["format"]
    check_questions(csv_path, remembered["data"]["columns"], format)  # what cannot be read leaves nothing behind
    with FolderLock(output / ".state"):  # from the first file to the last: two evaluations shall not mix
        prepare_csv(
            [csv_path],
            output / "prepared.csv",
            output / "rejected.csv",
            columns=remembered["data"]["columns"],
            format=format,
            max_rejected_fraction=remembered["data"]["max_rejected_fraction"],
            root=root,
            fetch=ImageCache(
                request.image_cache,
                allow_private=experiment is not None and experiment.settings.data.allow_private_addresses,
            ),
            instruct=evaluation["answer_instruction"],
            within=[csv_path.parent, loaded.project_root, Path()] if foreign else None,
        )
        samples = as_shown(read_samples(output / "prepared.csv"), evaluation, generation.seed)
        for name in _RESULTS:
            (output / name).unlink(missing_ok=True)  # what fails from here on must not leave an older result
        if request.max_samples is not None:
            samples = samples[: request.max_samples]

        contents = read_images(output / "prepared.csv") or {}
        (output / IMAGES).unlink(missing_ok=True)  # for jobs that follow one another in the DAG
        work = Evaluation(
            loaded, samples, RenderedPictures(loaded.processor, root), contents, generation.seed, root,
            refuse_changed=False, log_every=request.log_interval,
        )  # fmt: skip
        csv = {"path": str(csv_path), "sha256": sha256_file(csv_path), "chosen_as": why,
               "max_samples": request.max_samples}  # fmt: skip
        checkpoint = {
            "folder": str(loaded.checkpoint.folder),
            "file": loaded.checkpoint.name,
            "chosen_as": loaded.checkpoint.chosen_as,
            "sha256": loaded.checkpoint.sha256(),
            "config_digest": loaded.metadata["checkpoint_info"]["config_digest"],
        }
        made = {
            "config": digest_of([remembered, checkpoint["config_digest"]]),
            "checkpoint": checkpoint,
            **work.provenance(csv, generation),
        }
        key = digest_of([request.answers_version, made, loaded.metadata["model_config"], _pictures_of(samples, root)])
        steps = _steps(work, evaluation, csv_path)
        judges = _judges(experiment, evaluation, remembered["training"])
        files = {step: output / RESULT_FILES[step] for step in steps}
        with answers_in_locked(output / ".state", key) as kept:
            for step, file in files.items():
                if step == "measure_perplexity":
                    work.measure_perplexity(generation.batch_size, file, {"checkpoint": checkpoint["sha256"]})
                elif step == "measure_overlap":
                    work.measure_overlap(file, output / OVERLAP_PLOT, {"checkpoint": checkpoint["sha256"]})
                elif step == "predict_rolled":
                    work.predict_rolled(generation, file, kept(file.stem))
                else:
                    predictions = work.predict(step, generation, file, kept(file.stem))
                    if step == "predict" and request.log_samples:
                        _log_samples(predictions[: request.log_max_samples])
            if judges is not None:
                files["judge"] = output / RESULT_FILES["judge"]
                controls = {name: files.get(f"predict_{name}") for name in ("blind", "text_only")}
                judge_files(judges, files["predict"], controls, files["judge"], request.replies, {})
            document = score_files(files, evaluation, output / "metrics.json", made)
    return output / "metrics.json", document


def check_questions(path: Path, columns: Mapping[str, str | None], format: str) -> None:
    """Raise DataError for a file that holds no questions; of one that holds predictions it says how they are scored."""
    try:
        read_source(path, columns, format)
    except DataError as error:
        try:
            read_predictions(path)
        except PanollavaError:
            raise error from None
        raise DataError(
            f"{error}. It holds predictions: --csv-input without --checkpoint-dir and --config scores them"
        ) from None


def _steps(work: Evaluation, evaluation: Mapping[str, Any], csv_path: Path) -> list[str]:
    """The steps that `evaluation.*` asks for, by their nodes in the DAG, in its order."""
    text_only = evaluation["text_only_control"]
    wanted = {"predict", *measures_of(evaluation["extra"])}
    if evaluation["blind_control"] and work.can_shuffle(csv_path):
        wanted.add("predict_blind")
    if has_right_answers(work.samples) if text_only == "auto" else text_only:
        wanted.add("predict_text_only")
    return [step for step in RESULT_FILES if step in wanted]


def _judge_of(
    request: EvalRequest, experiment: WorkflowConfig | None, evaluation: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """`evaluation.judge` as the user or the configuration has it. A judge that only the folder names is not loaded."""
    if request.judge is not None:
        return {**DEFAULTS["judge"], **request.judge}
    judge = {**DEFAULTS["judge"], **evaluation["judge"]}
    if experiment is None and "judge" not in given and judge["model"] is not None:
        LOGGER.info("the folder was judged by %s, which is not loaded without --judge", judge["model"])
        return dict(DEFAULTS["judge"])
    return judge


def _judges(
    experiment: WorkflowConfig | None, evaluation: Mapping[str, Any], training: Mapping[str, Any]
) -> JudgeJob | None:
    if evaluation["judge"]["model"] is None:
        return None
    models = None if experiment is None else experiment.settings.models
    built = None
    if experiment is not None and models is not None and models.language_model_name == MINIATURE_LANGUAGE:
        built = experiment.backbone_folder("language")
    return judges_of(evaluation, training, models is not None and models.trust_remote_code, built)


def _only_trusted_metrics(evaluation: dict[str, Any]) -> None:
    """Of the custom metrics that a folder remembers, keep those that may run; the others get the reason why not."""
    evaluation["custom_metrics"], evaluation["not_run"] = runnable_metrics(evaluation["custom_metrics"])
    for why in evaluation["not_run"].values():
        LOGGER.warning("%s", why)


def _settings(
    remembered: dict[str, Any], experiment: WorkflowConfig | None, settings: dict[str, Any] | None
) -> dict[str, Any]:
    """The sections generation, evaluation, training and data: what is given over what the folder remembers."""
    chosen = dict(remembered)
    if experiment is not None:
        merged = experiment.to_dict()
        chosen |= {section: merged[section] for section in ("generation", "evaluation", "training", "data")}
    for section, values in (settings or {}).items():
        chosen[section] = {**chosen[section], **values}
    return {**chosen, "evaluation": {**DEFAULTS, **chosen["evaluation"]}}


def _pictures_of(samples: list[Sample], root: Path) -> list[list[Any]]:
    """Size and time of each picture: answers about one that has changed since are not kept."""
    found: list[list[Any]] = []
    for path in dict.fromkeys(sample.image_path for sample in samples):
        try:
            stat = (root / path).stat()
            found.append([path, stat.st_size, stat.st_mtime_ns])
        except OSError:
            found.append([path, None, None])
    return found


def _csv_of(request: EvalRequest, loaded: LoadedStage) -> tuple[Path, str]:
    if request.csv_input is not None:
        return request.csv_input, "--csv-input"
    dataset = loaded.metadata["dataset"]
    for key in ("test_csv", "val_csv"):
        configured = dataset.get(key)
        paths = [configured] if isinstance(configured, str) else configured or []
        if len(paths) > 1:
            raise EvaluationError(f"the folder's {key} is a list ({', '.join(paths)}): name one with --csv-input")
        if paths:
            whose = "the folder's" if loaded.metadata["stage"] else "the configuration's"
            return _named_csv(paths[0], key, loaded), f"{whose} {key}"
    whose = "the folder" if loaded.metadata["stage"] else f"the configuration of {loaded.metadata['experiment_name']}"
    raise EvaluationError(f"{whose} names no test or validation CSV: pass --csv-input")


def _named_csv(named: str, key: str, loaded: LoadedStage) -> Path:
    """The CSV that a folder names: in its project or the working folder; elsewhere, where it was made here."""
    path = loaded.project_root / named
    found = find_inside(named, [loaded.project_root, Path()])
    if found is None and path.exists() and not loaded.made_here:
        raise EvaluationError(
            f"the folder's {key} is {named!r}, which lies outside of its project and of the working folder, so it is "
            "not opened: pass --csv-input"
        )
    return found or path


def _log_samples(predictions: list[Prediction]) -> None:
    for item in predictions:
        LOGGER.info("[%d] %s | %s -> %r, expected %r", item.sample_id, item.image_path, item.query, item.text,
                    list(item.references))  # fmt: skip
