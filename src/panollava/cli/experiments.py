"""`names`, `config show`: what an experiment's files are called and what its merged configuration is."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from panollava.cli.common import load_experiment

Experiment = Annotated[str, typer.Argument(help="An experiment's name or its YAML's path.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")]

config = typer.Typer(help="Show configurations.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(names)
    app.add_typer(config, name="config")


def names(experiment: Experiment, as_json: Json = False) -> None:
    """Every path and name that an experiment leads to. Example: panollava names EXP1 --json"""
    document = load_experiment(experiment).names.as_json()
    if as_json:
        print(json.dumps(document, indent=2))
        return
    print(f"experiment   {document['experiment']}")
    for stage, row in document["stages"].items():
        print(f"{stage}\n  folder      {row['dir']}\n  checkpoint  {row['checkpoint_pattern']}")
        print(f"  W&B run     {row['wandb_run']}")
    for key in ("stage_state", "metrics", "predictions"):
        print(f"{key:<12} {document[key]}")


@config.command("show")
def show(experiment: Experiment, as_json: Json = False) -> None:
    """The merged configuration: defaults, the experiment's YAML on top. Example: panollava config show EXP1"""
    found = load_experiment(experiment)
    for missing in found.missing_csvs():
        print(f"warning: {missing} does not exist", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    import yaml

    print(f"# {found.source} over config/default.yaml")
    print(yaml.safe_dump(found.to_dict(), sort_keys=False, allow_unicode=True), end="")
