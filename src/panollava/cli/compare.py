"""`compare`: experiments side by side, with tests that say where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from panollava.cli.common import custom_metrics_of, results_dir_of
from panollava.errors import ConfigError, EvaluationError


def add_to(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    results: Annotated[
        list[str], typer.Argument(help="Results folders, metrics.json files or experiments; the first is the baseline.")
    ],
    output_dir: Annotated[
        Path | None, typer.Option(help="Receives comparison.csv and comparison.html.  [default: results/compare/…]")
    ] = None,
    custom_metrics: Annotated[
        str | None,
        typer.Option(help="Metrics module:function (with commas) to compute again though no project here names them."),
    ] = None,
    draws: Annotated[int, typer.Option(min=100, max=1_000_000, help="Resamplings behind each test.")] = 10_000,
) -> None:
    """Compare experiments with the first: differences, intervals, paired tests, answers side by side.

    Example: `panollava compare results/EXP1 results/EXP2`
    """
    from panollava.evaluation.comparison.results import metrics_path, read_results
    from panollava.evaluation.console import print_lines
    from panollava.logs import start_log
    from panollava.reports.comparison import default_folder, write_comparison
    from panollava.reports.comparison_tables import console_lines

    if len(results) < 2:
        raise ConfigError(
            "compare needs two results at least, for instance: panollava compare results/EXP1 results/EXP2"
        )
    chosen = custom_metrics_of(custom_metrics) or ()
    start_log()
    found = read_results([metrics_path(word) for word in results], chosen)
    folder = output_dir or default_folder([result.name for result in found], results_dir_of(Path.cwd()))
    comparison = write_comparison(found, folder / "comparison.csv", folder / "comparison.html", draws)
    print_lines(console_lines(comparison))
    if len(comparison.refused) == len(found) - 1:
        raise EvaluationError(f"nothing could be compared with {found[0].name}; the scores are in {folder}")
    print_lines([f"written: {folder / 'comparison.csv'}, {folder / 'comparison.html'}"])
