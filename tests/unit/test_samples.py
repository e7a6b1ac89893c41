"""Prepared CSVs: rows as they stand, samples with all their references."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from panollava.data.samples import Row, Sample, one_row_a_panorama, read_rows, read_samples
from panollava.data.tables import write_table
from panollava.errors import DataError

HEADER = ["image_path", "query", "annotation"]


def test_rows_are_grouped_by_image_and_query(tmp_path: Path) -> None:
    path = tmp_path / "prepared.csv"
    lines = [["a", "q", "1"], ["b", "q", "2"], ["a", "q", "1"], ["a", "Q", "3"], ["a", "q", "None\r\n"]]
    write_table(path, HEADER, lines)
    assert read_rows(path) == [Row(*line) for line in lines]
    assert read_samples(path) == [
        Sample(0, "a", "q", ("1", "1", "None\r\n")),
        Sample(1, "b", "q", ("2",)),
        Sample(2, "a", "Q", ("3",)),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "found an empty file"),
        ("url,query,annotation\na,b,c\n", "found url,query,annotation. Run `panollava prepare`"),
        ("image_path,query,annotation\na,b,c\na,b\n", "line 3 has 2 fields"),
        ('image_path,query,annotation\na,"b,c\n', "cannot be read as a prepared CSV"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "prepared.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        read_samples(tmp_path / "prepared.csv")
    with pytest.raises(DataError, match=r"absent\.csv"):
        read_rows(tmp_path / "absent.csv")


def test_long_texts_are_read_in_a_process_that_prepared_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image_path,query,annotation\na.png,q," + "x" * 300_000 + "\n")
    code = "import sys; from panollava.data.samples import read_rows; print(len(read_rows(sys.argv[1])[0].annotation))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "p.csv")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "300000"


def test_a_loss_that_reads_no_text_needs_one_row_a_panorama() -> None:
    rows = [Row("b.jpg", "q", "1"), Row("a.jpg", "q", "2"), Row("b.jpg", "r", "3"), Row("a.jpg", "q", "4")]
    assert one_row_a_panorama(rows) == rows[:2]
