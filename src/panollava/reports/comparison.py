"""From metrics.json files to comparison.csv and comparison.html: the rule `compare` and `panollava compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panollava.evaluation.comparison.results import Result
from panollava.evaluation.comparison.verdicts import DRAWS, Comparison, compare_results
from panollava.reports.comparison_page import write_comparison_page
from panollava.reports.comparison_tables import write_csv


def write_comparison(results: Sequence[Result], csv: Path, html: Path, draws: int = DRAWS) -> Comparison:
    """Compare all with the first and write both files."""
    comparison = compare_results(results, draws)
    write_comparison_page(comparison, html)
    write_csv(comparison, csv)
    return comparison


def default_folder(names: Sequence[str], results_dir: Path) -> Path:
    """`results/compare/A_vs_B`; of more than two, the others are counted."""
    short = [name.replace("/", "-") for name in names]
    rest = short[1] if len(short) == 2 else f"{len(short) - 1}_others"
    return results_dir / "compare" / f"{short[0]}_vs_{rest}"
