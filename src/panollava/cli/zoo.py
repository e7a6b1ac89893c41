"""`models`: the zoo as a table, and questions whose answers become an experiment's or an ablation's YAML."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from panollava.cli.tables import print_table
from panollava.errors import ConfigError


def add_to(app: typer.Typer) -> None:
    app.command()(models)


def models(
    list_all: Annotated[bool, typer.Option("--list", help="The models that are known to work (the default).")] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask, and write an experiment's or an ablation's YAML.")
    ] = False,
    check: Annotated[
        str | None,
        typer.Option("--check", metavar="SOURCE", help="Load a language model (hub id or folder) and try it."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else (with --list).")] = False,
) -> None:
    """Show models to choose from, with size, licence and memory; or write a configuration by asking.

    Others of transformers will do too: models.vision_name and models.language_model_name take hub ids and folders.
    --check reports on a language model as the first stage would: whether it can be used, and which layers get adapters.

    Example: `panollava models --list`, `panollava models --interactive`, `panollava models --check Qwen/Qwen3-0.6B`
    """
    if check is not None:
        if list_all or interactive or as_json:
            raise ConfigError("--check SOURCE goes with none of --list, --interactive and --json")
        _check(check)
        return
    if interactive:
        if list_all or as_json:
            raise ConfigError("--interactive asks questions: --list and --json do not go with it")
        from panollava.cli.interactive import ask_for_configuration

        ask_for_configuration()
        return
    from panollava.zoo import CONDITIONS, GIB, NATIVE, zoo

    if as_json:
        native = [asdict(row) for row in NATIVE]
        document = {"conditions": CONDITIONS, "models": [_document(row) for row in zoo()], "native": native}
        print(json.dumps(document, indent=2))
        return
    gib = [f"{number / GIB:.1f}" for row in zoo() for number in (row.memory.answering, row.memory.training)]
    rows = [
        [row.name, row.id, f"{row.parameters / 1e6:,.0f} M", gib[2 * place], gib[2 * place + 1], row.licence]
        for place, row in enumerate(zoo())
    ]
    columns = ["name", "id", "parameters", "answering GiB", "training GiB", "licence"]
    print_table(columns, rows, right=columns[2:5])
    print(CONDITIONS)
    print("\nNative vision-language models, for models.vlm_name (docs/native.md):")
    print_table(["id", "family", "licence"], [[row.id, row.family, row.licence] for row in NATIVE])


def _check(source: str) -> None:
    """Print nothing but the log's lines and a verdict. Raises ConfigError or CheckpointError with the reason."""
    from panollava.config.language_folder import language_folder_problem
    from panollava.logs import start_log

    if (problem := language_folder_problem(Path(source))) is not None:
        raise ConfigError(f"{source} {problem}")
    start_log()
    import torch

    from panollava.models.config import ModelConfig
    from panollava.models.language_check import check_language_model

    check_language_model(ModelConfig(language_model_name=source), torch.float32, at_hand=True)
    print(f"{source} can be used as models.language_model_name")


def _document(row: Any) -> dict[str, Any]:
    memory = {"answering_bytes": row.memory.answering, "training_bytes": row.memory.training}
    return {"name": row.name, "id": row.id, "kind": row.kind, "parameters": row.parameters, "licence": row.licence,
            "memory": memory}  # fmt: skip
