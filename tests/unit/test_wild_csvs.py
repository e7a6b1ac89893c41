"""CSVs as people have them: each row kept to the character or rejected with line and reason, or the file refused."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panollava.data.prepare import prepare_csv
from panollava.data.samples import read_rows
from panollava.errors import DataError

HEADER = "url,query,annotation\n"
ROW = "a.png,q,x\n"
KEPT = "kept"
GONE = "gone.png,q,x\n"  # no such image: shows which line is counted


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and things that look like pictures."""
    folder = tmp_path_factory.mktemp("wild")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    for name in (
        "a.png",
        "my panorama.png",
        "파노라마/사진 1.png",
        "None",
        "comma,name.png",
        "tab\tname.png",
        "@$(id);'.png",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name, "PNG")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "left.png").symlink_to("right.png")
    (folder / "right.png").symlink_to("left.png")
    (folder / "dangling.png").symlink_to("nowhere.png")
    (folder / "linked.png").symlink_to("a.png")
    return folder


def prepared(folder: Path, tmp_path: Path, content: bytes) -> dict[int, str]:
    """What became of each rejected row (line -> reason) and, under 0, how many rows were kept."""
    source = folder / "in.csv"
    source.write_bytes(content)
    out, rejected = tmp_path / "out.csv", tmp_path / "rejected.csv"
    try:
        prepare_csv([source], out, rejected, root=tmp_path, max_rejected_fraction=1, progress=False)
    except DataError as error:
        if "No row is left" not in str(error):
            raise
    with rejected.open(encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream, strict=True)
    assert header[:3] == ["source_csv", "source_line", "reason"]
    assert all(line[0] == str(source) and len(line) == len(header) for line in lines)
    return {0: len(read_rows(out)) if out.exists() else 0} | {int(line[1]): line[2] for line in lines}


