"""`models`: the zoo as a table, and questions whose answers become an experiment's or an ablation's YAML."""

from __future__ import annotations

import json
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
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else (with --list).")] = False,
) -> None:
    """Show models to choose from, with size, licence and memory; or write a configuration by asking.

    Any other model that transformers loads will do too: models.vision_name and models.language_model_name take hub ids
    and folders.

    Example: `panollava models --list`, `panollava models --interactive`
    """
    if interactive:
        if list_all or as_json:
            raise ConfigError("--interactive asks questions: --list and --json do not go with it")
        from panollava.cli.interactive import ask_for_configuration

        ask_for_configuration()
        return
    from panollava.zoo import CONDITIONS, GIB, zoo

    if as_json:
        print(json.dumps({"conditions": CONDITIONS, "models": [_document(row) for row in zoo()]}, indent=2))
        return
    gib = [f"{number / GIB:.1f}" for row in zoo() for number in (row.memory.answering, row.memory.training)]
    rows = [
        [row.name, row.id, f"{row.parameters / 1e6:,.0f} M", gib[2 * place], gib[2 * place + 1], row.licence]
        for place, row in enumerate(zoo())
    ]
    columns = ["name", "id", "parameters", "answering GiB", "training GiB", "licence"]
    print_table(columns, rows, right=columns[2:5])
    print(CONDITIONS)


def _document(row: Any) -> dict[str, Any]:
    memory = {"answering_bytes": row.memory.answering, "training_bytes": row.memory.training}
    return {"name": row.name, "id": row.id, "kind": row.kind, "parameters": row.parameters, "licence": row.licence,
            "memory": memory}  # fmt: skip
