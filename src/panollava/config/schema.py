"""Every setting: its type, default, range and meaning. The schema is the source of `config/default.yaml`.

`Settings` is made from a merged YAML document and never changes. Field descriptions are what `config/default.yaml`
shows as comments (a test compares them). The model's own settings are in `settings/model.py`, types that take odd
values in `settings/values.py`, checks of two keys in `checks.py`, the wording of errors in `messages.py`. Strict types:
`"3"` is not 3 and `1` is not true, because YAML already knows the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from panollava.config.embedded import MiniatureSettings, SyntheticSettings
from panollava.models.choices import MINIATURE_LANGUAGE as MINIATURE_LANGUAGE
from panollava.models.choices import MINIATURE_VISION as MINIATURE_VISION
from panollava.models.choices import MINIATURE_VLM as MINIATURE_VLM
from panollava.models.choices import STAGES as STAGES
from panollava.models.choices import Stage, VisionLoss
from panollava.settings.choices import JUDGE_NAMES
from panollava.settings.choices import ExtraName as ExtraName
from panollava.settings.choices import FormatName as FormatName
from panollava.settings.choices import MetricName as MetricName
from panollava.settings.choices import Protocol as Protocol
from panollava.settings.model import (
    DenseclSettings,
    LoraSettings,
    ModelParts,
    OverlapLossSettings,
    VicregSettings,
    ViewReadingSettings,
    names,
)
from panollava.settings.section import Section, key
from panollava.settings.values import NAME_MAX_LENGTH as NAME_MAX_LENGTH
from panollava.settings.values import NAME_PATTERN as NAME_PATTERN
from panollava.settings.values import SYNTHETIC as SYNTHETIC
from panollava.settings.values import (
    Csv,
    ExperimentName,
    Folder,
    Heap,
    Line,
    Precision,
    Text,
    choice_or_list,
    custom_metric,
    renamed,
    some_of,
)

SCORE_NAMES: tuple[str, ...] = (*get_args(MetricName), *get_args(ExtraName), *JUDGE_NAMES)

RESAMPLER_OPTIONS = tuple(f"models.{name}." for name in ModelParts.inner)
"""Settings that count only while their resampler is chosen, by prefix."""


class ExperimentSettings(Section):
    name: ExperimentName | None = key(
        None, "The experiment's name: the single source of every path. `auto` composes it from the settings."
    )
    auto_name: bool = key(False, "Compose the name when `name` is unset: {vision}_{lm}_{resampler}_{crop}[_PE].")
    siglip_include_patch_res: bool = key(
        False, "In the composed name, write a SigLIP's size, patch and resolution too: siglip2-so400m_p16_256."
    )
    description: str = key("", "Free text for people; nothing reads it.")


class PathSettings(Section):
    runs_dir: Folder = key("runs", "Folder of stages, checkpoints and stage states.")
    results_dir: Folder = key("results", "Folder of prepared CSVs, predictions and metrics.")
    logs_dir: Folder = key("logs", "Folder of the jobs' logs.")
    image_cache: Folder = key("cache/images", "Folder into which http(s) image URLs are downloaded, once.")


class ColumnSettings(Section):
    image_path: Text | None = key(None, "Column that holds the image's path or URL; null finds it by its usual names.")
    query: Text | None = key(None, "Column that holds the question; null finds it (query, instruction, ...).")
    annotation: Text | None = key(None, "Column that holds the answer; null finds it (annotation, response, ...).")
    answer_type: Text | None = key(None, "Column that holds the kind of answer; null finds `answer_type`.")
    options: Text | None = key(None, "Column that holds the options, a JSON list; null finds it (options, choices).")
    category: Text | None = key(None, "Column that holds the question's category; null finds `category`.")
    sample_id: Text | None = key(None, "Column that holds the row's own name; null finds `sample_id`.")


class DataSettings(Section):
    csv_train: Csv = key(
        "data/quic360/train.csv",
        "Training CSV: a path, a list of paths (concatenated) or `synthetic` (drawn by the DAG). It and csv_val may be "
        "null where training.stages is [].",
    )
    csv_val: Csv = key("data/quic360/valid.csv", "Validation CSV; chooses the best checkpoint.")
    csv_test: Csv = key("data/quic360/test.csv", "Test CSV that is predicted and scored; null takes csv_val.")
    dataset_name: Line | None = key(
        None, "Name of the data in checkpoint names; null takes the stem of the stage's first training CSV."
    )
    format: FormatName = key(
        "auto", "What the files or folders of csv_train, csv_val and csv_test hold; auto recognises it (docs/data.md)."
    )
    columns: ColumnSettings = ColumnSettings()
    max_rejected_fraction: float = key(
        0.05, "Share of a CSV's rows that may be rejected before preparation fails.", ge=0, le=1, typical="[0, 0.1]"
    )
    allow_private_addresses: bool = key(
        False, "Fetch image URLs that lead to this machine or its own network, too (loopback, private, link-local)."
    )
    synthetic: SyntheticSettings = SyntheticSettings()


class ModelSettings(ModelParts):
    miniature: MiniatureSettings = MiniatureSettings()


class ImageProcessingSettings(ViewReadingSettings):
    min_coverage: float = key(
        0.5, "Share of a view that a partial panorama must cover for the view to count in the overlap loss.", ge=0, le=1
    )
    view_cache: Literal["raw", "jpeg"] = key(
        "raw", "How cached views are kept: raw pixels (exact, fastest), or JPEGs of quality 95 (a fifth of the space)."
    )


class StageDataSettings(Section):
    csv_train: Csv = key(None, "This stage's own training CSV; null takes data.csv_train.")
    csv_val: Csv = key(None, "This stage's own validation CSV; null takes data.csv_val.")


def _epochs(default: int, samples: str = "rows") -> Any:
    return key(default, f"Passes over the training {samples}.", ge=1, le=10000, typical="[1, 20]")


def _batch_size(default: int, samples: str = "Rows") -> Any:
    return key(default, f"{samples} in a batch, over all devices together.", ge=1, le=65536, typical="[1, 64]")


def _lr(default: float) -> Any:
    return key(default, "Peak learning rate (of AdamW).", gt=0, le=1, typical="[1e-6, 1e-3]")


def _max_text_length(default: int) -> Any:
    about = "Most tokens of question, answer and end token; longer answers are cut, template and image do not count."
    return key(default, about, ge=4, le=2**20, typical="[32, 512]")


def _vision_trainable_blocks(default: int) -> Any:
    return key(default, "Blocks of the vision encoder that train: 0 none, N the last N, -1 all.", ge=-1, le=1000)


class OptimisationSettings(Section):
    epochs: int = _epochs(1)
    batch_size: int = _batch_size(8)
    accumulate_grad_batches: int = key(1, "Batches per optimiser step.", ge=1, le=65536)
    optimizer: Literal["adamw", "muon"] = key(
        "adamw", "muon is torch.optim.Muon for hidden matrices and AdamW for everything else."
    )
    lr: float = _lr(1e-5)
    muon_lr: float = key(0.02, "Peak learning rate of Muon's matrices.", gt=0, le=1, typical="[0.005, 0.05]")
    weight_decay: float = key(0.01, "Decoupled weight decay.", ge=0, le=1, typical="[0, 0.1]")
    warmup_ratio: float = key(
        0.05, "Share of the steps in which the learning rate rises, before it falls as a cosine.", ge=0, lt=1
    )
    max_grad_norm: float = key(1.0, "Gradients are clipped to this norm; 0 does not clip.", ge=0)
    max_text_length: int = _max_text_length(128)
    vision_trainable_blocks: int = _vision_trainable_blocks(0)


class StageSettings(VicregSettings, OptimisationSettings):
    data: StageDataSettings = StageDataSettings()


class VisionStageSettings(DenseclSettings, StageSettings):
    loss: VisionLoss = key(
        "vicreg", "Loss on neighbouring views: VICReg, or DenseCL's contrast of matched with other directions."
    )
    epochs: int = _epochs(3, "panoramas, of which each counts once: this stage reads no text")
    batch_size: int = _batch_size(32, "Panoramas")
    lr: float = _lr(5e-6)
    max_text_length: int = _max_text_length(32)
    vision_trainable_blocks: int = _vision_trainable_blocks(2)


class ResamplerStageSettings(StageSettings):
    epochs: int = _epochs(5)
    batch_size: int = _batch_size(16)
    lr: float = _lr(2e-5)
    max_text_length: int = _max_text_length(64)


class FinetuneStageSettings(OverlapLossSettings, StageSettings):
    overlap_loss: VisionLoss = key("vicreg", "The overlap loss: VICReg, or DenseCL's contrast.")
    epochs: int = _epochs(10)


class StageConfigs(Section):
    vision: VisionStageSettings = VisionStageSettings()
    resampler: ResamplerStageSettings = ResamplerStageSettings()
    finetune: FinetuneStageSettings = FinetuneStageSettings()

    def of(self, stage: str) -> StageSettings:
        settings: StageSettings = getattr(self, stage)
        return settings


class TrainingSettings(Section):
    stages: list[Stage] = key(
        list(STAGES),
        "Stages to train, in the order vision, resampler, finetune; the last one answers. With models.vlm_name unset "
        "means [finetune], and [] is zero-shot: the model answers as it comes.",
    )
    init_checkpoint: Text | None = key(
        None,
        "A checkpoint (.ckpt) of an earlier stage, whose weights the first of `stages` starts from; null for none. Not "
        "read where the first stage is vision, which starts from its backbone.",
    )
    full_finetune: bool = key(
        False, "Train the language part itself in the finetune stage, without LoRA (lora.use_lora is not read then)."
    )
    seed: int = key(42, "Seed of initial weights, shuffling, dropout and the blind control.", ge=0, le=2**32 - 1)
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = key(
        "auto",
        "GPUs of this machine (without any: CPU processes) that train a stage together; auto takes one. Each takes its "
        "share of every batch, so that the number changes only rounding and dropout. Prediction takes one.",
    )
    strategy: Literal["auto", "ddp"] = key(
        "auto", "How devices share the work: ddp, each with a copy of the model; auto is ddp where there are several."
    )
    precision: Precision = key("auto", "Arithmetic of training; auto is bf16-mixed on a GPU that has it, else 32-true.")
    cpu_threads: int = key(
        2,
        "Threads of a process that trains or predicts on a CPU; pinned, because the count changes the last bits.",
        ge=1,
        le=1024,
    )
    num_workers: int = key(0, "Processes that load data; 0 loads in the training process.", ge=0, le=256)
    eval_batch_size: int = key(8, "Samples in a prediction batch.", ge=1, le=65536)
    cache_vision_features: Literal["auto"] | bool = key(
        "auto", "Compute a frozen vision encoder's features once; auto does so where it is frozen and they fit."
    )
    batches: Annotated[Literal["mixed", "group_by_length", "group_by_image"], renamed("training.batches")] = key(
        "mixed",
        "Rows of a training batch (resampler, finetune): mixed at random; of like length, to pad less; or by image, "
        "up to four rows of one panorama, which is then read once for all of them.",
    )
    gradient_checkpointing: Literal["auto"] | bool = key(
        "auto",
        "Compute activations twice instead of keeping them: equal gradients, less memory, about a third more time; "
        "auto does so where they would fill more than half of a GPU.",
    )
    checkpoint_every_n_steps: int = key(
        200, "Optimiser steps between two saves of the resumable state.", ge=1, typical="[50, 1000]"
    )
    keep_checkpoints: Literal["all"] = key("all", "Which epochs' checkpoints stay in the stage's folder: `all`.")
    log_every_n_steps: int = key(10, "Optimiser steps between two lines of the training log.", ge=1)
    tensorboard: bool = key(False, "Write TensorBoard logs too (needs the extra `tensorboard`).")
    wandb_project: Line | None = key(None, "Weights & Biases project; null switches it off.")
    stage_configs: StageConfigs = StageConfigs()


class _UseLora(Section):
    use_lora: bool = key(True, "Train LoRA adapters of the language model in the finetune stage.")


class LoraSection(LoraSettings, _UseLora):
    """Whether there are adapters, and which."""


class GenerationSettings(Section):
    max_new_tokens: int = key(128, "Most tokens of an answer.", ge=1, le=8192, typical="[16, 256]")
    do_sample: bool = key(False, "Sample; false decodes greedily, so that a result can be repeated.")
    temperature: float = key(0.7, "Temperature (read when do_sample is on).", ge=0.1, le=1.0, typical="[0.5, 0.9]")
    top_p: float = key(0.9, "Nucleus sampling's share (read when do_sample is on).", gt=0, le=1)


class JudgeSettings(Section):
    model: Text | None = key(
        None,
        "A language model that scores each answer from 0 to 100 beside its reference: hub id or folder; null for none.",
    )
    prompt_file: Text | None = key(
        None,
        "What it is asked: a text file that holds {question}, {reference} and {answer}; null for the prompt that comes "
        "along (docs/benchmarks.md).",
    )
    max_new_tokens: int = key(32, "Most tokens of its reply.", ge=1, le=32_768, typical="[8, 1024]")
    second_model: Text | None = key(
        None, "A second judge, asked the same: its scores, and their agreement with the first, are reported beside it."
    )


class EvaluationSettings(Section):
    metrics: Annotated[
        Literal["auto"] | list[MetricName], BeforeValidator(choice_or_list(get_args(MetricName), "metric"))
    ] = key(
        "auto",
        f"auto: {', '.join(get_args(MetricName))}, null with a reason where one cannot run. In a list each must run.",
    )
    protocol: Protocol = key(
        "grouped", "What is scored: each (image, query) once against all references, or row by row."
    )
    blind_control: bool = key(True, "Answer once more with the panoramas shuffled between samples.")
    shards: int = key(
        1,
        "Jobs that share the answers to a test set (and to its controls), on a cluster or on several GPUs of one "
        "machine; the answers are those of one job.",
        ge=1,
        le=1000,
    )
    text_only_control: Literal["auto"] | bool = key(
        "auto",
        "Answer once more without any panorama, the image tokens left out; auto does so where the test set has "
        "questions with right answers.",
    )
    extra: Annotated[list[ExtraName], BeforeValidator(some_of(get_args(ExtraName)))] = key(
        [],
        f"Scores that need further passes of the model: some of {', '.join(get_args(ExtraName))} "
        "(docs/evaluation.md). All but the overlap's two cost as much as predicting.",
    )
    answer_instruction: bool = key(
        True,
        "Say in the prompt of a question with a right answer which kind of answer is wanted, in training too. Captions "
        "have no such sentence.",
    )
    turns: Literal["last", "each"] = key(
        "last", "Of a conversation of several turns, answer the last question, or each behind the turns before it."
    )
    shuffle_options: bool = key(
        False,
        "Show the options of a choice in an order drawn for each question (training.seed), in prediction only.",
    )
    number_tolerance: float = key(
        0.1, "Of answers that are numbers: right within this share of the truth; counts must be equal.", ge=0, lt=10,
        typical="[0.05, 0.25]",
    )  # fmt: skip
    angle_tolerance_deg: float = key(
        22.5, "Of answers that are directions or points: right within so many degrees on the sphere.", ge=0, le=180,
        typical="[5, 45]",
    )  # fmt: skip
    custom_metrics: list[Annotated[str, BeforeValidator(custom_metric)]] = key(
        [], "Your own metrics, each as package.module:function."
    )
    spice_heap: Heap = key(
        "2500m", "Most memory of SPICE's parser, as Java writes it; $PANOLLAVA_SPICE_HEAP replaces it on a machine."
    )
    judge: JudgeSettings = JudgeSettings()
    bootstrap_samples: int = key(
        1000, "Draws of the images behind each score's 95 % interval; 0 gives no intervals.", ge=0, le=100_000
    )


class SystemMessages(Section):
    default: str = key(
        "You are a helpful assistant. Describe the panorama image.", "The system message of every prompt."
    )


class WorkflowSettings(Section):
    experiments: list[Line] = key(["EXP1"], "Experiments that `snakemake --cores all` builds (only read here).")
    view_caches_gib: float = key(
        100.0,
        "Most GiB of cache/views (only read here). When a run starts, caches of other settings go, the longest unused "
        "first; what the run itself reads stays, whatever its size.",
        ge=0, typical="[20, 1000]",
    )  # fmt: skip


class Settings(Section):
    """The merged, validated configuration of one experiment."""

    experiment: ExperimentSettings = ExperimentSettings()
    paths: PathSettings = PathSettings()
    data: DataSettings = DataSettings()
    models: ModelSettings = ModelSettings()
    image_processing: ImageProcessingSettings = ImageProcessingSettings()
    training: TrainingSettings = TrainingSettings()
    lora: LoraSection = LoraSection()
    generation: GenerationSettings = GenerationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    system_messages: SystemMessages = SystemMessages()
    workflow: WorkflowSettings = WorkflowSettings()

    @model_validator(mode="before")
    @classmethod
    def _stages_of_a_native_model(cls, document: Any) -> Any:
        """A native model has been trained: unless stages are named, it is only fine-tuned."""
        if not isinstance(document, dict):
            return document
        models, training = document.get("models"), document.get("training")
        native = isinstance(models, dict) and models.get("vlm_name") is not None
        if native and (training is None or (isinstance(training, dict) and "stages" not in training)):
            return {**document, "training": {**(training or {}), "stages": ["finetune"]}}
        return document


def _leaf_keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name in section.model_fields:
        if name in section.inner:
            yield from _leaf_keys(section.inner[name], f"{prefix}{name}.")
        else:
            yield prefix + name


KEYS: tuple[str, ...] = tuple(_leaf_keys(Settings))
"""Every setting's dotted key, in the order of the schema."""


def model_keys(**marks: str | None) -> tuple[str, ...]:
    """Dotted keys of the model's settings that have these marks (`settings.model`), in the order of the schema.

    >>> model_keys(of="native", stages=None)
    ('models.vlm_name', 'models.adapter', 'models.quantization', 'image_processing.view_labels')
    """
    sections = (("models", ModelParts), ("image_processing", ViewReadingSettings))
    found = {f"{head}.{name}" for head, section in sections for name in names(section, **marks)}
    return tuple(key for key in KEYS if key in found or key.rpartition(".")[0] in found)
