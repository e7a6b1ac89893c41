"""`names`, `config show|diff`: an experiment's paths, its merged configuration, and what sets two of them apart."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from panollava.cli import completion
from panollava.cli.common import load_experiment

Experiment = Annotated[
    str, typer.Argument(help="An experiment's name or its YAML's path.", autocompletion=completion.experiments)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")]

config = typer.Typer(
    help="Show and compare configurations.\n\nExample: `panollava config show EXP1`", no_args_is_help=True
)


def add_to(app: typer.Typer) -> None:
    app.command()(names)
    app.add_typer(config, name="config")


def names(experiment: Experiment, as_json: Json = False) -> None:
    """Where the checkpoints, predictions and scores of an experiment are, and what they are called.

    Example: `panollava names EXP1 --json`
    """
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
    """The merged configuration: defaults, the experiment's YAML on top.

    Example: `panollava config show EXP1`
    """
    found = load_experiment(experiment)
    for missing in found.missing_csvs():
        print(f"warning: {missing} does not exist", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    import yaml

    print(f"# {found.source} over config/default.yaml")
    print(yaml.safe_dump(found.to_dict(), sort_keys=False, allow_unicode=True), end="")


@config.command("diff")
def diff(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="An experiment's name or its YAML's path.", autocompletion=completion.experiments
        ),
    ],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B",
            help="Another one; config/default.yaml shows what A changes.",
            autocompletion=completion.experiments,
        ),
    ],
    as_json: Json = False,
) -> None:
    """The settings in which two merged configurations differ.

    Example: `panollava config diff EXP1 EXP2`
    """
    from panollava.config import WorkflowConfig
    from panollava.config.default_file import yaml_value
    from panollava.config.loading import changed_settings

    one, other = (WorkflowConfig.load(name, warn=False).settings for name in (a, b))
    found = changed_settings(one, other)
    if as_json:
        rows = [{"key": key, "a": values[0], "b": values[1]} for key, values in found.items()]
        print(json.dumps({"a": a, "b": b, "differences": rows}, indent=2, ensure_ascii=False))
    elif not found:
        print(f"{a} and {b} have the same settings")
    else:
        width = max(len(key) for key in found)
        print(f"{'':<{width}}  {a} -> {b}")
        for key, (left, right) in found.items():
            print(f"{key:<{width}}  {yaml_value(left)} -> {yaml_value(right)}")
