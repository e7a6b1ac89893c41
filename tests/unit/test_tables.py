"""Input CSVs: read to the character, or refused with what was found."""

from __future__ import annotations

from pathlib import Path

import pytest

from panollava.data.formats.csv import read_csv as read_table
from panollava.data.tables import is_url, resolve_image, write_table
from panollava.errors import DataError


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "in.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path: Path, columns: dict[str, str | None] | None = None) -> list[tuple[int, str, str, str]]:
    return [(row.source_line, row.image_path, row.query, row.annotation) for row in read_table(path, columns).rows]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_any_newline_with_or_without_bom(tmp_path: Path, newline: str, bom: bytes) -> None:
    text = newline.join(
        ["url,query,annotation", "a.jpg,무엇,빨간 상자", 'b.jpg,"two', 'lines","x"', "", "c.jpg,q,r", ""]
    )
    path = written(tmp_path, bom + text.encode())
    assert values(path) == [
        (2, "a.jpg", "무엇", "빨간 상자"),
        (3, "b.jpg", f"two{newline}lines", "x"),
        (6, "c.jpg", "q", "r"),  # the quoted newline and the blank line are counted
    ]


def test_text_is_kept_to_the_character(tmp_path: Path) -> None:
    texts = ["None", "NA", "nan", " padded ", 'say "hi"', "tab\there", "\u2028", "a,b", "😀", "1e5"]
    path = tmp_path / "in.csv"
    write_table(path, ["image_path", "query", "annotation"], [["i.png", text, text] for text in texts])
    assert [row.query for row in read_table(path).rows] == texts
    assert all(row.problem is None for row in read_table(path).rows)


def test_written_carriage_returns_survive(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    texts = ["a\rb", "a\nb", "a\r\nb", 'a\r"b"']
    write_table(path, ["image_path", "query", "annotation"], [["i.png", text, "x"] for text in texts])
    assert [row.query for row in read_table(path).rows] == texts
    assert path.read_bytes().startswith(b"image_path,query,annotation\n")


@pytest.mark.parametrize(
    "header",
    ["url,query,annotation", "url,instruction,response", " Image_Path ,QUESTION,Answer", "IMAGE,query,caption"],
)
def test_aliases(tmp_path: Path, header: str) -> None:
    assert values(written(tmp_path, f"{header}\na,b,c\n")) == [(2, "a", "b", "c")]
    assert values(written(tmp_path, f"extra,{header}\n0,a,b,c\n")) == [(2, "a", "b", "c")]


def test_columns_mapped_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "url,Picture,query,said\nwrong,a,b,c\n")
    assert values(path, {"image_path": "picture", "annotation": " Said", "query": None}) == [(2, "a", "b", "c")]
    with pytest.raises(DataError, match="no column for query: expected nothing, found 'url', 'Picture'"):
        read_table(path, {"query": "nothing", "annotation": "said"})
    with pytest.raises(DataError, match="maps one column twice"):
        read_table(path, {"query": "said", "annotation": "said"})
    with pytest.raises(DataError, match="can map image_path, query, annotation, answer_type"):
        read_table(path, {"reply": "said"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (" \n\n", "the file is empty"),
        ("url,query,annotation\n", "a header but no rows"),
        ("url,query\na,b\n", "no column for annotation: expected annotation or response.*found 'url', 'query'"),
        ("url,query,annotation,Answer\na,b,c,d\n", "several columns for annotation: 'annotation', 'Answer'"),
        ("url,query,query,annotation\na,b,c,d\n", "several columns for query"),
        ("url;query;annotation\na;b;c\n", "separated by semicolons, expected commas.*'url;query;annotation'"),
        ("url\tquery\tannotation\na\tb\tc\n", "separated by tabs"),
        ("url,query,annotation\n한글,b,c\n".encode("cp949"), r"not UTF-8 text: byte 0x.. in line 2.*iconv"),
        ("url,query,annotation\na,b,c\n".encode("utf-16"), "UTF-16 text, expected UTF-8"),
        ("url,query,annotation\na,b\0,c\n", "NUL characters"),
        ('url,query,annotation\na,b,c\nd,"e,f\ng,h,i\n', "the row that starts at line 3 is not valid CSV"),
        ('url,query,annotation\na,b,"say "hi""\n', "the row that starts at line 2 is not valid CSV"),
    ],
)
def test_refused_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_table(written(tmp_path, content))
    assert "in.csv" in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv does not exist"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)


def test_rows_with_problems_keep_their_place(tmp_path: Path) -> None:
    path = written(tmp_path, "url,query,annotation\na,b,c\n,b,\na,b\na,b,c,d\na, ,c\n")
    assert [row.problem for row in read_table(path).rows] == [
        None,
        "missing column value: image_path, annotation",
        "wrong number of fields: 2, expected 3",
        "wrong number of fields: 4, expected 3",
        None,  # only an empty field is missing
    ]


def test_images_beside_the_csv_come_first(tmp_path: Path) -> None:
    for folder in ("data", "root"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "both.jpg").touch()
    (tmp_path / "root" / "only.jpg").touch()
    csv_path, root = tmp_path / "data" / "in.csv", tmp_path / "root"
    assert resolve_image("both.jpg", csv_path, root) == tmp_path / "data" / "both.jpg"
    assert resolve_image("only.jpg", csv_path, root) == root / "only.jpg"
    assert resolve_image(str(root / "only.jpg"), csv_path, tmp_path) == root / "only.jpg"
    for absent in ("absent.jpg", "x" * 5000, ".", "a\0b"):
        assert resolve_image(absent, csv_path, root) is None


def test_urls() -> None:
    assert is_url("http://a/b")
    assert is_url("HTTPS://a/b")
    assert not is_url("images/http.jpg")
