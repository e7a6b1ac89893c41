"""`check-env`: what this machine has, what is missing, and the command that installs it."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    app.command("check-env")(check_env)


def check_env(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document and nothing else.")] = False,
    print_command: Annotated[
        bool, typer.Option("--print-command", help="Only the command that installs what is missing, if any.")
    ] = False,
) -> None:
    """Check Python, Java, WordNet, SPICE's parts and accelerators; say how to install what is missing."""
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
