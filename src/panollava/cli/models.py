"""`infer` and `export`: what a trained folder answers, and the Hugging Face folder that it becomes."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from panollava.cli import completion
from panollava.cli.common import AnsweringStage, load_experiment
from panollava.errors import ConfigError, DataError
from panollava.models.choices import Stage

Folder = Annotated[Path, typer.Option(help="A stage folder, or an experiment's folder.")]
Epoch = Annotated[int | None, typer.Option(min=0, help="The checkpoint of this epoch (from 0).")]
Step = Annotated[int | None, typer.Option(min=1, help="The checkpoint of this optimiser step.")]
Config = Annotated[str | None, typer.Option(help="An experiment's name or YAML, for a folder without metadata.")]


def add_to(app: typer.Typer) -> None:
    app.command()(infer)
    app.command()(export)


def infer(
    image: Annotated[Path, typer.Argument(help="An equirectangular image, about 2:1.")],
    query: Annotated[str, typer.Option(help="The question.")],
    checkpoint_dir: Annotated[
        Path | None, typer.Option(help="A stage folder, an experiment's, or one that export wrote.")
    ] = None,
    stage: Annotated[AnsweringStage | None, typer.Option(help="Stage, where the folder is an experiment's.")] = None,
    epoch: Epoch = None,
    step: Step = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="An experiment's name or YAML: its folder, or its native model as it comes (stages: []); beside a "
            "folder without metadata: what the model was.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Most tokens of the answer.")] = None,
    do_sample: Annotated[bool | None, typer.Option("--do-sample/--greedy", help="Sample, or decode greedily.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.1, max=1.0, help="With --do-sample.")] = None,
    top_p: Annotated[float | None, typer.Option(min=1e-6, max=1.0, help="With --do-sample.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --do-sample.")] = 42,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
) -> None:
    """Ask a trained folder, or an experiment's model, about a panorama.

    Example: `panollava infer pano.jpg --query "what is behind me?" --checkpoint-dir runs/EXP1/finetune/anyres-e2p_mlp`
    """
    _one_of(epoch, step)
    if not image.is_file():
        raise DataError(f"{image}: no such file")
    from panollava.logs import start_log

    start_log(level=logging.INFO if not as_json else logging.WARNING)
    from panollava.evaluation.answer import InferRequest, answer

    asked = InferRequest(
        image, query, checkpoint_dir, stage, epoch, step, seed, load_experiment(config) if config else None
    )
    wanted = {"max_new_tokens": max_new_tokens, "do_sample": do_sample, "temperature": temperature, "top_p": top_p}
    document = answer(asked, wanted)
    print(json.dumps(document, indent=2, ensure_ascii=False) if as_json else document["text"])


def export(
    checkpoint_dir: Folder,
    output_dir: Annotated[
        Path, typer.Option(help="A new or empty folder, or an earlier export, whose own files are replaced.")
    ],
    merge_lora: Annotated[
        bool, typer.Option("--merge-lora", help="Make the adapters part of the language model's weights.")
    ] = False,
    stage: Annotated[
        Stage | None,
        typer.Option(help="Stage, where the folder is an experiment's."),
    ] = None,
    epoch: Epoch = None,
    step: Step = None,
    config: Config = None,
) -> None:
    """Write a trained folder as a Hugging Face folder: weights, processor, tokenizer, model card.

    It needs nothing else any more; its language_model/ loads with AutoModelForCausalLM, and with --merge-lora it is the
    adapted one.

    Example: `panollava export --checkpoint-dir runs/EXP1/finetune/anyres-e2p_mlp --output-dir exported --merge-lora`
    """
    _one_of(epoch, step)
    from panollava.logs import start_log

    start_log()
    from panollava.checkpoints.export import export_stage

    experiment = load_experiment(config) if config else None
    export_stage(
        checkpoint_dir, output_dir, merge_lora=merge_lora, stage=stage, epoch=epoch, step=step, config=experiment
    )
    print(f"written: {output_dir}")


def _one_of(epoch: int | None, step: int | None) -> None:
    if epoch is not None and step is not None:
        raise ConfigError("--epoch and --step exclude each other")
