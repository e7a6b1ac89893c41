"""`serve`: a page in the browser to try a trained folder."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from panollava.cli import completion
from panollava.cli.common import AnsweringStage, load_experiment
from panollava.errors import ConfigError
from panollava.extras import install

INSTALL = install("serve")


def add_to(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    checkpoint_dir: Annotated[Path | None, typer.Option(help="A stage folder, or an experiment's folder.")] = None,
    config: Annotated[
        str | None,
        typer.Option(
            help="An experiment's name or YAML: its folder, or its native model as it comes (stages: []).",
            autocompletion=completion.experiments,
        ),
    ] = None,
    stage: Annotated[AnsweringStage | None, typer.Option(help="Stage, where the folder is an experiment's.")] = None,
    epoch: Annotated[int | None, typer.Option(min=0, help="The checkpoint of this epoch (from 0).")] = None,
    csv_input: Annotated[
        Path | None, typer.Option(help="CSV whose panoramas are shown as examples; default: the folder's test CSV.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port; default: the first free one from 7860.")
    ] = None,
) -> None:
    """Open a page to look around in a panorama and ask a trained folder, or an experiment's model, about it.

    Example: `panollava serve --checkpoint-dir runs/EXP1/finetune/anyres-e2p_mlp`
    """
    if find_spec("gradio") is None:
        raise ConfigError(f"the page needs gradio, which is not installed: {INSTALL}")
    from panollava.logs import LOGGER, start_log

    start_log()
    from panollava.checkpoints.any_folder import open_stage
    from panollava.devices import first_device
    from panollava.evaluation.answer import refuse_without_language
    from panollava.evaluation.config_mismatches import describe
    from panollava.serve.answering import Answering
    from panollava.serve.examples import csv_of, find_examples

    loaded = open_stage(checkpoint_dir, load_experiment(config) if config else None, stage=stage, epoch=epoch)
    refuse_without_language(loaded.model, checkpoint_dir or loaded.checkpoint.folder)
    for line in describe(loaded):
        LOGGER.info(line)
    root = Path.cwd() if csv_input else loaded.project_root
    source = csv_input or csv_of(loaded)
    remembered = loaded.metadata["remembered"]["data"]
    # What the folder remembers is the format of its own data, not of a file that is named now.
    format = "auto" if csv_input else remembered["format"]
    foreign = csv_input is None and not loaded.made_here
    within = [loaded.project_root, Path.cwd()] if foreign else None
    examples = find_examples(source, root, remembered["columns"], format, within=within) if source else []
    if not examples:
        LOGGER.info("no example panoramas: --csv-input names a CSV with local ones")
    from panollava.serve.page import build_page, launch, uploads_folder

    model = loaded.model.config
    parts = [model.vlm_name] if model.vlm_name is not None else [
        model.vision_name, model.language_model_name, model.resampler_type,
    ]  # fmt: skip
    about = [loaded.checkpoint.path.name, *parts,
             f"{len(loaded.processor.views)} views ({model.crop_strategy})"]  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends as Ctrl-C does: uploads are removed
    try:
        with uploads_folder():
            launch(build_page(Answering(loaded, first_device()), examples, about), host, port)
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port or '7860 and on'}: {error}. --port names another") from None
