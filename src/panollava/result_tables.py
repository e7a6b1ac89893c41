"""Scores of experiments as a pandas table: `panollava.results("EXP1", "EXP2")`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.errors import EvaluationError
from panollava.files import read_json

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "experiment", "metric", "value", "low", "high", "blind", "num_samples", "protocol", "scale", "library", "reason",
)  # fmt: skip


def results(*experiments: str, root: str | Path = ".") -> pd.DataFrame:
    """A row for each experiment and metric of results/EXPERIMENT/metrics.json; all experiments where none is named.

    `low` and `high` are the 95 % interval, `blind` the blind control's value; NaN where there is none. Raises
    EvaluationError for an experiment without metrics, with those that have some.
    """
    import pandas as pd

    from panollava.config import Project

    folder = Path(root) / Project(root).paths.results_dir
    known = sorted(path.parent.name for path in folder.glob("*/metrics.json"))
    if missing := [name for name in experiments if name not in known]:
        listed = ", ".join(known) or "none"
        raise EvaluationError(
            f"no metrics of {', '.join(missing)} in {folder}, there are: {listed}. "
            f"`panollava run {missing[0]}` makes them"
        )
    rows = [row for name in experiments or known for row in _rows(name, folder / name / "metrics.json")]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _rows(name: str, path: Path) -> list[dict[str, Any]]:
    try:
        document = read_json(path)
        blind = document["controls"]["blind"] or {}
        return [
            {
                "experiment": name, "metric": key, "value": metric["value"],
                "low": (metric.get("interval") or [None, None])[0],
                "high": (metric.get("interval") or [None, None])[1],
                "blind": blind.get(key), "num_samples": document["num_samples"], "protocol": document["protocol"],
                "scale": metric.get("scale"), "library": metric.get("library"), "reason": metric.get("reason"),
            }
            for key, metric in document["metrics"].items()
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvaluationError(f"{path} cannot be read as metrics: {error!r}") from error
