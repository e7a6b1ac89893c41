"""`panollava.results`: scores of experiments as a pandas table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import ROOT

import panollava
from panollava.errors import EvaluationError


def test_scores_as_a_table(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    metric = {"value": 0.3, "interval": [0.2, 0.4], "scale": "0 to 1", "library": "sacrebleu"}
    for number, name in enumerate(("A", "B")):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        document = {
            "metrics": {"bleu4": {**metric, "value": 0.3 + number}, "spice": {"value": None, "reason": "no Java"}},
            "controls": {"blind": {"bleu4": 0.1}} if number else {"blind": None},
            "num_samples": 9, "protocol": "grouped",
        }  # fmt: skip
        (folder / "metrics.json").write_text(json.dumps(document))
    table = panollava.results("B", "A", root=tmp_path)
    assert list(table["experiment"]) == ["B", "B", "A", "A"] and list(table["metric"][:2]) == ["bleu4", "spice"]
    first = table.iloc[0]
    assert (first["value"], first["low"], first["high"], first["blind"]) == (1.3, 0.2, 0.4, 0.1)
    assert table["value"].isna().tolist() == [False, True, False, True] and table["reason"][1] == "no Java"
    assert len(panollava.results(root=tmp_path)) == 4
    assert table.pivot(index="experiment", columns="metric", values="value").loc["A", "bleu4"] == 0.3
    with pytest.raises(EvaluationError, match=r"no metrics of C in .*there are: A, B\."):
        panollava.results("A", "C", root=tmp_path)
