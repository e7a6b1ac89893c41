"""Answers that are cut, queries that leave nothing of them, sequences without positions: counted and told before."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from tiny_families import family_folder
from tiny_models import CHATML, tiny_config, tokenizer, vision_folder

from panollava.config import WorkflowConfig
from panollava.dag.text_lengths import length_warnings
from panollava.data.details import Details
from panollava.data.lengths import TextLengths, TextLimits, check_lengths
from panollava.data.samples import Row
from panollava.errors import ConfigError, PromptTooLong
from panollava.models.prompt import IGNORED, ChatPrompt
from panollava.models.vlm import PanoramaVLM
from panollava.training.job import check_prompt

KEY = "training.stage_configs.finetune.max_text_length"
ROWS = [
    Row("a.jpg", "what?", "a box"),
    Row("a.jpg", "where is the blue sphere behind you? " * 4, "on your left"),
    Row("b.jpg", "what is in front of you?", "a red box, on your left, " * 9),
    Row("b.jpg", " is it red?  ", "so"),
    Row("b.jpg", "what does <|im_end|> say?", "it says <|im_end|> and no more of it"),
]


@pytest.fixture(scope="module")
def prompt() -> ChatPrompt:
    return ChatPrompt(tokenizer(CHATML), 5, "You look around.")


def supervised(prompt: ChatPrompt, row: Row, limit: int) -> list[int]:
    labels = prompt.training(row.query, row.annotation, limit).labels
    return [token for token in labels or [] if token != IGNORED]


def limits(limit: int, positions: int | None = None) -> TextLimits:
    return TextLimits(KEY, limit, positions, "tiny/qwen3")


def test_the_value_that_keeps_all_answers_whole(prompt: ChatPrompt) -> None:
    cut, starved = check_lengths(prompt, ROWS, "training rows", limits(20))
    whole = int(cut.split(f"{KEY}: ")[1].split()[0])
    assert cut.startswith("3 of 5 answers are cut at max_text_length 20 and lose the token that ends them (training ro")
    assert cut.endswith(f"keeps all of them whole. The first: a.jpg, query {ROWS[1].query[:60] + '…'!r}")
    assert starved.startswith("2 of 5 queries fill max_text_length 20 and leave one supervised token of their answer")
    assert check_lengths(prompt, ROWS, "training rows", limits(whole)) == []
    assert all(supervised(prompt, row, whole)[-1] == prompt.end_ids[0] for row in ROWS)
    assert len(check_lengths(prompt, ROWS, "training rows", limits(whole - 1))) == 1
    assert len(supervised(prompt, ROWS[1], 20)) == 1


@pytest.mark.parametrize("limit", [1, 7, 20, 60, 400])
def test_counts_are_those_of_the_sequences(prompt: ChatPrompt, limit: int) -> None:
    built = [prompt.training(row.query, row.annotation, limit) for row in ROWS]
    assert TextLengths.of(prompt, ROWS).sequences(limit).tolist() == [len(one.input_ids) for one in built]
    found = check_lengths(prompt, ROWS, "rows", limits(limit))
    counts = sum(one.truncated for one in built)
    starved = sum(len(supervised(prompt, row, limit)) == 1 for row in ROWS)
    assert [int(line.split()[0]) for line in found] == [count for count in (counts, starved) if count]


def test_a_sequence_that_leaves_the_positions_is_refused_as_in_prediction(prompt: ChatPrompt) -> None:
    longest = max(len(prompt.training(row.query, row.annotation, 20).input_ids) for row in ROWS)
    assert check_lengths(prompt, ROWS, "validation rows", limits(20, positions=longest))
    told = (
        rf"validation rows: the sequence of a.jpg, query 'where is .*… has {longest} tokens, more than the "
        rf"{longest - 1} positions of tiny/qwen3 \(max_position_embeddings\)\. A query is never cut: shorten it"
    ).replace("… has", "…' has")
    with pytest.raises(ConfigError, match=told):
        check_lengths(prompt, ROWS, "validation rows", limits(20, positions=longest - 1))
    with pytest.raises(ConfigError, match="; so have 4 other rows"):
        check_lengths(prompt, ROWS, "validation rows", limits(20, positions=10))


def test_earlier_turns_count_where_sequences_leave_the_positions(prompt: ChatPrompt) -> None:
    talk = Details(context_turns=(("user", "what is to my left? " * 8), ("assistant", "a wall " * 9)))
    rows = [*ROWS, Row("c.jpg", "and to my right?", "a door", talk)]
    whole = len(prompt.training(rows[-1].query, "a door", 60, talk.context_turns).input_ids)
    assert whole > max(len(prompt.training(row.query, row.annotation, 60).input_ids) for row in ROWS)
    with pytest.raises(ConfigError, match=rf"c\.jpg, query 'and to my right\?' has {whole} tokens, more than the"):
        check_lengths(prompt, rows, "training rows", limits(60, positions=whole - 1))
    check_lengths(prompt, rows, "training rows", limits(60, positions=whole))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lengths")
    vision_folder(folder, "siglip")
    family_folder(folder, "qwen3", max_position_embeddings=260)
    return folder


def test_the_model_itself_refuses(root: Path) -> None:
    model = PanoramaVLM(tiny_config(root, system_message="")).eval()
    assert model.prompt is not None

    def loss(query: str, **given: Any) -> float:
        sequences = [model.prompt.training(query, "so", 500) for _ in range(2)]  # type: ignore[union-attr]
        batch = model.prompt.collate(sequences, side="right")  # type: ignore[union-attr]
        return float(
            model(torch.zeros(given.pop("pictures", 2), 9, 3, 16, 16), **batch, **given, stage="finetune")["loss"]
        )

    assert loss("where?") > 0
    for given in ({}, {"pictures": 1, "image_index": torch.tensor([0, 0])}):
        with pytest.raises(PromptTooLong, match="tokens leaves the language model's 260 positions: shorten the query"):
            loss("where is it? " * 30, **given)


def test_the_vision_stage_tells_it_before_anything_trains(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "train.csv").write_text("image_path,query,annotation\na.jpg,what?,a red box on your left\n")
    prompt = {
        "language_model_name": "tiny/qwen3", "language_path": str(root / "qwen3"), "system_message": "",
        "stitching_mode": "concat", "text": {KEY: 8}, "csvs": {KEY: ["train.csv", "not/prepared/yet.csv"]},
    }  # fmt: skip
    job: Any = SimpleNamespace(stage="vision", root=root, untracked={"prompt": prompt})
    with caplog.at_level(logging.WARNING, "panollava"):
        check_prompt(job, tiny_config(root))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("1 of 1 answers are cut at max_text_length 8") and "(train.csv): " in line
    (root / "train.csv").write_text(f"image_path,query,annotation\na.jpg,{'what? ' * 90},a box\n")
    with pytest.raises(
        ConfigError, match=r"train.csv: the sequence of a.jpg.*more than the 260 positions of tiny/qwen3"
    ):
        check_prompt(job, tiny_config(root))


def test_a_plan_counts_the_columns_that_are_named_now(root: Path) -> None:
    """Another column of the same file is another text: what was counted of the one is not remembered of the other."""
    (root / "two.csv").write_text("image_path,query,annotation,longer\na.jpg,what?,a box,a red box on your left\n")

    def told(name: str, **data: Any) -> list[str]:
        document = {
            "experiment": {"name": name}, "data": {"csv_train": "two.csv", "csv_val": "two.csv", **data},
            "models": {"language_model_name": "qwen3"},
            "training": {"stage_configs": {"resampler": {"max_text_length": 8}}},
        }  # fmt: skip
        (root / f"{name}.yaml").write_text(yaml.safe_dump(document))
        return length_warnings(WorkflowConfig.load(root / f"{name}.yaml", root), "resampler")

    assert told("short") == [] and told("long", columns={"annotation": "longer"}) != []


def test_a_plan_counts_the_sentence_about_the_kind_of_answer(root: Path) -> None:
    """What preparation adds to a question with a right answer is counted before it adds it."""
    (root / "kind.csv").write_text("image_path,query,annotation,answer_type\na.jpg,is it red?,yes,yes_no\n")

    def told(name: str, instruct: bool) -> list[str]:
        document = {
            "experiment": {"name": name}, "data": {"csv_train": "kind.csv", "csv_val": "kind.csv"},
            "models": {"language_model_name": "qwen3"}, "evaluation": {"answer_instruction": instruct},
            "training": {"stage_configs": {"resampler": {"max_text_length": 16}}},
        }  # fmt: skip
        (root / f"{name}.yaml").write_text(yaml.safe_dump(document))
        return length_warnings(WorkflowConfig.load(root / f"{name}.yaml", root), "resampler")

    assert told("without", False) == [] and told("with", True) != []


def test_a_plan_tells_it_where_the_tokenizer_is_a_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ["image_path,query,annotation", "a.jpg,what?,a red box on your left", f"a.jpg,{'what? ' * 20},a box", ""]
    (root / "planned.csv").write_text("\n".join(rows))
    document = {
        "experiment": {"name": "E"}, "data": {"csv_train": "planned.csv", "csv_val": "planned.csv"},
        "models": {"language_model_name": "qwen3"},
        "training": {"stage_configs": {"resampler": {"max_text_length": 8}}},
    }  # fmt: skip
    (root / "planned.yaml").write_text(yaml.safe_dump(document))
    experiment = WorkflowConfig.load(root / "planned.yaml", root)
    assert length_warnings(experiment, "vision") == [] == length_warnings(experiment, "finetune")
    cut, starved, *validation = length_warnings(experiment, "resampler")
    assert cut.startswith(
        "2 of 2 answers of planned.csv are cut at max_text_length 8 and lose the token that ends them"
    )
    assert cut.endswith("The first: line 2, query 'what?'")
    assert starved.startswith("1 of 2 queries of planned.csv fill max_text_length 8 (training.stage_configs.resampler")
    assert validation == [cut, starved]
    monkeypatch.setattr("panollava.dag.text_lengths._count", lambda *_: pytest.fail("it is remembered"))
    assert length_warnings(WorkflowConfig.load(root / "planned.yaml", root), "resampler") == [
        cut,
        starved,
        cut,
        starved,
    ]
