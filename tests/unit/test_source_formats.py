"""Data as people have it: LLaVA's JSON, Parquet, folders of `datasets`, CSVs, and lists of them mixed."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from directions import direction_panorama, photo

from panollava.config.fingerprints import csv_fingerprint
from panollava.data.formats import format_of, read_source
from panollava.data.formats.parquet import _rows as parquet_rows
from panollava.data.prepare import PrepareSummary, prepare_csv
from panollava.data.samples import Row, last_turns, read_rows, read_samples
from panollava.errors import DataError
from panollava.evaluation.pipeline import as_shown

PANORAMA = photo(direction_panorama(64), "PNG")
OTHER = photo(direction_panorama(64)[:, ::-1], "JPEG")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(PANORAMA)
    (tmp_path / "images/b.jpg").write_bytes(OTHER)
    return tmp_path


def talk(*texts: str, image: Any = "images/a.png", **more: Any) -> dict[str, Any]:
    turns = [{"from": "human" if place % 2 == 0 else "gpt", "value": text} for place, text in enumerate(texts)]
    return {"id": "7", "image": image, "conversations": turns, **more}


def write(path: Path, records: list[Any]) -> Path:
    lines = json.dumps(records) if path.suffix == ".json" else "\n".join(json.dumps(one) for one in records) + "\n\n"
    path.write_text(lines, encoding="utf-8")
    return path


def prepare(folder: Path, *sources: Path, **options: Any) -> tuple[PrepareSummary, list[Row], list[dict[str, str]]]:
    options = {"max_rejected_fraction": 1.0, "progress": False, "root": folder} | options
    summary = prepare_csv(sources, folder / "prepared.csv", folder / "rejected.csv", **options)
    with (folder / "rejected.csv").open(newline="") as stream:
        rejected = list(csv.DictReader(stream))
    return summary, read_rows(folder / "prepared.csv"), rejected


@pytest.mark.parametrize("name", ["talks.json", "talks.jsonl"])
def test_each_answer_of_a_conversation_is_a_row_behind_its_context(folder: Path, name: str) -> None:
    source = write(folder / name, [talk("<image>\nWhat is left?", "A door.", "And behind?", '한국어, "quoted"')])
    summary, rows, _ = prepare(folder, source)
    assert format_of(source).name == "llava" and summary.num_accepted == summary.num_samples == 2
    first, second = rows
    assert (first.image_path, first.query, first.annotation) == ("images/a.png", "What is left?", "A door.")
    assert first.details.context_turns == () and first.details.sample_id == "7"
    assert (second.query, second.annotation) == ("And behind?", '한국어, "quoted"')
    assert second.details.context_turns == (("user", "What is left?"), ("assistant", "A door."))


def test_messages_as_chat_templates_take_them(folder: Path) -> None:
    records = [
        {"messages": [
            {"role": "system", "content": "You are a guide."},
            {"role": "user", "content": [
                {"type": "image", "path": "images/a.png"}, {"type": "text", "text": "Where?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Here."}]},
        ]},
        {"images": ["images/b.jpg"], "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Who?"}, {"type": "image"}]},
            {"role": "assistant", "content": "Nobody."},
        ]},
    ]  # fmt: skip
    source = write(folder / "messages.jsonl", records)
    _, rows, _ = prepare(folder, source)
    assert [(row.image_path, row.query, row.annotation) for row in rows] == [
        ("images/a.png", "Where?", "Here."), ("images/b.jpg", "Who?", "Nobody."),
    ]  # fmt: skip
    assert "1 conversations begin with a system message" in read_source(source).notes[0]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (talk("q", "a", image=["images/a.png", "images/b.jpg"]), "more than one image: 2, expected one panorama"),
        (talk("<image> and <image>?", "a"), "more than one image: 2 places"),
        (talk("q", "a", video="clip.mp4"), "video: not read"),
        (talk("<video>\nq", "a"), "video: not read"),
        (talk("q", "a", audio=["speech.wav"]), "audio: not read"),
        (talk("q", "a", image=None), "missing column value: image_path"),
        (talk("q", "a", image="absent.png"), "image missing"),
        (talk("q", "\u00a0 "), "missing column value: annotation"),
        (talk("<image>", "a"), "missing column value: query"),
        (talk("q"), "missing column value: annotation"),
        (talk("q", "B"), "question not usable: the answer 'B' is a letter, and the row has no options"),
        (talk("q", "a", image=7), "image not readable: a int"),
        (talk("q", "a", image="data:image/png;base64,!!"), "image not readable: its data: address"),
        ({"image": "images/a.png", "conversations": [{"from": "gpt", "value": "a"}]}, "turn 1 is by the assistant"),
        ({"image": "images/a.png", "conversations": [{"from": "tool", "value": "a"}]}, "turn 1 is by 'tool'"),
        ({"image": "images/a.png", "conversations": "hello"}, "expected a list of turns"),
        ({"image": "images/a.png", "messages": [{"role": "user", "content": [{"type": "video", "video": "x"}]}]},
         "video: not read"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_used_is_a_rejected_row(folder: Path, record: dict[str, Any], reason: str) -> None:
    _, rows, rejected = prepare(folder, write(folder / "talks.jsonl", [talk("fine?", "yes, fine"), record]))
    assert len(rows) == 1
    (row,) = rejected
    assert reason in row["reason"] and row["source_line"] == "2" and row["source_csv"].endswith("talks.jsonl")


def test_options_in_the_text_make_a_letter_an_answer(folder: Path) -> None:
    asked = "What is it?\nA. a door\nB. a window\nAnswer with the option's letter."
    _, rows, rejected = prepare(
        folder, write(folder / "talks.json", [talk(asked, "B"), talk("Which?", "A", options=["x", "y"])])
    )
    assert not rejected and [row.details.answer_type for row in rows] == ["text", "choice"]
    assert rows[1].details.options == ("x", "y")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}\n{"b":', "line 2 is not JSON"),
        ('[{"a": 1}', "not JSON"),
        ('[{"a": 1}, 3]', "record 2 is a int, expected an object"),
        ('{"image": "x.png", "question": "q"}', "no column for annotation"),
        ("[]", "there are no rows in it"),
        ('{"image": "x", "messages": []}\n{"image": "x", "question": "q", "answer": "a"}', "Divide them into two"),
    ],
)
def test_a_file_that_cannot_be_read_names_what_and_where(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "talks.jsonl").write_text(text)
    with pytest.raises(DataError, match=found):
        read_source(tmp_path / "talks.jsonl")


def flat(**changes: Any) -> dict[str, Any]:
    return {"image": "images/a.png", "question": "Where?", "answer": "Here."} | changes


def test_plain_records_are_named_as_a_csvs_columns_are(folder: Path) -> None:
    records = [flat(), flat(answer=3, category="counting"), flat(answer="B", options=["x", "y"]), flat(answer="  ")]
    _, rows, rejected = prepare(folder, write(folder / "plain.jsonl", records))
    assert [row.annotation for row in rows] == ["Here.", "3", "B"] and rows[1].details.category == "counting"
    assert rows[2].details.answer_type == "choice" and rejected[0]["reason"] == "missing column value: annotation"
    mapped = [{"pano": "images/b.jpg", "question": "Where?", "answer": "Here."}]
    _, rows, _ = prepare(folder, write(folder / "mapped.jsonl", mapped), columns={"image_path": "pano"})
    assert rows[0].image_path == "images/b.jpg"


@pytest.mark.parametrize("blank", [" ", "\u00a0", "\u3000\t", "\u200b"])
def test_blanks_are_missing_values_in_every_format(folder: Path, blank: str) -> None:
    (folder / "a.csv").write_text(f"url,query,annotation\nimages/a.png,q,{blank}\n", "utf-8")
    source = write(folder / "b.jsonl", [flat(answer=blank), flat()])
    _, rows, rejected = prepare(folder, folder / "a.csv", source)
    assert len(rows) == 1
    assert [row["reason"] for row in rejected] == ["missing column value: annotation"] * 2


def test_csvs_and_jsonls_are_mixed_in_one_list(folder: Path) -> None:
    (folder / "a.csv").write_text("url,query,annotation\nimages/a.png,q,a\nabsent.png,q,a\n")
    source = write(folder / "b.jsonl", [talk("q2", "a2", "q3", "a3"), flat(image="gone.png")][:1])
    summary, rows, _ = prepare(folder, folder / "a.csv", source, folder / "a.csv")
    assert [row.query for row in rows] == ["q", "q2", "q3", "q"] and summary.num_rejected == 2


def in_parquet(path: Path, records: list[dict[str, Any]]) -> Path:
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(arrow.Table.from_pylist(records), path)
    return path


def test_parquet_with_image_files_and_with_paths(folder: Path) -> None:
    embedded = [
        flat(image={"bytes": PANORAMA, "path": "x.png"}),
        flat(image={"bytes": OTHER, "path": None}),
        flat(image={"bytes": PANORAMA, "path": None}),
        flat(image={"bytes": b"no image", "path": None}),
    ]
    source = in_parquet(folder / "train.parquet", embedded)
    assert format_of(source).name == "parquet"
    summary, rows, rejected = prepare(folder, source)
    assert summary.num_images == 2 and rows[0].image_path == rows[2].image_path != rows[1].image_path
    assert (folder / rows[0].image_path).read_bytes() == PANORAMA and rows[0].image_path.endswith(".png")
    assert rejected[0]["reason"].startswith("not an image") and rejected[0]["source_line"] == "4"
    before = csv_fingerprint("train.parquet", folder)
    assert before["sha256"] and before == csv_fingerprint("train.parquet", folder)
    _, rows, _ = prepare(folder, in_parquet(folder / "paths.parquet", [flat(), flat(image="images/b.jpg")]))
    assert [row.image_path for row in rows] == ["images/a.png", "images/b.jpg"]
    talks = in_parquet(
        folder / "talks.parquet", [talk("<image>q", "a", "q2", "a2", image={"bytes": OTHER, "path": None})]
    )
    _, rows, _ = prepare(folder, talks)
    assert [row.query for row in rows] == ["q", "q2"] and (folder / rows[1].image_path).read_bytes() == OTHER


def test_a_folder_of_shards_and_one_of_several_tables(folder: Path) -> None:
    (folder / "data").mkdir()
    for number in range(2):
        in_parquet(folder / f"data/train-0000{number}-of-00002.parquet", [flat(question=f"q{number}")])
    _, rows, _ = prepare(folder, folder / "data", root=folder)
    assert [row.query for row in rows] == ["q0", "q1"]
    in_parquet(folder / "data/test.parquet", [flat()])
    with pytest.raises(DataError, match=r"several tables \(test, train\)"):
        read_source(folder / "data")


def test_columns_of_several_types_lose_no_text_and_gain_no_quotes(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    answers = ["behind me", 4, "007", "3.50", True]
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "which room?"}]},
        {"role": "assistant", "content": "the hall"},
    ]
    sources = {
        "flat.jsonl": [flat(answer=answer) for answer in answers],
        "talk.jsonl": [{"image": "images/a.png", "messages": turns}],
    }
    expected = {"flat.jsonl": ["behind me", "4", "007", "3.50", "true"], "talk.jsonl": ["the hall"]}
    for name, records in sources.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        source = str(folder / name)
        table = datasets.load_dataset("json", data_files=source, split="train", cache_dir=str(folder / "cache"))
        assert "Json" in str(table.features), "datasets stores it in another way now"
        table.to_parquet(str(folder / "mixed.parquet"))
        table.save_to_disk(str(folder / name.replace(".", "_")))
        for source in (folder / "mixed.parquet", folder / name.replace(".", "_")):
            _, rows, rejected = prepare(folder, source)
            assert [row.annotation for row in rows] == expected[name], (source, rejected)


def test_class_labels_are_read_by_name(folder: Path) -> None:
    """datasets stores the number of a class; what is asked for is its name. -1 is none: a missing answer."""
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["street", "beach"])
    columns = {
        "image": ["images/a.png", "images/b.jpg", "images/a.png"],
        "question": ["which place?", "and here?", "and now?"], "answer": [1, 0, -1],
        "options": [[0, 1], [1, 0], [0, 1]], "category": [1, 1, 1],
    }  # fmt: skip
    features = datasets.Features(
        {"image": datasets.Value("string"), "question": datasets.Value("string"), "answer": label,
         "options": datasets.List(label), "category": label}
    )  # fmt: skip
    table = datasets.Dataset.from_dict(columns, features=features)
    table.to_parquet(str(folder / "labels.parquet"))
    table.save_to_disk(str(folder / "labels"))
    for source in (folder / "labels.parquet", folder / "labels"):
        _, rows, rejected = prepare(folder, source)
        assert [row.annotation for row in rows] == ["beach", "street"]
        assert [row.details.options for row in rows] == [("street", "beach"), ("beach", "street")]
        assert {row.details.category for row in rows} == {"beach"}
        assert len(rejected) == 1


def test_class_labels_within_lists_and_mappings_are_read_by_name(folder: Path) -> None:
    """Who speaks in a conversation, and options under their letters, whatever the features beside them are."""
    datasets = pytest.importorskip("datasets")
    text, speaker = datasets.Value("string"), datasets.ClassLabel(names=["human", "gpt"])
    features = datasets.Features({"image": text, "conversations": datasets.List({"from": speaker, "value": text})})
    turns = [{"from": 0, "value": "which place?"}, {"from": 1, "value": "the beach"}]
    table = datasets.Dataset.from_dict({"image": ["images/a.png"], "conversations": [turns]}, features=features)
    table.to_parquet(str(folder / "talks.parquet"))
    _, rows, rejected = prepare(folder, folder / "talks.parquet")
    assert [(row.query, row.annotation) for row in rows] == [("which place?", "the beach")], rejected


def test_features_as_any_version_of_datasets_notes_them(folder: Path) -> None:
    """A feature that this reader does not know takes no name from the columns beside it."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    label = {"_type": "ClassLabel", "names": ["street", "beach"]}
    for number, (feature, value, expected) in enumerate([
        (label, 1, "beach"),
        ([label], [1, 0], ["beach", "street"]),
        ({"_type": "Sequence", "feature": label}, [1, -1], ["beach", None]),
        ({"_type": "Sequence", "feature": {"place": label}}, {"place": [1, 0]}, {"place": ["beach", "street"]}),
        ({"_type": "List", "feature": {"_type": "List", "feature": label}}, [[1], []], [["beach"], []]),
        ({"place": label, "_type": label}, {"place": 1, "_type": 0}, {"place": "beach", "_type": "street"}),
        ({"_type": "ClassLabel"}, 1, 1),
    ]):  # fmt: skip
        features = {"none": [], "null": None, "word": "int64", "number": 3, "value": feature}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        rows = arrow.table({"value": [value], "none": [[7]], "word": [1]}).replace_schema_metadata(metadata)
        parquet.write_table(rows, folder / f"{number}.parquet")
        found = list(parquet_rows(folder / f"{number}.parquet"))
        assert found == [{"value": expected, "none": [7], "word": 1}], feature


