"""Before any job runs: answers that a stage's `max_text_length` cuts, counted where the tokenizer is at hand.

The stage itself counts again, on the rows that preparation kept. The counts made here are cached by the contents of the
CSV and of the tokenizer's folder, so that a second plan reads neither.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.config.fingerprints import INDEX_FOLDER, folder_fingerprint
from panollava.config.schema import SYNTHETIC
from panollava.dag.parents import backbone_folder
from panollava.errors import DataError, StorageError
from panollava.files import canonical_json, read_json, write_text

if TYPE_CHECKING:
    from panollava.config import WorkflowConfig

MOST_ROWS = 100_000
"""Of a larger CSV so many rows are counted here; all of them are when the stage starts."""
_AT_ONCE = 1024
_SHOWN = 60


def length_warnings(experiment: WorkflowConfig, stage: str) -> list[str]:
    """How many answers of the stage's CSVs are cut, how many queries leave one token of theirs; [] where none are, in
    the vision stage, in one that is finished, and where the tokenizer is on the hub or still to be built."""
    part = "language" if experiment.settings.models.vlm_name is None else "vlm"
    folder = backbone_folder(experiment, part)
    if stage == "vision" or folder is None or _is_finished(experiment, stage):
        return []
    if not (experiment.root / folder / "tokenizer.json").is_file():
        return []
    limit = experiment.settings.training.stage_configs.of(stage).max_text_length
    key = f"training.stage_configs.{stage}.max_text_length"
    lines: list[str] = []
    for split in ("train", "val"):
        for csv in experiment.csvs(split, stage):
            if csv != SYNTHETIC:
                lines += _lines(_counted(experiment, csv, key, folder, limit), csv, key, limit)
    return lines


def _is_finished(experiment: WorkflowConfig, stage: str) -> bool:
    try:
        metadata = read_json(experiment.root / experiment.names.stage_dir(stage) / "checkpoint_metadata.json")
        return bool(metadata["checkpoint_info"]["config_digest"] == experiment.digest(f"train_{stage}"))
    except (OSError, ValueError, KeyError, TypeError):  # absent, or not one of ours
        return False


def _lines(found: dict[str, Any], csv: str, key: str, limit: int) -> Iterator[str]:
    of = f"{found['rows']:,}" if found["rows"] < MOST_ROWS else f"the first {found['rows']:,}"
    if found["cut"]:
        yield (
            f"{found['cut']:,} of {of} answers of {csv} are cut at max_text_length {limit} and lose the token that "
            f"ends them: {key}: {found['longest']} keeps them whole. The first: {found['first_cut']}"
        )
    if found["starved"]:
        yield (
            f"{found['starved']:,} of {of} queries of {csv} fill max_text_length {limit} ({key}) and leave one "
            f"supervised token of their answer. The first: {found['first_starved']}"
        )


def _counted(experiment: WorkflowConfig, csv: str, key: str, folder: str, limit: int) -> dict[str, Any]:
    """`rows`, `cut`, `starved`, `longest` and the first row of each kind, from memory where it is there."""
    data, instruct = experiment.settings.data, experiment.settings.evaluation.answer_instruction
    read_as = [data.format, data.columns.model_dump(mode="json"), instruct]
    words = folder_fingerprint(folder, experiment.root)
    contents = [experiment.fingerprint_of_csv(csv, key), read_as, words, limit, MOST_ROWS]
    digest = hashlib.sha256(canonical_json(["lengths", *contents]).encode()).hexdigest()
    memory = experiment.root / INDEX_FOLDER / "lengths" / f"{digest[:16]}.json"
    with suppress(OSError, ValueError):
        remembered: dict[str, Any] = json.loads(memory.read_text(encoding="utf-8"))
        return remembered
    found = _count(experiment, csv, experiment.root / folder / "tokenizer.json", limit)
    if found["rows"]:  # what could not be read may be readable next time
        with suppress(StorageError):  # it is only a memory
            write_text(memory, json.dumps(found, ensure_ascii=False) + "\n")
    return found


def _count(experiment: WorkflowConfig, csv: str, tokenizer: Path, limit: int) -> dict[str, Any]:
    from tokenizers import Tokenizer

    from panollava.data.details import NO_DETAILS
    from panollava.data.formats import read_source
    from panollava.data.prompting import instructed, prompt_of, target_of

    found: dict[str, Any] = {"rows": 0, "cut": 0, "starved": 0, "longest": 0, "first_cut": "", "first_starved": ""}
    settings, instruct = experiment.settings.data, experiment.settings.evaluation.answer_instruction
    columns = {name: to for name, to in settings.columns.model_dump().items() if to is not None}
    try:
        rows = read_source(experiment.root / csv, columns, settings.format).rows
    except DataError:  # preparation says what is wrong with it
        return found
    try:
        words = Tokenizer.from_file(str(tokenizer))
    except Exception:  # the library raises nothing narrower; the stage says what is wrong with the file
        return found
    words.no_truncation()
    words.encode_special_tokens = True
    usable = islice((row for row in rows if row.problem is None), MOST_ROWS)
    while some := list(islice(usable, _AT_ONCE)):
        details = [
            row.details if row.details is NO_DETAILS else instructed(row.annotation, row.details, instruct)
            for row in some
        ]
        asked = [prompt_of(row.query, more) for row, more in zip(some, details, strict=True)]
        taught = [target_of(row.annotation, more).strip() for row, more in zip(some, details, strict=True)]
        queries = words.encode_batch(asked, add_special_tokens=False)
        answers = words.encode_batch(taught, add_special_tokens=False)
        found["rows"] += len(some)
        for row, query, answer in zip(some, queries, answers, strict=True):
            whole = len(query.ids) + len(answer.ids) + 1
            found["longest"] = max(found["longest"], whole)
            if whole > limit:
                found["cut"] += 1
                found["first_cut"] = found["first_cut"] or f"line {row.source_line}, query {_short(row.query)!r}"
                if limit - len(query.ids) <= 1:
                    found["starved"] += 1
                    found["first_starved"] = (
                        found["first_starved"] or f"line {row.source_line}, query {_short(row.query)!r}"
                    )
    return found


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
