"""`check-env`: what this machine has and lacks; `setup-metrics`: bring what the metrics lack."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    app.command("check-env")(check_env)
    app.command("setup-metrics")(setup_metrics)


def check_env(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
    print_command: Annotated[
        bool, typer.Option("--print-command", help="Only the command that installs what is missing, if any.")
    ] = False,
) -> None:
    """Check Python, Java, WordNet, SPICE's parts and accelerators; say how to install what is missing.

    Example: `panollava check-env`
    """
    from panollava.evaluation.environment import (
        check_environment,
        environment_json,
        environment_lines,
        install_command,
    )

    if print_command:
        command = install_command(check_environment())
        if command:
            print(command)
        return
    checks = check_environment(import_torch=True)
    if as_json:
        print(json.dumps(environment_json(checks), indent=2))
        return
    for line in environment_lines(checks):
        print(line)


def setup_metrics() -> None:
    """Bring what check-env reports missing for any metric: Java, WordNet, SPICE's CoreNLP (386 MB, for all projects).

    System packages are installed where this user may do so, and named otherwise. The rest goes to $PANOLLAVA_CACHE,
    else ~/.cache/panollava.

    Example: `panollava setup-metrics`
    """
    from panollava.evaluation.setup_metrics import setup_metrics as bring
    from panollava.logs import start_log

    start_log()
    bring()
