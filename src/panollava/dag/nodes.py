"""The one table of the DAG, in its order: each node's rule, job, settings, parents, files, resources and version.

The rules, the scripts, the slices, what is stale, the order of jobs in one process, the records and the tests follow
from it. What the fields mean: `node.Node`. How to add one: docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from panollava.config.names import OVERLAP_PLOT, RESULT_FILES, SPLITS
from panollava.config.schema import STAGES
from panollava.dag import inputs, jobs, options, parents, settings, several
from panollava.dag.node import CACHE, Node, Report, Resources

_RESULTS = "{results_dir}/{experiment}"
_CAPTION = "../report/{}.rst"  # captions, seen from workflow/rules


def pictures_of(prepared_csv: Path) -> Mapping[str, str]:
    """The pictures of a prepared CSV, as they were when it was made; drawn ones belong to the node that drew them."""
    from panollava.data.prepared_images import read_images

    found = read_images(prepared_csv) or {}
    return {path: sha256 for path, sha256 in found.items() if not path.startswith(f"{CACHE}/synthetic/")}


_MINIATURES_MB = 4000
_ONE_GPU = Resources(16000, 240, _MINIATURES_MB, gpu=True)


def _cached(kind: str, **names: str) -> dict[str, str]:
    """Outputs in a folder of the shared cache."""
    return {name: f"{{cache}}/{kind}/{{key}}/{file}" for name, file in names.items()}


def _result(node: str) -> str:
    return f"{_RESULTS}/{RESULT_FILES[node]}"


def _stage(stage: str, reads: tuple[str, ...], code_version: int) -> Node:
    folder = f"{{runs_dir}}/{{experiment}}/{stage}/{{variant}}"
    labels = {"stage": f"{STAGES.index(stage) + 1} {stage}"}
    return Node(
        f"train_{stage}",
        rule=f"train_{stage}",
        job=jobs.train_stage,
        code_version=code_version,
        reads=reads,
        parents=parents.of_stage,
        adjust=parents.name_adapters if stage != "finetune" else parents.without_overlap_loss,
        inputs=inputs.of_stage,
        outputs={
            "best": f"{folder}/best.ckpt",
            "last": f"{folder}/last.ckpt",
            "history": f"{folder}/loss_curves.csv",
            "curves": f"{folder}/loss_curves.png",
            "metadata": f"{folder}/checkpoint_metadata.json",
        },
        recorded_by="metadata",
        links=("best", "last"),
        resumes=True,
        further=("lora_weights",),
        not_empty=("metadata",),
        options=options.of_stage,
        resources=Resources(16000, 1440, _MINIATURES_MB, gpu=True, grows_in_time=False),
        threads=options.threads,
        log=f"{{logs_dir}}/{{experiment}}/train_{stage}_{{variant}}.log",
        lower="batch_size, image_processing.image_size or the size of the models",
        report={"curves": Report("Training", _CAPTION.format("loss_curves"), labels, "{experiment}")},
    )


_NODES = (
    # ---- data ------------------------------------------------------------------------------------
    Node(
        "synthetic",
        rule="draw_synthetic",
        job=jobs.draw_synthetic,
        code_version=1,
        reads=settings.section("data.synthetic."),
        cache="synthetic",
        outputs={
            "csvs": tuple(f"{{cache}}/synthetic/{{key}}/{split}.csv" for split in SPLITS),
            **_cached("synthetic", scenes="scenes.json", images="images", sheet="contact_sheet.png"),
        },
        folders=("images",),
        resources=Resources(4000, 60),
        lower="data.synthetic.image_height",
        report={"sheet": Report("Data", _CAPTION.format("contact_sheet"), {"data": "synthetic {key}"})},
    ),
    Node(
        "miniature_vision",
        rule="pretrain_vision",
        job=jobs.pretrain_vision,
        code_version=1,
        reads=settings.section("models.miniature.vision."),
        cache="miniature/vision",
        outputs=_cached(
            "miniature/vision",
            config="config.json",
            weights="model.safetensors",
            processor="preprocessor_config.json",
        ),
        resources=Resources(4000, 60),
        lower="models.miniature.vision.views or batch_size",
    ),
    Node(
        "miniature_language",
        rule="pretrain_language",
        job=jobs.pretrain_language,
        code_version=2,
        reads=(*settings.section("models.miniature.language."), "data.synthetic.question_types"),
        adjust=parents.name_instruction,
        cache="miniature/language",
        outputs=_cached(
            "miniature/language",
            config="config.json",
            weights="model.safetensors",
            tokenizer="tokenizer.json",
            tokenizer_config="tokenizer_config.json",
        ),
        resources=Resources(4000, 60),
        lower="models.miniature.language.batch_size",
    ),
    Node(
        "miniature_vlm",
        rule="pretrain_vlm",
        job=jobs.pretrain_vlm,
        code_version=2,
        reads=settings.section("models.miniature.vlm."),
        cache="miniature/vlm",
        outputs=_cached(
            "miniature/vlm",
            config="config.json",
            weights="model.safetensors",
            processor="processor_config.json",
            tokenizer="tokenizer.json",
            tokenizer_config="tokenizer_config.json",
            template="chat_template.jinja",
        ),
        resources=Resources(4000, 60),
        lower="models.miniature.vlm.scenes or batch_size",
    ),
    Node(
        "prepare",
        rule="prepare_csv",
        job=jobs.prepare_csv,
        splits=SPLITS,
        code_version=4,
        reads=settings.PREPARATION,
        parents=parents.of_prepare,
        adjust=parents.name_given_columns,
        cache="csv",
        inputs=inputs.of_prepare,
        outputs=_cached("csv", prepared="prepared.csv", rejected="rejected.csv"),
        further=("images.json",),
        pictures=pictures_of,
        options=options.of_prepare,
        # A profile allows one at a time: what is a polite number of requests in one job is none in three.
        resources=Resources(4000, 240, downloads=True),
    ),
    Node(
        "prepare_experiment",
        rule="prepare_experiment",
        job=jobs.prepare_experiment,
        parents=parents.of_prepared,
        document=several.prepared_slice,
        inputs=inputs.of_prepared,
        outputs={
            "csvs": tuple(f"{_RESULTS}/prepared/{split}.csv" for split in SPLITS),
            "rejected": f"{_RESULTS}/prepared/rejected.csv",
        },
        recorded_by="rejected",
    ),
    Node(
        "views",
        rule="cache_views",
        opens_pictures=True,
        job=jobs.cache_views,
        splits=SPLITS,
        code_version=5,
        reads=(*settings.VIEWS, "image_processing.view_cache"),
        parents=parents.of_views,
        adjust=parents.name_encoder,
        tells_splits=False,
        cache="views",
        inputs=inputs.of_views,
        outputs=_cached("views", views="views.npy", index="index.json"),
        unread=("views.npy",),
        resources=Resources(8000, 240),
        lower="image_processing.image_size",
    ),
    # ---- stages ----------------------------------------------------------------------------------
    _stage("vision", settings.OF_VISION_STAGE, code_version=4),
    _stage("resampler", settings.OF_RESAMPLER_STAGE, code_version=3),
    _stage("finetune", settings.OF_FINETUNE_STAGE, code_version=3),
    Node(
        "stage_state",
        rule="write_stage_state",
        job=jobs.write_stage_state,
        parents=parents.of_all_stages,
        document=several.stage_state_slice,
        inputs=inputs.of_stage_state,
        inputs_may_be_gone=False,
        outputs={"state": "{runs_dir}/{experiment}_stage_state.json"},
        recorded_by="state",
        options=options.of_stage_state,
    ),
    Node(
        "select_checkpoint",
        rule="select_checkpoint",
        job=jobs.select_checkpoint,
        code_version=1,
        parents=parents.of_selection,
        adjust=parents.name_model,
        options=options.of_selection,
        inputs=inputs.of_selection,
        inputs_may_be_gone=False,
        outputs={"checkpoint": f"{_RESULTS}/checkpoint.json"},
        recorded_by="checkpoint",
    ),
    # ---- evaluation ------------------------------------------------------------------------------
    # Planned where evaluation.shards is more than 1: a part of the answers of one of the three nodes that follow.
    Node(
        "predict_shard",
        rule="predict_shard",
        job=jobs.predict_shard,
        reads=settings.ANSWERS,
        document=several.shard_slice,
        inputs=inputs.of_shard,
        outputs={"part": f"{_RESULTS}/shards/{{control}}_{{shard}}.json"},
        recorded_by="part",
        options=options.of_shard,
        resources=_ONE_GPU,
        lower="training.eval_batch_size",
        log="{logs_dir}/{experiment}/shards/{control}_{shard}.log",
    ),
    Node(
        "predict",
        rule="predict",
        job=jobs.predict,
        code_version=1,
        reads=settings.ANSWERS,
        parents=parents.of_prediction,
        inputs=inputs.of_prediction,
        outputs={"predictions": _result("predict")},
        recorded_by="predictions",
        options=options.of_prediction,
        resources=_ONE_GPU,
        lower="training.eval_batch_size",
    ),
    Node(
        "predict_blind",
        rule="predict_blind",
        job=jobs.predict_blind,
        code_version=2,
        reads=settings.ANSWERS,
        parents=parents.of_prediction,
        inputs=inputs.of_prediction,
        outputs={"predictions": _result("predict_blind")},
        recorded_by="predictions",
        options=options.of_prediction,
        resources=_ONE_GPU,
        lower="training.eval_batch_size",
    ),
    # Planned where `parents.wants_text_only` says so.
    Node(
        "predict_text_only",
        rule="predict_text_only",
        job=jobs.predict_text_only,
        code_version=1,
        reads=settings.ANSWERS,
        parents=parents.of_prediction,
        inputs=inputs.of_prediction,
        outputs={"predictions": _result("predict_text_only")},
        recorded_by="predictions",
        options=options.of_prediction,
        resources=_ONE_GPU,
        lower="training.eval_batch_size",
    ),
    # Further scores (evaluation.extra): the parents of `metrics` say which are planned.
    Node(
        "predict_rolled",
        rule="predict_rolled",
        opens_pictures=True,
        job=jobs.predict_rolled,
        code_version=1,
        reads=settings.ANSWERS,
        parents=parents.of_prediction,
        inputs=inputs.of_prediction,
        outputs={"predictions": _result("predict_rolled")},
        recorded_by="predictions",
        options=options.of_prediction,
        resources=_ONE_GPU,
        lower="training.eval_batch_size",
    ),
    Node(
        "measure_perplexity",
        rule="measure_perplexity",
        job=jobs.measure_perplexity,
        code_version=2,
        reads=(
            "training.eval_batch_size",
            "training.seed",
            "evaluation.shuffle_options",
            "evaluation.turns",
            *settings.MACHINE,
        ),
        parents=parents.of_prediction,
        inputs=inputs.of_prediction,
        outputs={"scores": _result("measure_perplexity")},
        recorded_by="scores",
        resources=Resources(16000, 120, _MINIATURES_MB, gpu=True),
        lower="training.eval_batch_size",
    ),
    Node(
        "measure_overlap",
        rule="measure_overlap",
        opens_pictures=True,
        job=jobs.measure_overlap,
        code_version=2,
        reads=("training.seed", *settings.MACHINE),
        parents=parents.of_prediction,
        inputs=inputs.of_prediction,
        outputs={
            "scores": _result("measure_overlap"),
            "plot": f"{_RESULTS}/{OVERLAP_PLOT}",
        },
        recorded_by="scores",
        resources=Resources(16000, 60, _MINIATURES_MB, gpu=True),
        report={
            "plot": Report(
                "Metrics", _CAPTION.format("overlap"), {"page": "agreement of overlapping views"}, "{experiment}"
            )
        },
    ),
    # Planned where `evaluation.judge` names a model.
    Node(
        "judge",
        rule="judge",
        job=jobs.judge,
        code_version=1,
        reads=settings.JUDGE,
        parents=parents.of_judge,
        adjust=parents.name_protocol,
        inputs=inputs.of_judge,
        outputs={"scores": _result("judge")},
        recorded_by="scores",
        options=options.of_judge,
        resources=Resources(16000, 240, gpu=True),
        lower="training.eval_batch_size",
    ),
    Node(
        "metrics",
        rule="compute_metrics",
        job=jobs.compute_metrics,
        code_version=4,
        reads=settings.SCORES,
        parents=parents.of_metrics,
        inputs=inputs.of_metrics,
        stands_alone=True,
        beside=("prepare_experiment",),
        apart=("stage_state",),
        outputs={
            "metrics": f"{_RESULTS}/metrics.json",
            "table": f"{_RESULTS}/report_metrics.html",
            "samples": f"{_RESULTS}/report_samples.html",
        },
        recorded_by="metrics",
        options=options.of_metrics,
        resources=Resources(12000, 60),
        report={
            "table": Report("Metrics", _CAPTION.format("metrics"), {"page": "scores, blind control"}, "{experiment}"),
            "samples": Report(
                "Predictions", _CAPTION.format("samples"), {"page": "panoramas, answers"}, "{experiment}"
            ),
        },
    ),
    # ---- several experiments ---------------------------------------------------------------------
    Node(
        "compare",
        rule="compare",
        job=jobs.compare,
        code_version=1,
        document=several.comparison_slice,
        inputs=inputs.of_comparison,
        inputs_may_be_gone=False,
        outputs={"csv": "{results_dir}/comparison.csv", "html": "{results_dir}/comparison.html"},
        recorded_by="csv",
        log="{logs_dir}/shared/compare.log",
        report={"html": Report("Comparison", _CAPTION.format("comparison"), {"page": "scores, tests, answers"})},
    ),
    Node(
        "compare_ablation",
        rule="compare_ablation",
        job=jobs.compare_ablation,
        code_version=1,
        document=several.summary_slice,
        inputs=inputs.of_ablation,
        inputs_may_be_gone=False,
        outputs={
            name: f"{{results_dir}}/ablations/{{ablation}}/summary.{name if name != 'plot' else 'png'}"
            for name in ("csv", "html", "plot")
        },
        recorded_by="csv",
        log="{logs_dir}/ablations/compare_ablation_{ablation}.log",
        report={
            "html": Report("Ablations", _CAPTION.format("ablation_table"), {"page": "scores"}, "{ablation}"),
            "plot": Report("Ablations", _CAPTION.format("ablation_plot"), {"page": "plot"}, "{ablation}"),
        },
    ),
)

TABLE: dict[str, Node] = {node.name: node for node in _NODES}
"""The nodes by their names in slices, in the order of the DAG."""
RULES: dict[str, Node] = {node.rule: node for node in _NODES}
"""The same by the names of their rules."""
CACHED: dict[str, Node] = {node.cache: node for node in _NODES if node.cache is not None}
"""Those of the shared cache, by the kind of their folder."""
KINDS: dict[str, str] = {name: node.name for node in _NODES for name in (node.name, *node.names)}
"""The entry in the table by a node's name, with or without its split: `prepare_train` -> `prepare`."""
NODES: tuple[str, ...] = tuple(name for node in _NODES if node.document is None for name in node.names)
"""Names of the nodes that read settings, each split by itself: `prepare_train`, …"""


def node_kind(node: str) -> str:
    """The node without its split: `prepare_val` -> `prepare`."""
    return KINDS.get(node, node)


def earliest_node(key: str) -> str | None:
    """The first node that a setting reaches, None where it changes no result. Raises KeyError for an unknown key."""
    if key in settings.UNTRACKED:
        return None
    if key in settings.THROUGH_INPUTS:
        return settings.THROUGH_INPUTS[key]
    for node in NODES:
        if key in TABLE[KINDS[node]].reads:
            return node
    raise KeyError(key)