ROWS: dict[str, tuple[str | bytes, dict[int, str]]] = {
    # name: (content, {0: number of rows kept, line: what its reason holds})
    "plain": (HEADER + ROW + GONE, {0: 1, 3: "image missing"}),
    "byte order mark": (b"\xef\xbb\xbf" + (HEADER + ROW + GONE).encode(), {0: 1, 3: "image missing"}),
    "byte order mark and quotes": ('\ufeff"url","query","annotation"\n' + ROW, {0: 1}),
    "Windows newlines": ((HEADER + ROW + GONE).replace("\n", "\r\n"), {0: 1, 3: "image missing"}),
    "old Mac newlines": ((HEADER + ROW + GONE).replace("\n", "\r"), {0: 1, 3: "image missing"}),
    "newlines converted twice": ((HEADER + ROW + GONE).replace("\n", "\r\r\n"), {0: 1, 5: "image missing"}),
    "mixed newlines": (HEADER + "a.png,q,x\r\na.png,q,x\ra.png,q,x\n" + GONE, {0: 3, 5: "image missing"}),
    "no newline at the end": (HEADER + "a.png,q,x", {0: 1}),
    "blank lines": ("\n\n" + HEADER + "\n" + ROW + "\n\n" + GONE + "\n", {0: 1, 8: "image missing"}),
    "quoted newlines": (HEADER + 'a.png,"two\nlines\r\nand\rmore",x\n' + GONE, {0: 1, 6: "image missing"}),
    "a multi-line header": ('"a\nnote",url,query,annotation\n1,a.png,q,x\n2,gone.png,q,x\n', {0: 1, 4: "image"}),
    "line ends of Unicode": (HEADER + "a.png,q\u2028\u2029\x85\x0b\x0c\x1c,x\n" + GONE, {0: 1, 3: "image"}),
    "words for nothing are words": (HEADER + "a.png,nan,NaN\na.png,None,null\na.png,NA,N/A\n", {0: 3}),
    "a picture called None": (HEADER + "None,q,x\nnan,q,x\n", {0: 1, 3: "image missing"}),
    "empty fields": (HEADER + 'a.png,,x\n,q,x\na.png,q,""\n,,\n' + ROW, {
        0: 1, 2: "missing column value: query", 3: "missing column value: image_path",
        4: "missing column value: annotation", 5: "missing column value: image_path, query, annotation"}),
    "a space is text": (HEADER + "a.png, ,x\n", {0: 1}),
    "spaces around a path": (HEADER + " a.png,q,x\na.png ,q,x\n", {0: 0, 2: "white space", 3: "white space"}),
    "ragged rows": (HEADER + "a.png\na.png,q,x,y\n,\n,,,,\n" + ROW, {
        0: 1, 2: "wrong number of fields: 1, expected 3", 3: "fields: 4", 4: "fields: 2", 5: "fields: 5"}),
    "a comma too many in every row": (HEADER + "a.png,q,x,\n", {0: 0, 2: "wrong number of fields: 4, expected 3"}),
    "a comma too many in header and rows": ("url,query,annotation,\na.png,q,x,\n", {0: 1}),
    "an index column": (",url,query,annotation\n0,a.png,q,x\n1,gone.png,q,x\n", {0: 1, 3: "image missing"}),
    "tabs in the rows only": (HEADER + "a.png\tq\tx\n", {0: 0, 2: "wrong number of fields: 1, expected 3"}),
    "quotes within": (HEADER + 'a.png,say "hi",it\'s\na.png,"say ""hi""",“x”\n', {0: 2}),
    "commas in quotes": (HEADER + '"comma,name.png","a, b","c, d"\n', {0: 1}),
    "a very long text": (HEADER + "a.png,q," + "x" * 300_000 + "\n" + GONE, {0: 1, 3: "image missing"}),
    "a very long text of many lines": (HEADER + 'a.png,q,"' + "x\n" * 100_000 + '"\n' + GONE, {0: 1, 100_003: "image"}),
    "a very long path": (HEADER + "x" * 5000 + ".png,q,x\n" + ROW, {0: 1, 2: "image missing: File name too long"}),
    "many columns": (",".join(f"c{n}" for n in range(2000)) + "," + HEADER + "0," * 2000 + ROW, {0: 1}),
    "doubled columns nobody needs": ("x,x,url,query,annotation\n1,2,gone.png,q,x\n1,2,a.png,q,x\n", {0: 1, 2: "image"}),
    "shouted names": (" URL ,QUERY,Annotation\n" + ROW, {0: 1}),
    "other scripts": (HEADER + "파노라마/사진 1.png,뒤에?,빨간 상자\na.png,何が,🚗🏽\na.png,مَا,e\u0301\n", {0: 3}),
    "paths with spaces and signs": (HEADER + "my panorama.png,q,x\n@$(id);'.png,q,x\n\"tab\tname.png\",q,x\n", {0: 3}),
    "spreadsheet formulas are text": (HEADER + "a.png,=1+1,@SUM(A1)\n", {0: 1}),
    "an end-of-file mark of DOS": (HEADER + ROW + "\x1a", {0: 1, 3: "wrong number of fields"}),
    "a path with a NUL that is none": (HEADER + "a\\0.png,q,x\n", {0: 0, 2: "image missing"}),
    "a link": (HEADER + "linked.png,q,x\n", {0: 1}),
    "links in a circle": (HEADER + "circle.png,q,x\nleft.png,q,x\nleft.png/a.png,q,x\n", {
        0: 0, 2: "leads nowhere", 3: "leads nowhere", 4: "image missing"}),
    "a dangling link": (HEADER + "dangling.png,q,x\n", {0: 0, 2: "image missing: it is a link that leads nowhere"}),
    "folders": (HEADER + "folder.png,q,x\n.,q,x\n/,q,x\n", {0: 0, **dict.fromkeys((2, 3, 4), "it is a folder")}),
    "a pipe and devices": (HEADER + "pipe.png,q,x\n/dev/zero,q,x\n/dev/stdin,q,x\n", {0: 0, **dict.fromkeys(
        (2, 3, 4), "image missing")}),
    "a file below a file": (HEADER + "a.png/b.png,q,x\n", {0: 0, 2: "image missing"}),
    "addresses of other kinds": (
        HEADER + "file:///etc/passwd,q,x\nFTP://h/a.png,q,x\ns3://b/a.png,q,x\ndata:image/png;base64,q,x\n"
        "javascript:alert(1),q,x\n//h/a.png,q,x\nhttp:/a.png,q,x\n",
        {0: 0, 2: "file: is not read, only paths", 3: "FTP: is not read", 4: "s3: is not read", 5: "data: is not read",
         6: "javascript: is not read", 7: "image missing", 8: "http: is not read"}),
    "addresses without a cache": (HEADER + "http://h/a.png,q,x\n", {0: 0, 2: "download failed: no image cache"}),
    "nothing is expanded": (HEADER + "~/a.png,q,x\n$PWD/a.png,q,x\n", {0: 0, 2: "missing", 3: "missing"}),
    "UTF-7 is ASCII to everybody": ((HEADER + "a.png,한글,x\n").encode("utf-7"), {0: 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_kept_or_has_line_and_reason(folder: Path, tmp_path: Path, name: str) -> None:
    content, expected = ROWS[name]
    found = prepared(folder, tmp_path, content.encode() if isinstance(content, str) else content)
    assert found.keys() == expected.keys() and found[0] == expected[0], found
    for line, reason in expected.items():
        assert line == 0 or reason in found[line], found


FILES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "the file is empty"),
    "blank": (" \n\t\n\n", "the file is empty"),
    "header only": (HEADER, "a header but no rows"),
    "header and blank lines": (HEADER + "\n\n", "a header but no rows"),
    "no header": (ROW * 2, "no column for image_path: expected image_path or url .*found 'a.png', 'q', 'x'"),
    "a comment first": ("# from QuIC-360\n" + HEADER + ROW, "no column for image_path.*found '# from QuIC-360'"),
    "semicolons": ("url;query;annotation\na.png;q;x\n", "separated by semicolons, expected commas"),
    "quoted semicolons": ('"url";"query";"annotation"\n"a.png";"q";"x"\n', "separated by semicolons"),
    "tabs": ("url\tquery\tannotation\na.png\tq\tx\n", "separated by tabs"),
    "bars": ("url|query|annotation\na.png|q|x\n", "separated by vertical bars"),
    "Excel's own line": ("sep=;\nurl;query;annotation\na.png;q;x\n", "'sep=;', is for Excel only"),
    "full-width commas": ("url，query，annotation\na.png，q，x\n", "no column for image_path.*'url，query，"),
    "one column missing": ("url,query\na.png,q\n", "no column for annotation.*found 'url', 'query'"),
    "two names for one column": ("url,image_path,query,annotation\na,a,q,x\n", "several columns for image_path: 'url'"),
    "a column twice": ("url,query,query,annotation\na,q,q,x\n", "several columns for query"),
    "a look-alike letter": ("url,quеry,annotation\n" + ROW, "no column for query"),
    "an invisible character": ("\u200burl,query,annotation\n" + ROW, r"found '\\u200burl'"),
    "two byte order marks": ("\ufeff\ufeff" + HEADER + ROW, r"found '\\ufeffurl'"),
    "an open quote": (HEADER + 'a.png,"q,x\n' + ROW * 3, "the row that starts at line 2 is not valid CSV"),
    "a quote that ends early": (HEADER + ROW + 'a.png,"say "hi"",x\n', "the row that starts at line 3"),
    "backslashes for quotes": (HEADER + 'a.png,"say \\"hi\\"",x\n', "the row that starts at line 2"),
    "a NUL": (HEADER + ROW + "a.png,q\0,x\n", "NUL characters, the first in line 3"),
    "UTF-16": ((HEADER + ROW).encode("utf-16"), "UTF-16 text, expected UTF-8. `iconv -f UTF-16 -t UTF-8`"),
    "UTF-16, big end first": (b"\xfe\xff" + (HEADER + ROW).encode("utf-16-be"), "UTF-16 text"),
    "UTF-16 without its mark": ((HEADER + ROW).encode("utf-16-le"), "UTF-16 or UTF-32 text without its mark"),
    "UTF-32": ((HEADER + ROW).encode("utf-32"), "UTF-32 text"),
    "Korean Windows": ((HEADER + "a.png,한글,x\n").encode("cp949"), "byte 0x.. in line 2. `iconv -f CP949 -t UTF-8`"),
    "western Windows": ((HEADER + ROW + "a.png,é,x\n").encode("latin-1"), "byte 0xe9 in line 3.*WINDOWS-1252"),
    "half a character": ((HEADER + "a.png,q,한").encode()[:-1], "not UTF-8 text"),
    "half a pair": (HEADER.encode() + b"a.png,\xed\xa0\x80,x\n", "not UTF-8 text"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image, expected a CSV"),
    "compressed": (gzip.compress((HEADER + ROW).encode()), "gzip-compressed, expected a CSV"),
    "a workbook": (b"PK\x03\x04" + bytes(50), "an Excel workbook"),
    "a web page": ("<!DOCTYPE html><title>404</title>", "an HTML page, expected a CSV"),
    "JSON": ('[{"url": "a.png", "query": "q", "annotation": "x"}]', "JSON, expected a CSV"),
    "a large-file pointer": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "noise": (bytes(range(128, 256)) * 4, "not UTF-8 text"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_an_unusable_file_is_refused_with_what_was_found(folder: Path, tmp_path: Path, name: str) -> None:
    content, message = FILES[name]
    with pytest.raises(DataError, match=message) as caught:
        prepared(folder, tmp_path, content.encode() if isinstance(content, str) else content)
    assert "in.csv" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [("absent.csv", "does not exist"), (".", "is a folder"), ("pipe.png", "is no ordinary file"),
     ("/dev/null", "is no ordinary file"), ("circle.png", "is a link that leads nowhere"), ("a.png", "a PNG image"),
     ("x" * 300, "cannot be read: File name too long"), ("a\0b", "does not exist|cannot be read")],
)  # fmt: skip
def test_what_is_no_file_is_refused(folder: Path, tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_csv([folder / path], tmp_path / "out.csv", tmp_path / "rejected.csv", progress=False)


def test_what_is_kept_is_kept_to_the_character(folder: Path, tmp_path: Path) -> None:
    texts = [
        "nan",
        " padded ",
        'say "hi"',
        "a,b",
        "한글",
        "e\u0301",
        "é",
        "\u2028",
        "🚗🏽",
        "=1+1",
        "'",
        "\\n",
        "\ttab",
        "1e5",
    ]
    lines = "".join('"파노라마/사진 1.png","{0}","{0}"\n'.format(text.replace('"', '""')) for text in texts)
    assert prepared(folder, tmp_path, (HEADER + lines).encode()) == {0: len(texts)}
    rows = read_rows(tmp_path / "out.csv")
    assert [row.query for row in rows] == [row.annotation for row in rows] == texts
    assert all(row.image_path.endswith("/파노라마/사진 1.png") for row in rows)


def test_a_file_that_may_not_be_read(folder: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "in.csv").write_text(HEADER + ROW)
    (tmp_path / "in.csv").chmod(0)
    with pytest.raises(DataError, match="cannot be read: Permission denied"):
        prepare_csv([tmp_path / "in.csv"], tmp_path / "out.csv", tmp_path / "rejected.csv", progress=False)
