"""Formats of data: recognised, read into the same rows, carried through prepared.csv."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from panollava.config import WorkflowConfig
from panollava.config.schema import FormatName
from panollava.data.details import DETAIL_COLUMNS, NO_DETAILS, Details, columns_of
from panollava.data.formats import FORMATS, format_of, read_source
from panollava.data.formats.rows import Table, TableRow
from panollava.data.prepare import prepare_csv
from panollava.data.samples import Row, read_rows, read_samples
from panollava.errors import ConfigError, DataError
from panollava.evaluation.predict import shuffled_options
from panollava.evaluation.predictions import Prediction, read_predictions, write_predictions
from panollava.evaluation.score import score_predictions


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    Image.fromarray(pixels).save("a.png")


def read(content: str, columns: dict[str, str | None] | None = None) -> Table:
    Path("in.csv").write_text(content, encoding="utf-8")
    return read_source("in.csv", columns)


def row_of(content: str, columns: dict[str, str | None] | None = None) -> TableRow:
    (row,) = read(content, columns).rows
    return row


def prepared(content: str, instruct: bool = False) -> list[Row]:
    Path("in.csv").write_text(content, encoding="utf-8")
    prepare_csv(["in.csv"], "prepared.csv", "rejected.csv", progress=False, instruct=instruct)
    return read_rows("prepared.csv")


def test_every_format_has_its_name_in_the_schema() -> None:
    assert get_args(FormatName) == ("auto", *FORMATS)


def test_an_unknown_format_and_a_folder_of_none_are_refused() -> None:
    with pytest.raises(DataError, match=r"data\.format is auto or one of .*csv.*, got 'cvs'"):
        format_of("in.csv", "cvs")
    Path("folder").mkdir()
    with pytest.raises(DataError, match="folder is a folder, and none of the formats"):
        read_source("folder")
    with pytest.raises(DataError, match="is a folder"):
        read_source("folder", format="csv")


def test_captions_have_no_further_column() -> None:
    rows = prepared("url,query,annotation,width,height,author\na.png,q,x,64,32,me\n")
    assert rows == [Row("a.png", "q", "x")] and rows[0].details == NO_DETAILS
    assert Path("prepared.csv").read_text() == "image_path,query,annotation\na.png,q,x\n"


def test_further_columns_pass_through_where_some_row_has_them() -> None:
    rows = prepared(
        "image,question,answer,Answer_Type,options,category,sample_id,width,height\n"
        "a.png,q,yes,yes_no,,seen,r1,,\n"
        'a.png,p,"[1, 2, 3, 4]",box,,,r2,64,32\n'
        'a.png,o,B,,"[""left"", ""오른쪽""]",,,9,9\n'
    )
    assert [row.details for row in rows] == [
        Details(answer_type="yes_no", category="seen", sample_id="r1"),
        Details(answer_type="box", sample_id="r2", width=64, height=32),
        Details(answer_type="choice", options=("left", "오른쪽")),
    ]
    header = Path("prepared.csv").read_text().splitlines()[0]
    assert header == "image_path,query,annotation,answer_type,options,category,sample_id,width,height"
    # A prepared CSV is itself a source, and gives the same rows again.
    first = Path("prepared.csv").read_bytes()
    Path("prepared.csv").rename("in.csv")
    prepare_csv(["in.csv"], "prepared.csv", "rejected.csv", progress=False, instruct=False)
    assert Path("prepared.csv").read_bytes() == first


@pytest.mark.parametrize("header", ["A,B,C", "option_a,option_b,option_c", "Option A,Option B,Option C", "c,a,b"])
def test_options_in_columns_of_their_own(header: str) -> None:
    values = {"A": "cat", "B": "dog", "C": ""}
    order = [name.strip()[-1].upper() for name in header.split(",")]
    row = row_of(f"image,question,{header},answer\na.png,q,{','.join(values[name] for name in order)},b\n")
    assert row.problem is None
    assert row.details == Details(answer_type="choice", options=("cat", "dog")) and row.annotation == "b"


def test_letter_columns_beside_captions_are_no_options_but_named() -> None:
    table = read("image,query,caption,A,B,hint,author\na.png,q,a red box,1,2,h,me\n")
    assert table.rows[0].details == NO_DETAILS
    assert len(table.notes) == 1 and "not read: 'A', 'B', 'hint'." in table.notes[0]


def test_a_list_in_another_notation_is_named_and_its_letters_refused() -> None:
    table = read("image,question,choices,answer\na.png,q,cat|dog,B\n")
    assert "'choices'" in table.notes[0]
    assert "'B' is a letter, and the row has no options" in str(table.rows[0].problem)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("a.png,q,B,,", "the answer 'B' is a letter, and the row has no options"),
        ("a.png,q,(b),,", "is a letter, and the row has no options"),
        ("a.png,q,b,choice,", "is a letter, and the row has no options"),
        ("a.png,q,B,text,", None),
        ("a.png,q,b,,", None),
        ("a.png,q,X,,", None),
        ('a.png,q,C,,"[""x"", ""y""]"', "'C' cannot be read as one of 2 options"),
        ('a.png,q,C,text,"[""x"", ""y""]"', None),
        ("a.png,q,B,mcq,", "answer_type is one of text, yes_no, choice, number, direction, point, box, got 'mcq'"),
        ("a.png,q,B,,[1", "options is a JSON list of texts"),
        ("a.png,q,B,,[]", "options is a JSON list of texts"),
        ("a.png,q,B,,{}", "the row has no options"),
        ("a.png,q,maybe,yes_no,", "the answer 'maybe' cannot be read as yes or no"),
        ("a.png,q,many,number,", "cannot be read as a number"),
        ("a.png,q,north,direction,", "cannot be read as a direction"),
        ('a.png,q,z,,"[""x"", ""y""]"', "'z' cannot be read as one of 2 options"),
    ],
)
def test_what_cannot_be_a_question_is_rejected(line: str, problem: str | None) -> None:
    found = row_of(f"image,question,answer,answer_type,options\n{line}\n").problem
    assert found is None if problem is None else problem in str(found)


def test_an_empty_option_before_another_is_rejected() -> None:
    row = row_of("image,question,A,B,C,answer\na.png,q,x,,z,C\n")
    assert "option B is empty, though C is not" in str(row.problem)


def test_columns_of_questions_by_name() -> None:
    content = "image,question,answer,kind,skill\na.png,q,yes,yes_no,seen\n"
    row = row_of(content, {"answer_type": "Kind", "category": "skill"})
    assert row.details == Details(answer_type="yes_no", category="seen")
    with pytest.raises(DataError, match=r"no column for category: data\.columns says 'task', found 'image'"):
        row_of(content, {"category": "task"})
    with pytest.raises(DataError, match="several columns for options: 'options', 'choices'"):
        read("image,question,answer,options,choices\na.png,q,x,,\n")


def test_a_query_with_other_options_or_turns_is_another_question() -> None:
    turns = json.dumps([["user", "hello"], ["assistant", "yes?"]]).replace('"', '""')
    rows = prepared(
        "image,question,answer,options,context_turns\n"
        'a.png,q,A,"[""x"", ""y""]",\na.png,q,A,"[""y"", ""x""]",\na.png,q,B,"[""x"", ""y""]",\n'
        f'a.png,q,seen,,"{turns}"\na.png,q,seen,,\n'
    )
    samples = read_samples("prepared.csv")
    assert [(one.sample_id, one.references) for one in samples] == [
        (0, ("A", "B")), (1, ("A",)), (2, ("seen",)), (3, ("seen",))]  # fmt: skip
    assert rows[3].details.context_turns == (("user", "hello"), ("assistant", "yes?"))


def test_the_prompt_states_options_and_the_wanted_kind_and_training_teaches_the_letter() -> None:
    content = (
        "image,question,answer,answer_type,options\n"
        'a.png,Which?,right,,"[""left"", ""right""]"\na.png,Any?,Yes,yes_no,\na.png,How far?,3 m,number,\n'
        'a.png,Where?,behind,direction,\na.png,Box?,"[1, 2, 3, 4]",box,\na.png,Point?,"[1, 2]",point,\n'
        'a.png,Look?,"yaw 3, pitch 4",point,\na.png,Say?,a red box,,\n'
    )
    rows = prepared(content, instruct=True)
    assert [row.prompt for row in rows] == [
        "Which?\nA. left\nB. right\nAnswer with the letter.",
        "Any?\nAnswer yes or no.",
        "How far?\nAnswer with a number and its unit, if it has one.",
        "Where?\nAnswer with the direction: degrees, or words such as front, right, behind, left, above.",
        "Box?\nAnswer with the box [x1, y1, x2, y2] in pixels of the 64 x 32 panorama.",
        "Point?\nAnswer with the point [x, y] in pixels of the 64 x 32 panorama.",
        "Look?\nAnswer with the point as yaw and pitch in degrees.",
        "Say?",
    ]
    assert [row.target for row in rows] == [
        "B",
        "Yes",
        "3 m",
        "behind",
        "[1, 2, 3, 4]",
        "[1, 2]",
        "yaw 3, pitch 4",
        "a red box",
    ]
    samples = read_samples("prepared.csv")
    assert [one.prompt for one in samples] == [row.prompt for row in rows] and samples[0].targets == ("B",)
    plain = prepared(content)
    assert plain[0].prompt == "Which?\nA. left\nB. right" and [row.prompt for row in plain[1:]] == [
        row.query for row in plain[1:]
    ]


def test_options_are_shuffled_by_seed_and_question_and_stay_the_same_question(tmp_path: Path) -> None:
    rows = "".join(f'a.png,q{n},B,"[""w"", ""x"", ""y"", ""z""]"\n' for n in range(20))
    prepared("image,question,answer,options\n" + rows + "a.png,say,a red box,\n")
    samples = read_samples("prepared.csv")
    shuffled = shuffled_options(samples, 7)
    assert shuffled == shuffled_options(samples, 7) != shuffled_options(samples, 8)
    assert len({one.shown for one in shuffled[:20]}) > 5 and shuffled[20] == samples[20]
    assert all(sorted(one.shown) == ["w", "x", "y", "z"] for one in shuffled[:20])
    assert f"A. {shuffled[0].shown[0]}" in shuffled[0].prompt
    answers = [chr(65 + one.shown.index("x")) if one.shown else "a red box" for one in shuffled]
    predictions = [
        Prediction(one.sample_id, one.image_path, one.query, text, one.references, "", one.details, one.shown)
        for one, text in zip(shuffled, answers, strict=True)
    ]
    write_predictions("p.csv", predictions)
    rows_back = read_predictions("p.csv")
    assert json.loads(rows_back[0]["options_shown"]) == list(shuffled[0].shown)
    assert score_predictions(rows_back, metrics=["rouge_l"]).metrics["accuracy"].value == 1
    always_b = [{**row, "prediction": "B"} for row in rows_back]
    assert score_predictions(always_b, metrics=["rouge_l"]).metrics["accuracy"].value < 0.6


@pytest.mark.parametrize(
    ("name", "text"),
    [("width", "0"), ("width", "1.5"), ("height", "inf"), ("options", '{"a": 1}'), ("options", "[[1]]"),
     ("context_turns", '[["system", "x"]]'), ("context_turns", "hello"), ("answer_type", "letter")],
)  # fmt: skip
def test_details_that_cannot_be_read_name_their_column(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} is"):
        Details.from_fields({name: text})


def test_details_come_back_from_their_fields() -> None:
    details = Details("choice", ("a", "7"), "c", "s", 10, 5, "say it", "x/y", (("user", "한"), ("assistant", "\n")))
    assert Details.from_fields(details.to_fields()) == details
    assert tuple(details.to_fields()) == DETAIL_COLUMNS == columns_of([NO_DETAILS, details])
    assert Details.from_fields({"options": "[1, 2.50]"}).options == ("1", "2.5")


def config(**data: object) -> WorkflowConfig:
    csvs = {f"csv_{split}": "in.csv" for split in ("train", "val", "test")}
    return WorkflowConfig.from_dict({"experiment": {"name": "E"}, "data": {**csvs, **data}})


def test_the_slice_of_captions_is_what_it_was_and_that_of_questions_says_so() -> None:
    Path("in.csv").write_text("url,query,annotation\na.png,q,x\n")
    captions = config().slice_of("prepare_test")
    assert captions["config"]["data"] == {"columns": {}, "max_rejected_fraction": 0.05}
    assert captions["inputs"]["csvs"][0].keys() == {"path", "sha256", "images"}
    assert config(format="csv").slice_of("prepare_test")["config"]["data"]["format"] == "csv"
    Path("in.csv").write_text("url,query,annotation,category,answer_type\na.png,q,yes,c,yes_no\n")
    assert config().slice_of("prepare_test")["inputs"]["csvs"][0]["details"] == ["answer_type", "category"]
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=r"data\.csv_test: .*folder is a folder, and none of the formats"):
        config(csv_test="folder").slice_of("prepare_test")