@pytest.mark.parametrize("said", ["no json", "[]", "null", '{"info": null}', '{"info": {"features": [3]}}'])
def test_metadata_of_another_program_is_no_feature(folder: Path, said: str) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        arrow.table({"value": [1]}).replace_schema_metadata({"huggingface": said}), folder / "a.parquet"
    )
    assert list(parquet_rows(folder / "a.parquet")) == [{"value": 1}]


def test_what_save_to_disk_writes(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [str(folder / "images/a.png"), str(folder / "images/b.jpg")]
    table = datasets.Dataset.from_dict({"image": images, "question": ["q0", "q1"], "answer": ["a0", "a1"]})
    paths, pictures = folder / "paths", folder / "pictures"
    table.save_to_disk(str(paths))
    table.cast_column("image", datasets.Image()).map(lambda row: row).save_to_disk(str(pictures), num_shards=2)
    for source in (paths, pictures):
        assert format_of(source).name == "parquet"
        summary, rows, _ = prepare(folder, source)
        assert [row.query for row in rows] == ["q0", "q1"] and summary.num_images == 2
    splits = folder / "splits"
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(splits))
    with pytest.raises(DataError, match=r"several splits\. Name one of them: .*splits/train, .*splits/test"):
        read_source(splits)


def test_a_data_address_holds_the_picture(folder: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(PANORAMA).decode()
    _, rows, rejected = prepare(folder, write(folder / "talks.json", [talk("q", "a", image=address)]))
    assert not rejected and (folder / rows[0].image_path).read_bytes() == PANORAMA


def test_the_last_question_of_a_conversation_is_asked_or_each(folder: Path) -> None:
    """Other conversations about the picture, and single questions, stay."""
    talks = [talk("q1", "a1", "q2", "a2", "q3", "a3"), talk("q1", "other", "q4", "a4"), talk("alone", "a")]
    prepare(folder, write(folder / "talks.json", talks))
    samples = read_samples(folder / "prepared.csv")
    assert [one.query for one in samples] == ["q1", "q2", "q3", "q4", "alone"]
    asked = as_shown(samples, {}, 0)
    assert [(one.sample_id, one.query) for one in asked] == [(0, "q3"), (1, "q4"), (2, "alone")]
    assert asked[1].details.context_turns == (("user", "q1"), ("assistant", "other"))
    assert as_shown(samples, {"turns": "each"}, 0) == samples
    plain = samples[-1:]
    assert last_turns(plain) is plain
