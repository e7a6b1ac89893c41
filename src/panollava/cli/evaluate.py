"""`eval`: predictions and metrics of a trained folder, or the metrics of a predictions CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from panollava.cli import completion
from panollava.cli.common import AnsweringStage, custom_metrics_of, image_cache_of, load_experiment, results_dir_of
from panollava.errors import ConfigError
from panollava.evaluation.measures import EXTRA_NODES
from panollava.settings.choices import Protocol


def add_to(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    checkpoint_dir: Annotated[Path | None, typer.Option(help="A stage folder, or an experiment's folder.")] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="An experiment's name or YAML: finds the folder, sets the rest; with --verify: its custom metrics.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    csv_input: Annotated[Path | None, typer.Option(help="Questions; alone: predictions to score.")] = None,
    stage: Annotated[
        AnsweringStage | None, typer.Option(help="Stage to evaluate, where the folder is an experiment's.")
    ] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="The first N (image, query) only.")] = None,
    epoch: Annotated[int | None, typer.Option(min=0, help="The checkpoint of this epoch (from 0).")] = None,
    step: Annotated[int | None, typer.Option(min=1, help="The checkpoint of this optimiser step.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples in a batch.")] = None,
    protocol: Annotated[Protocol | None, typer.Option(help="What is scored; default: as configured.")] = None,
    extra: Annotated[
        str | None,
        typer.Option(
            help=f"Further scores: some of {', '.join(EXTRA_NODES)} (with commas), or none; default: as configured."
        ),
    ] = None,
    custom_metrics: Annotated[
        str | None,
        typer.Option(
            help="Metrics of your own, module:function (with commas); default: the configuration's. Those that only "
            "the folder or metrics.json names do not run."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="A language model (hub id or folder) that scores each answer; default: the configuration's."),
    ] = None,
    judge_prompt: Annotated[Path | None, typer.Option(help="With --judge: what it is asked, a text file.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Receives metrics.json and predictions.csv.")] = None,
    log_samples: Annotated[bool, typer.Option(help="Show predictions beside references.")] = False,
    log_interval: Annotated[int, typer.Option(min=1, help="Batches between progress lines.")] = 25,
    log_max_samples: Annotated[int, typer.Option(min=1, help="Samples shown by --log-samples.")] = 50,
    verify: Annotated[Path | None, typer.Option(help="A metrics.json: compute it again, say what differs.")] = None,
    predict_again: Annotated[bool, typer.Option(help="With --verify: the answers, too.")] = False,
) -> None:
    """Evaluate a trained folder, which needs no configuration; or, with --config alone, an experiment's.

    Example: `panollava eval --checkpoint-dir runs/EXP1/finetune/anyres-e2p_mlp`
    """
    from panollava.evaluation.console import print_metrics
    from panollava.logs import LOGGER, start_log

    if verify is not None:
        given = {"--checkpoint-dir": checkpoint_dir, "--csv-input": csv_input, "--stage": stage,
                 "--epoch": epoch, "--step": step, "--batch-size": batch_size, "--protocol": protocol,
                 "--extra": extra, "--output-dir": output_dir, "--judge": judge, "--judge-prompt": judge_prompt,
                 "--log-samples": log_samples or None}  # fmt: skip
        _refuse(given, "metrics.json records it: not with --verify")
        if max_samples is not None and not predict_again:
            raise ConfigError("--max-samples: with --verify it limits --predict-again")
        chosen_metrics = custom_metrics_of(custom_metrics) or []
        if config is not None:
            chosen_metrics += load_experiment(config).settings.evaluation.custom_metrics
        _verify(verify, predict_again, max_samples, chosen_metrics)
        return
    if predict_again:
        raise ConfigError("--predict-again goes with --verify")
    if epoch is not None and step is not None:
        raise ConfigError("--epoch and --step exclude each other")
    if checkpoint_dir is None and config is None:
        if csv_input is None:
            raise ConfigError("pass --checkpoint-dir, or --config, or --csv-input with predictions to score")
        given = {"--stage": stage, "--max-samples": max_samples, "--epoch": epoch, "--step": step,
                 "--batch-size": batch_size, "--extra": extra, "--log-samples": log_samples or None}  # fmt: skip
        _refuse(given, "nothing is predicted without --checkpoint-dir or --config")
    if judge_prompt is not None and judge is None:
        raise ConfigError("--judge-prompt goes with --judge")
    chosen = None if extra is None else _extra(extra)
    judging = None if judge is None else {"model": judge, "prompt_file": judge_prompt and str(judge_prompt)}
    metrics = custom_metrics_of(custom_metrics)
    start_log()
    if checkpoint_dir is None and config is None:
        assert csv_input is not None
        from panollava.evaluation.score_files import score_csv

        path, document = score_csv(csv_input, protocol, output_dir, metrics or (), judging)
    else:
        from panollava.dag.nodes import TABLE
        from panollava.evaluation.of_folder import EvalRequest, evaluate_folder

        experiment = load_experiment(config) if config is not None else None
        path, document = evaluate_folder(
            EvalRequest(
                checkpoint_dir,
                stage=stage,
                csv_input=csv_input,
                max_samples=max_samples,
                epoch=epoch,
                step=step,
                batch_size=batch_size,
                protocol=protocol,
                output_dir=output_dir,
                log_samples=log_samples,
                log_interval=log_interval,
                log_max_samples=log_max_samples,
                answers_version=TABLE["predict"].code_version,
                image_cache=image_cache_of(Path.cwd()),
                extra=chosen,
                custom_metrics=metrics,
                judge=judging,
                results_dir=results_dir_of(Path.cwd()),
            ),
            experiment,
        )
    print_metrics(document)
    LOGGER.info("written: %s", path)


def _extra(text: str) -> list[str]:
    """`perplexity,overlap_consistency` as a list; `none` is empty. Raises ConfigError for an unknown name."""
    names = [name.strip() for name in text.split(",") if name.strip() and name.strip() != "none"]
    if unknown := [name for name in names if name not in EXTRA_NODES]:
        raise ConfigError(f"--extra takes some of {', '.join(EXTRA_NODES)}, or none; got {unknown[0]!r}")
    return names


def _verify(path: Path, predict_again: bool, max_samples: int | None, custom_metrics: list[str]) -> None:
    """Print every check; exit 1 where something differs."""
    from panollava.evaluation.console import print_lines
    from panollava.evaluation.verify import summary, verify
    from panollava.logs import start_log

    start_log()
    checks = verify(path, predict_again, max_samples, custom_metrics)
    print_lines([*map(str, checks), summary(checks)])
    if any(check.state == "differs" for check in checks):
        raise typer.Exit(1)


def _refuse(given: dict[str, Any], why: str) -> None:
    """Raise ConfigError for the options of `given` that have a value."""
    if useless := [name for name, value in given.items() if value is not None]:
        raise ConfigError(f"{', '.join(useless)}: {why}")
