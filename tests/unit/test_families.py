"""The families' benchmark as CI runs it: twelve families of different kinds, none with a difference or a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import families
import pytest
from family_folders import SMOKE

REFUSED = ("openai-gpt", "bert")


@pytest.mark.parametrize("family", SMOKE)
def test_a_family_works_or_is_refused_before_training(tmp_path: Path, family: str) -> None:
    row = families.try_family(tmp_path, family)
    assert row["verdict"] == ("refused" if family in REFUSED else "ok"), row
    if family not in REFUSED:
        assert row["share"] > (0.6 if family == "mamba" else 0.95)
    if family == "rwkv":
        assert row["what"] == "answers one by one; reads a picture for each row"


def test_a_fault_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise IndexError("list index out of range")

    monkeypatch.setattr(families, "check_answers", broken)
    row = families.try_family(tmp_path, "llama")
    assert row["verdict"] == "FAIL" and "IndexError: list index" in row["what"]


def test_table_counts_and_short_form() -> None:
    rows = [
        {"family": "a", "class": "A", "verdict": "ok", "what": "", "share": 1.0},
        {"family": "b", "class": "B", "verdict": "ok", "what": "not adapted: x; answers one by one", "share": 0.5},
        {"family": "c", "class": "", "verdict": "refused", "what": "looks ahead | twice", "share": None},
        {"family": "d", "class": "D", "verdict": "ok", "what": "", "share": 1.0},
    ]
    assert families.counts(rows) == "3 ok, 1 refused of 4 families"
    assert "| b | B | ok | 0.50 | not adapted: x; answers one by one |" in families.table(rows)
    short = families.markdown(rows)
    assert "| ok | a, d |  |" in short and "| refused | c | looks ahead \\| twice |" in short
    json.dumps(rows)
