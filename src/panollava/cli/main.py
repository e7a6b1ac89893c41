"""`panollava`: the command line. Commands live beside this file, one file per subject; heavy imports inside them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import typer

from panollava.cli import compare, data, evaluate, experiments, machine, models, serve, train, workflow, zoo
from panollava.errors import PanollavaError
from panollava.processes import set_cpu_defaults

WIDE_ENOUGH_FOR_BOXES = 90  # columns; in narrower boxes typer cuts names of options off

app = typer.Typer(
    name="panollava",
    help="""Train and evaluate panoramic vision-language models.

    Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration. Each command's --help has an example.

    Example: `panollava run EXP1` builds the embedded default, from nothing to its metrics.
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (workflow, train, evaluate, compare, models, data, experiments, zoo, serve, machine):
    module.add_to(app)
for command in app.registered_commands:  # without boxes, click would cut a first sentence after a line
    command.short_help = (command.callback.__doc__ or "").split("\n\n")[0] if command.callback else None


def main() -> None:
    """Run a command; a `PanollavaError` becomes one message and its exit code."""
    set_cpu_defaults()
    app.rich_markup_mode = "markdown" if shutil.get_terminal_size().columns >= WIDE_ENOUGH_FOR_BOXES else None
    try:
        app()
    except PanollavaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (FileExistsError, NotADirectoryError) as error:
        print(f"error: {_in_the_way(error)} is a file, but a folder is needed. Name another path", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == 130:  # Ctrl-C, of which typer makes an exit code without a word
            print("interrupted", file=sys.stderr)
        raise


def _in_the_way(error: OSError) -> Path:
    """The file among the parts of the path that could not be made."""
    path = Path(str(error.filename))
    return next((place for place in (path, *path.parents) if place.is_file()), path)


if __name__ == "__main__":
    main()
