"""The samples file that lmms-eval writes (`--log_samples`), as rows of a predictions CSV.

A JSON object a line: `doc_id`, `doc` (the task's own fields), `target`, `resps`, `filtered_resps`. What was filtered is
what lmms-eval scored, and is the prediction here; options and kinds of answers are taken from the task's fields where
they have a CSV's names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from panollava.answers.letters import letter
from panollava.data.details import DETAIL_COLUMNS, Details
from panollava.data.formats.json_lines import read_records
from panollava.data.questions import settle
from panollava.errors import DataError, EvaluationError

SUFFIXES = (".jsonl", ".ndjson")
_QUERIES = ("query", "question", "instruction", "prompt")
_IMAGES = ("image_path", "url", "image", "image_url", "image_id", "path")


def read_lmms_samples(path: Path) -> list[dict[str, str]]:
    """The rows. Raises EvaluationError that names the file, and the line, with what was found."""
    try:
        return [_row(path, line, record) for line, record in read_records(path)]
    except DataError as error:
        raise EvaluationError(str(error)) from error


def _row(path: Path, line: int, record: Mapping[str, Any]) -> dict[str, str]:
    if "target" not in record or not ({"filtered_resps", "resps"} & record.keys()):
        raise EvaluationError(
            f"{path}, line {line}: found {', '.join(record)}; expected target and filtered_resps, as lmms-eval's "
            "--log_samples writes them"
        )
    doc: Mapping[str, Any] = record["doc"] if isinstance(record.get("doc"), dict) else {}
    said = record.get("filtered_resps", record.get("resps"))
    while isinstance(said, list):
        if len(said) != 1:
            raise EvaluationError(f"{path}, line {line}: {len(said)} responses, expected one")
        said = said[0]
    target = record["target"]
    reference = target if isinstance(target, str) else json.dumps(target, ensure_ascii=False)
    details = _details(path, line, doc, reference)
    found = {"sample_id": str(record.get("doc_id", line)), "prediction": str(said), "reference": reference}
    image, query = (next((str(doc[name]) for name in names if isinstance(doc.get(name), (str, int))), "")
                    for names in (_IMAGES, _QUERIES))  # fmt: skip
    if image and query:
        found |= {"image_path": image, "original_query": query}
    fields = {name: text for name, text in details.to_fields().items() if name != "sample_id"}
    return {**found, **dict.fromkeys((name for name in DETAIL_COLUMNS if name != "sample_id"), ""), **fields}


def _details(path: Path, line: int, doc: Mapping[str, Any], reference: str) -> Details:
    fields = {name: doc[name] for name in DETAIL_COLUMNS if name in doc and doc[name] not in (None, "")}
    if "options" not in fields and isinstance(doc.get("choices"), list):
        fields["options"] = doc["choices"]
    if "options" not in fields:
        lettered: list[str] = []
        while (text := doc.get(letter(len(lettered)))) not in (None, ""):
            lettered.append(str(text))
        if len(lettered) > 1:
            fields["options"] = lettered
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    try:
        details = Details.from_fields(texts)
        return settle(reference, details, given_type="answer_type" in texts)
    except ValueError as error:
        raise EvaluationError(f"{path}, line {line}: {error}") from error
