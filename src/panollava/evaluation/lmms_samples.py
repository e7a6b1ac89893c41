"""The samples file that lmms-eval writes (`--log_samples`), as rows of a predictions CSV.

A JSON object a line: `doc_id`, `target`, `filtered_resps` (or `resps`), `input`, `input_media`, and what the task's
process_results gave; files of older versions also `doc`, the task's own fields. What was filtered is what lmms-eval
scored, and is the prediction here. Fields that have a CSV's names say the kind of answer and the options. Where none
does, options are the lines `A. …` of the question, and a target that is yes, no or a bare number wants that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.answers.choice import words_of
from panollava.answers.letters import bare_letter, letter
from panollava.data.details import DETAIL_COLUMNS, Details
from panollava.data.formats.json_lines import read_records
from panollava.data.questions import settle
from panollava.errors import DataError, EvaluationError
from panollava.settings.choices import IMAGE_MARK

SUFFIXES = (".jsonl", ".ndjson")
_QUERIES = ("query", "question", "instruction", "prompt")
_IMAGES = ("image_path", "url", "image", "image_url", "image_id", "path")
_OPTION = re.compile(r"^\s*(?:\(([A-Z])\)|([A-Z])\s*[.):])\s+(\S.*?)\s*$", re.M)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def read_lmms_samples(path: Path) -> list[dict[str, str]]:
    """The rows. Raises EvaluationError that names the file, and the line, with what was found."""
    try:
        rows = [_row(path, line, record) for line, record in read_records(path)]
    except DataError as error:
        raise EvaluationError(str(error)) from error
    if not all(row["image_path"] and row["original_query"] for row in rows):
        for row in rows:  # what cannot be distinguished is not grouped
            del row["image_path"], row["original_query"]
    return rows


def _row(path: Path, line: int, record: Mapping[str, Any]) -> dict[str, str]:
    if "target" not in record or not ({"filtered_resps", "resps"} & record.keys()):
        raise EvaluationError(
            f"{path}, line {line}: found {', '.join(record)}; expected target and filtered_resps, as lmms-eval's "
            "--log_samples writes them"
        )
    doc = {**record, **(record["doc"] if isinstance(record.get("doc"), dict) else {})}
    said = record.get("filtered_resps", record.get("resps"))
    while isinstance(said, list):
        if len(said) != 1:
            raise EvaluationError(f"{path}, line {line}: {len(said)} responses, expected one")
        said = said[0]
    target = record["target"]
    reference = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    query = next((str(doc[name]) for name in _QUERIES if isinstance(doc.get(name), str)), None)
    if query is None:
        query = record["input"].replace(IMAGE_MARK, "").strip() if isinstance(record.get("input"), str) else ""
    media = record.get("input_media")
    image = next((str(doc[name]) for name in _IMAGES if isinstance(doc.get(name), (str, int))), "")
    if not image and isinstance(media, list):
        image = ", ".join(str(one) for one in media)
    details = _details(path, line, doc, reference, query)
    found = {"sample_id": str(record.get("doc_id", line)), "image_path": image, "original_query": query,
             "prediction": str(said), "reference": reference}  # fmt: skip
    fields = {name: text for name, text in details.to_fields().items() if name != "sample_id"}
    return {**found, **dict.fromkeys((name for name in DETAIL_COLUMNS if name != "sample_id"), ""), **fields}


def _details(path: Path, line: int, doc: Mapping[str, Any], reference: str, query: str) -> Details:
    fields = {name: doc[name] for name in DETAIL_COLUMNS if name in doc and doc[name] not in (None, "")}
    if "options" not in fields and isinstance(doc.get("choices"), list):
        fields["options"] = doc["choices"]
    if "options" not in fields:
        lettered: list[str] = []
        while (text := doc.get(letter(len(lettered)))) not in (None, ""):
            lettered.append(str(text))
        if len(lettered) > 1:
            fields["options"] = lettered
    if not fields.keys() & {"options", "answer_type"}:
        fields |= _told_by(reference, query)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    try:
        details = Details.from_fields(texts)
        return settle(reference, details, given_type="answer_type" in texts)
    except ValueError as error:
        raise EvaluationError(f"{path}, line {line}: {error}") from error


def _told_by(reference: str, query: str) -> dict[str, Any]:
    """The kind of answer that a question and its target show by themselves; nothing for a text."""
    options: list[str] = []
    for found in _OPTION.finditer(query):
        if (found[1] or found[2]) == letter(len(options)):
            options.append(found[3])
    if len(options) > 1 and (bare_letter(reference) or words_of(reference) in map(words_of, options)):
        return {"options": options}
    if reference.strip().casefold().rstrip(".") in ("yes", "no"):
        return {"answer_type": "yes_no"}
    return {"answer_type": "number"} if _NUMBER.fullmatch(reference.strip()) else {}
