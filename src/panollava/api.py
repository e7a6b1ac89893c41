"""The Python API: train an experiment, evaluate a folder, find a checkpoint - what the commands do, as three classes.

Each takes an experiment (`WorkflowConfig`) and returns paths or metrics. Relative paths of a configuration start at its
`root`, which is the working folder while something runs.
"""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import Any

from panollava.config import WorkflowConfig
from panollava.files import read_json
from panollava.logs import log_as_before, start_log
from panollava.processes import set_cpu_defaults


class ThreeStageTrainer:
    """Trains an experiment in this process, with the functions, folders and records of the DAG.

    Data are prepared and views cached, miniature backbones are built; stages that this configuration has trained are
    kept, an interrupted one goes on. One trainer or snakemake at a time builds below a root, the next one waits.

    >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml")
    >>> ThreeStageTrainer(cfg).stages
    ['vision', 'resampler', 'finetune']
    >>> ThreeStageTrainer(cfg).run()
    PosixPath('runs/EXP1/finetune/anyres-e2p_mlp/siglip_mlp_anyres-e2p_synthetic_epoch00_loss....ckpt')
    """

    def __init__(self, cfg: WorkflowConfig) -> None:
        _check(cfg)
        self.cfg = cfg
        set_cpu_defaults()

    @property
    def stages(self) -> list[str]:
        """The stages that `run` trains: training.stages."""
        return list(self.cfg.settings.training.stages)

    def run(self) -> Path:
        """Train what is stale and return the best checkpoint of the last stage; without stages (zero-shot) nothing
        trains, and checkpoint.json is returned, which says what model answers.

        Raises ConfigError, DataError, TrainingError, each with what to do; the same call goes on afterwards.
        """
        from panollava.dag.local import Pipeline
        from panollava.workflow_lock import holding

        with chdir(self.cfg.root), holding(".snakemake"), log_as_before():
            start_log()
            work = Pipeline(self.cfg)
            work.prepare()
            work.train(self.stages)
            work.select_checkpoint()
            chosen = read_json(self.cfg.names.checkpoint_json)
        if chosen["stage"] is None:
            return self.cfg.root / self.cfg.names.checkpoint_json
        return self.cfg.root / chosen["folder"] / chosen["file"]


class EvaluationRunner:
    """Predicts and scores a trained folder with an experiment's settings of generation and evaluation.

    After `run`, `document` is the whole of metrics.json (blind control, provenance) and `path` where it lies.

    >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml").with_values({"evaluation.metrics": ["bleu4"]})
    >>> runner = EvaluationRunner(cfg)
    >>> metrics = runner.run(checkpoint_dir="runs/EXP1/finetune/anyres-e2p_mlp", max_samples=4)
    >>> 0 <= metrics["bleu4"]["value"] <= 1, runner.path
    (True, PosixPath('results/EXP1/eval/test/metrics.json'))
    """

    def __init__(self, cfg: WorkflowConfig) -> None:
        _check(cfg)
        self.cfg = cfg
        self.document: dict[str, Any] | None = None
        self.path: Path | None = None
        set_cpu_defaults()

    def run(
        self,
        checkpoint_dir: str | Path | None = None,
        *,
        csv_input: str | Path | None = None,
        stage: str | None = None,
        epoch: int | None = None,
        step: int | None = None,
        max_samples: int | None = None,
        batch_size: int | None = None,
        protocol: str | None = None,
        output_dir: str | Path | None = None,
    ) -> dict[str, dict[str, Any]]:
        """metrics.json's "metrics"; the options are those of `panollava eval`.

        Without `checkpoint_dir` the experiment's own folder is evaluated, without `csv_input` the folder's test CSV.
        """
        from panollava.dag.nodes import TABLE
        from panollava.evaluation.of_folder import EvalRequest, evaluate_folder

        given = {name: Path(path).absolute() if path else None for name, path in
                 {"folder": checkpoint_dir, "csv": csv_input, "output": output_dir}.items()}  # fmt: skip
        with chdir(self.cfg.root), log_as_before():
            start_log()
            request = EvalRequest(
                given["folder"], stage=stage, csv_input=given["csv"], max_samples=max_samples, epoch=epoch, step=step,
                batch_size=batch_size, protocol=protocol, output_dir=given["output"],
                image_cache=Path(self.cfg.settings.paths.image_cache).absolute(),
                results_dir=Path(self.cfg.settings.paths.results_dir),
                answers_version=TABLE["predict"].code_version,
            )  # fmt: skip
            path, document = evaluate_folder(request, self.cfg)
        self.path, self.document = self.cfg.root / path, document
        return document["metrics"]


class CheckpointResolver:
    """Finds checkpoints of an experiment, or of another one below the same root, in the layouts of today and before.

    >>> cfg = WorkflowConfig.load("config/experiments/EXP1.yaml")
    >>> CheckpointResolver(cfg).find(stage="resampler", epoch=1).name
    'siglip_mlp_anyres-e2p_synthetic_epoch01_loss....ckpt'
    """

    def __init__(self, cfg: WorkflowConfig) -> None:
        _check(cfg)
        self.cfg = cfg

    def find(
        self,
        stage: str | None = None,
        *,
        epoch: int | None = None,
        step: int | None = None,
        experiment: str | None = None,
        crop: str | None = None,
        resampler: str | None = None,
    ) -> Path:
        """The checkpoint's file, links resolved: of `epoch` or optimiser `step`, else best, last, the newest.

        What is not given is the experiment's own; `stage` is its last one. Raises CheckpointError, listing what there
        is.
        """
        from panollava.checkpoints.folder import choose_checkpoint
        from panollava.checkpoints.model_dir import resolve_model_dir

        folder = resolve_model_dir(self.cfg, stage, experiment=experiment, crop=crop, resampler=resampler)
        return choose_checkpoint(folder, epoch, step).path


def _check(cfg: object) -> None:
    if not isinstance(cfg, WorkflowConfig):
        raise TypeError(f"expected a WorkflowConfig (WorkflowConfig.load(…)), got {type(cfg).__name__}")
