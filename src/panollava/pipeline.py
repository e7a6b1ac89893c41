"""The DAG's jobs in this process, one after the other: same functions, folders, records and logs, without Snakemake.

An experiment enters; its prepared data, trained stages, chosen checkpoint and stage state leave. What is there and says
itself that this configuration made it is kept, an interrupted stage goes on, everything else is made again - as in the
DAG, which afterwards finds the results current. Traded away: jobs side by side, and the cluster.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from panollava import jobs
from panollava.config import ConfigError, Project, WorkflowConfig, job_options
from panollava.config.job_options import CACHE, SPLITS, STAGE_OUTPUTS
from panollava.files import digest_of
from panollava.logs import LOGGER
from panollava.provenance import forget, made_by


class Pipeline:
    """The jobs of one experiment. The working folder must be the project's root, and stay so.

    Raises ConfigError where another file there gives its experiment the same name.
    """

    def __init__(self, experiment: WorkflowConfig) -> None:
        Project(".").refuse_doubled(experiment.names.experiment)
        self.experiment, self.names = experiment, experiment.names
        self.shared_logs = f"{self.names.logs_dir}/shared"

    def train(self, stages: Sequence[str]) -> None:
        """Train `stages` of training.stages, and the stages before them where these are not current."""
        wanted: list[str] = list(self.experiment.settings.training.stages)
        for stage in stages:
            job_options.previous_stage(self.experiment, stage)  # raises ConfigError where it is not trained
        last = max(wanted.index(stage) for stage in stages)
        missing = self.experiment.missing_csvs()
        if missing:
            raise ConfigError("; ".join(f"{one} does not exist" for one in missing))
        for stage in wanted[: last + 1]:
            self._train_stage(stage)
        if last + 1 == len(wanted):
            self._write_stage_state()

    def prepare(self) -> None:
        """results/{experiment}/prepared: what was used of the three splits, and what was rejected."""
        for split in SPLITS:
            self._csv(split, None)
        outputs = [self.names.prepared(split) for split in SPLITS] + [self.names.rejected]
        document = job_options.prepared_slice(self.experiment)
        if not _current(self.names.rejected, document, outputs):
            folder = Path(self.names.rejected).parent.as_posix()
            self._run("gather_prepared", document, self.names.log("prepare_experiment"), outputs, out=folder)

    def select_checkpoint(self) -> None:
        """results/{experiment}/checkpoint.json: the best checkpoint of the last stage."""
        document, target = self.experiment.slice_of("select_checkpoint"), self.names.checkpoint_json
        if not _current(target, document, [target]):
            folder = self.names.stage_dir(self.names.stages[-1])
            log = self.names.log("select_checkpoint")
            self._run("select_checkpoint", document, log, [target], folder=folder, out=target)

    # ---- what stages are made of ---------------------------------------------------------------
    def _train_stage(self, stage: str) -> None:
        experiment, folder = self.experiment, self.names.stage_dir(stage)
        document = experiment.slice_of(f"train_{stage}")
        outputs = [f"{folder}/{name}" for name in STAGE_OUTPUTS]
        if _current(outputs[-1], document, outputs):
            LOGGER.info("stage %s is current: %s", stage, folder)
            return
        inputs: dict[str, Any] = {}
        for split in ("train", "val"):
            inputs[f"{split}_csv"] = self._csv(split, stage)
            inputs[f"{split}_views"] = self._views(split, stage)
        for part in job_options.miniature_folders(document):
            self._backbone(part)
        log = self.names.log(f"train_{stage}_{self.names.variant}")
        self._run("train_stage", document, log, outputs, **job_options.stage_options(experiment, stage), **inputs)

    def _write_stage_state(self) -> None:
        document, target = job_options.stage_state_slice(self.experiment), self.names.stage_state
        if not _current(target, document, [target]):
            naming = job_options.stage_records(self.experiment)
            self._run("write_stage_state", document, self.names.log("write_stage_state"), [target],
                      naming=naming, out=target)  # fmt: skip

    def _csv(self, split: str, stage: str | None) -> str:
        key, document = self.experiment.csv_key(split, stage), self.experiment.slice_of(f"prepare_{split}", stage)
        outputs = [f"{CACHE}/csv/{key}/{name}" for name in ("prepared.csv", "rejected.csv")]
        if not _all_there(outputs):
            if "synthetic" in document["upstream"]:
                self._drawn(document["upstream"]["synthetic"])
            self._run(
                "prepare_csv", document, f"{self.shared_logs}/prepare_csv_{key}.log", outputs,
                csv=job_options.source_csvs(document), cache=self.experiment.settings.paths.image_cache,
                state=f"{self.shared_logs}/rejected_{key}.csv", out=outputs[0], rejected=outputs[1],
            )  # fmt: skip
        return outputs[0]

    def _drawn(self, key: str) -> None:
        folder = f"{CACHE}/synthetic/{key}"
        outputs = [f"{folder}/{name}" for name in ("scenes.json", "contact_sheet.png")]
        outputs += [f"{folder}/{split}.csv" for split in SPLITS]
        if not _all_there([*outputs, f"{folder}/images"]):
            log = f"{self.shared_logs}/draw_synthetic_{key}.log"
            self._run("draw_synthetic", self.experiment.slice_of("synthetic"), log, outputs, out=folder)

    def _views(self, split: str, stage: str | None) -> str:
        key, document = self.experiment.views_key(split, stage), self.experiment.slice_of(f"views_{split}", stage)
        folder = f"{CACHE}/views/{key}"
        outputs = [f"{folder}/{name}" for name in ("views.npy", "index.json")]
        if not _all_there(outputs):
            vision = {part: self._backbone(part) for part in job_options.miniature_folders(document)}
            csv, log = [self._csv(split, stage)], f"{self.shared_logs}/cache_views_{key}.log"
            self._run("cache_views", document, log, outputs, csv=csv, out=folder, **vision)
        return folder

    def _backbone(self, part: str) -> str:
        node = f"miniature_{part}"
        key = self.experiment.digest(node)
        folder = f"{CACHE}/miniature/{part}/{key}"
        names = ["config.json", "model.safetensors"]
        names += ["preprocessor_config.json"] if part == "vision" else ["tokenizer.json", "tokenizer_config.json"]
        outputs = [f"{folder}/{name}" for name in names]
        if not _all_there(outputs):
            log = f"{self.shared_logs}/pretrain_{part}_{key}.log"
            self._run(f"pretrain_{part}", self.experiment.slice_of(node), log, outputs, out=folder)
        return folder

    def _run(self, job: str, document: dict[str, Any], log: str, outputs: Sequence[str], **options: Any) -> None:
        """A job whose outputs are removed before it, as Snakemake does: what fails leaves no older result."""
        for output in outputs:
            Path(output).unlink(missing_ok=True)
            Path(output).parent.mkdir(parents=True, exist_ok=True)
            forget(output)
        jobs.run_here(job, slice=document, log=log, **options)


def _all_there(paths: Sequence[str]) -> bool:
    return all(os.path.exists(path) for path in paths)


def _current(path: str, document: dict[str, Any], outputs: Sequence[str]) -> bool:
    """Whether the outputs are there and `path`, which says by which slice it was made, names this one."""
    return _all_there(outputs) and made_by(path) == digest_of(document)
