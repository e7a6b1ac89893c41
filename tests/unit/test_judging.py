"""A language model as a judge: what it is asked, how its replies are read, kept and scored."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import language_folder
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from panollava.config import ConfigError, WorkflowConfig
from panollava.dag.benchmarks import used_by
from panollava.dag.parents import of_judge
from panollava.errors import EvaluationError, PromptTooLong
from panollava.evaluation import run_judge
from panollava.evaluation.console import summary_line
from panollava.evaluation.judging.asking import requests_of
from panollava.evaluation.judging.prompt import JudgePrompt, Request
from panollava.evaluation.judging.reading import read_score
from panollava.evaluation.judging.scores import agreement
from panollava.evaluation.measures.measured import Measured
from panollava.evaluation.predictions import read_predictions
from panollava.evaluation.protocols import apply_protocol
from panollava.evaluation.rescoring import measured_again
from panollava.evaluation.run_judge import JudgeJob, KeptReplies, judge_files, judges_of
from panollava.evaluation.score_files import score_csv
from panollava.files import sha256_file

HEADER = ("image_path", "original_query", "prediction", "reference", "answer_type", "options", "options_shown")
ROWS = [
    ("a.png", "what is it?", "a red box", "a red box", "", "", ""),
    ("a.png", "what is it?", "a red box", "red", "", "", ""),
    ("a.png", "which?", "B", "dog", "choice", '["cat", "dog"]', '["dog", "cat"]'),
    ("b.png", "what is it?", "", "a ball", "", "", ""),
    ("b.png", "where is it?", "behind {answer}", "behind me", "", "", ""),
]


def write_csv(path: Path, rows: Sequence[Sequence[str]] = ROWS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([HEADER, *rows])
    return path


def settings_of(*models: Path, **changed: Any) -> JudgeJob:
    given: dict[str, Any] = {
        "prompt_file": None, "max_new_tokens": 2, "protocol": "grouped", "batch_size": 2, "precision": "32-true",
    }  # fmt: skip
    return JudgeJob(models={one.name: str(one) for one in models}, **{**given, **changed})


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_folder(tmp_path_factory.mktemp("judges"), "qwen3")


@pytest.fixture(scope="module")
def seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge that replies 7, whatever it is asked: its blocks add nothing, and one column of its head decides."""
    folder = language_folder(tmp_path_factory.mktemp("seven"), "llama")
    model, words = LlamaForCausalLM.from_pretrained(folder), PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 10.0
        model.lm_head.weight.zero_()
        model.lm_head.weight[words("7", add_special_tokens=False)["input_ids"][-1], 0] = 1.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    return folder


def replying(monkeypatch: pytest.MonkeyPatch, replies: Mapping[str, str]) -> list[str]:
    """Judges that reply by what stands in the prompt, without a model; what they were asked is listed."""
    asked: list[str] = []

    class Asker(run_judge._Asker):
        def __post_init__(self) -> None:
            pass

        def _replies(self, texts: Sequence[str]) -> list[str]:
            asked.extend(texts)
            return [next(reply for part, reply in replies.items() if part in text) for text in texts]

    monkeypatch.setattr(run_judge, "_Asker", Asker)
    return asked


# ---- replies --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("85", 85), ("0", 0), ("100.", 100), ("85/100", 85), ("85 %", 85), ("85 out of 100", 85), ("12.5", 12.5),
        ("Score: 85", 85), ("**Score:** 85.", 85), ("Score (0-100): 72", 72), ('{"score": 64, "why": "2 of 3"}', 64),
        ("[[40]]", 40), ("Two of 3 are right: [[40]]", 40), (r"\boxed{40}", 40), ("<answer>40</answer>", 40),
        ("<think>at first 50</think>90", 90), ("Both name 3 things.\n\n60", 60), ("60\nBoth name 3 things of 4.", 60),
        ("I would give it 75.", 75), ("The score is 90 out of 100 because 2 things match", 90), ("80 80", 80),
    ],
)  # fmt: skip
def test_a_score_is_read(reply: str, score: float) -> None:
    assert read_score(reply) == score


@pytest.mark.parametrize(
    "reply",
    ["", "good", "8/10", "Rating: 4/5", "101", "-5", "Score: 850", "70-80", "between 60 and 70", "3 of 4, I say 75.",
     "<think>maybe 50", "1. Places: 50\n2. Colours: 70", "B", "box2"],
)  # fmt: skip
def test_what_gives_no_score_gives_none(reply: str) -> None:
    assert read_score(reply) is None


# ---- prompts --------------------------------------------------------------------------------------
def test_a_prompt_file_is_filled_once(tmp_path: Path) -> None:
    path = tmp_path / "prompt.txt"
    path.write_text('Q {question} R {reference} A {answer} {"score": 1}\n', encoding="utf-8")
    prompt = JudgePrompt.read(path)
    filled = prompt.filled(Request("what {answer}?", "{question}", "x"))
    assert filled == 'Q what {answer}? R {question} A x {"score": 1}'
    assert prompt.sha256 != JudgePrompt.read().sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{question} {answer}", "lacks {reference}, where each row's own text goes"),
        (b"{question} {reference} \xff", "is not UTF-8"),
        (None, "No such file"),
    ],
)
def test_other_prompt_files_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompt.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"evaluation.judge.prompt_file: .*{message}"):
        JudgePrompt.read(path)


def test_requests_show_what_the_model_saw(tmp_path: Path) -> None:
    scored = apply_protocol(read_predictions(write_csv(tmp_path / "p.csv")))
    requests = requests_of(scored)
    assert requests[0] == Request("what is it?", "- a red box\n- red", "a red box")
    assert requests[1] == Request("which?\nA. dog\nB. cat", "A. dog", "B")
    turn = {**scored.rows[0], "context_turns": '[["user", "hello"], ["assistant", "hi"]]'}
    (later,) = requests_of(apply_protocol([turn]))
    assert later.question == "User: hello\nAssistant: hi\nUser: what is it?"
    with pytest.raises(EvaluationError, match="the row with the prediction 'B'"):
        requests_of(apply_protocol([{**scored.rows[1], "options": "cat"}]))


# ---- scores ---------------------------------------------------------------------------------------
def test_scores_controls_and_agreement(tmp_path: Path, judge: Path, seven: Path, monkeypatch: Any) -> None:
    answers, blind = write_csv(tmp_path / "p.csv"), [list(row) for row in ROWS]
    blind[0][2] = blind[1][2] = "a blue box"
    text_only = write_csv(tmp_path / "t.csv", [["" if n == 2 else v for n, v in enumerate(row)] for row in ROWS])
    replies = {"score:\na red box": "90", "score:\na blue box": "20", "score:\nB\n": "no idea", "behind": "Score: 60"}
    asked = replying(monkeypatch, replies)
    output = tmp_path / "measures/judge.json"
    controls = {"blind": write_csv(tmp_path / "b.csv", blind), "text_only": text_only}
    judge_files(settings_of(judge, seven), answers, controls, output, tmp_path / "cache", {"config": "c"})
    assert len(asked) == 2 * 4  # each answer once: blind ones that are equal are not asked again, empty ones never
    found = Measured.read(output)
    assert list(found.metrics) == ["judge", "judge_second", "judge_spearman", "judge_kappa"]
    assert found.metrics["judge"].value == pytest.approx((90 + 0 + 60) / 3)  # of those that hold a score
    assert found.blind["judge"] == pytest.approx((20 + 0 + 60) / 3) and found.text_only is not None
    assert found.text_only["judge"] == 0 and found.details["num_unjudged"] == 2
    assert found.metrics["judge_spearman"].value == pytest.approx(1)
    signature = found.metrics["judge"].signature
    assert signature is not None and signature.startswith("qwen3; weights ") and "at most 2 tokens" in signature
    assert found.samples[0]["judge_reply"] == "90" and found.samples[2]["judge_scored"] == 1

    document = json.loads(output.read_text(encoding="utf-8"))
    rows = read_predictions(answers)
    told = {"provenance": {"measures": {"judge.json": sha256_file(output)}}}
    again = measured_again(told, tmp_path / "metrics.json", rows, apply_protocol(rows))
    assert again["judge"].samples is not None and again["judge_kappa"].samples is None
    assert again["judge"].samples.total() == pytest.approx(document["metrics"]["judge"]["value"])


def test_agreement_is_that_of_the_libraries() -> None:
    one, other = [10.0, 50.0, None, 90.0, 70.0], [20.0, 40.0, 30.0, 95.0, None]
    found = agreement(one, other)
    assert found["judge_spearman"].value == pytest.approx(1)
    # quadratic weights: 1 - (squares seen) / (squares of all pairs)
    seen = (10**2 + 10**2 + 5**2) / 3
    by_chance = sum((a - b) ** 2 for a in (10, 50, 90) for b in (20, 40, 95)) / 9
    assert found["judge_kappa"].value == pytest.approx(1 - seen / by_chance)
    assert "the same score" in str(agreement([5.0, 5.0], [1.0, 2.0])["judge_kappa"].reason)
    assert "scored 1 answers" in str(agreement([5.0, None], [1.0, 2.0])["judge_spearman"].reason)


# ---- models ---------------------------------------------------------------------------------------
def test_a_miniature_judge_scores_a_csv(tmp_path: Path, seven: Path) -> None:
    answers = write_csv(tmp_path / "p.csv")
    judge = {"model": str(seven), "max_new_tokens": 1}
    _, document = score_csv(answers, judge=judge, replies=tmp_path / "cache")
    score = document["metrics"]["judge"]
    assert score["value"] == pytest.approx(3 * 7 / 4) and document["num_unjudged"] == 0  # the empty answer counts 0
    assert document["provenance"]["measures"].keys() == {"judge.json"}
    assert "judge" not in score_csv(answers)[1]["metrics"]


def test_replies_without_a_number_are_counted(tmp_path: Path, judge: Path) -> None:
    rows = [row for row in ROWS if row[2]]
    _, document = score_csv(
        write_csv(tmp_path / "p.csv", rows), judge={"model": str(judge), "max_new_tokens": 3}, replies=tmp_path / "c"
    )
    score = document["metrics"]["judge"]
    assert score["value"] is None and score["reason"] == "none of 3 replies holds a score from 0 to 100"
    assert document["num_unjudged"] == 3 and "3 judgements without a score" in summary_line(document)


def test_a_batch_that_fails_loses_one_answer(tmp_path: Path, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_judge._Asker._replies

    def refusing(self: Any, texts: Sequence[str]) -> list[str]:
        if any("behind" in text for text in texts):
            raise PromptTooLong("too long")
        return plain(self, texts)

    monkeypatch.setattr(run_judge._Asker, "_replies", refusing)
    output = tmp_path / "judge.json"
    settings = settings_of(seven, max_new_tokens=1, batch_size=8)
    judge_files(settings, write_csv(tmp_path / "p.csv"), {}, output, tmp_path / "cache", {})
    found = Measured.read(output)
    assert found.details["errors"] == {"judge": {"PromptTooLong: too long": 1}} and found.details["num_unjudged"] == 1
    assert found.metrics["judge"].value == pytest.approx((7 + 7 + 0) / 3)
    monkeypatch.setattr(run_judge._Asker, "_replies", plain)  # what could not be asked is asked again
    judge_files(settings, tmp_path / "p.csv", {}, output, tmp_path / "cache", {})
    assert Measured.read(output).details["num_unjudged"] == 0


# ---- kept replies ---------------------------------------------------------------------------------
def test_a_killed_judge_goes_on(tmp_path: Path, seven: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, cache = write_csv(tmp_path / "p.csv"), tmp_path / "cache"
    settings = settings_of(seven, batch_size=1, max_new_tokens=1)
    plain, batches = run_judge._Asker._replies, []

    def killed(self: Any, texts: Sequence[str]) -> list[str]:
        batches.append(texts)
        if len(batches) == 3:
            raise KeyboardInterrupt
        return plain(self, texts)

    monkeypatch.setattr(run_judge._Asker, "_replies", killed)
    with pytest.raises(KeyboardInterrupt):
        judge_files(settings, answers, {}, tmp_path / "judge.json", cache, {})
    (file,) = cache.glob("*/replies.jsonl")
    with file.open("a", encoding="utf-8") as stream:
        stream.write('["half a li')
    judge_files(settings, answers, {}, tmp_path / "judge.json", cache, {})
    assert len(batches) == 4 and len(KeptReplies(file).texts) == 3  # the third is asked again, the first two are not
    assert all(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())

    monkeypatch.setattr(run_judge, "_Asker", None)  # all is kept: no model is loaded
    judge_files(settings, answers, {}, tmp_path / "again.json", cache, {})
    assert Measured.read(tmp_path / "again.json") == Measured.read(tmp_path / "judge.json")


def test_another_prompt_or_judge_is_asked_anew(tmp_path: Path, judge: Path, seven: Path, monkeypatch: Any) -> None:
    asked = replying(monkeypatch, {"": "50"})
    answers, prompt = write_csv(tmp_path / "p.csv"), tmp_path / "prompt.txt"
    prompt.write_text("{question} {reference} {answer}", encoding="utf-8")
    for number, settings in enumerate(
        (settings_of(judge), settings_of(seven), settings_of(judge, prompt_file=prompt), settings_of(judge))
    ):
        judge_files(settings, answers, {}, tmp_path / "judge.json", tmp_path / "cache", {})
        assert len(asked) == 3 * min(number + 1, 3)


# ---- settings -------------------------------------------------------------------------------------
def configured(root: Path, **judge: Any) -> WorkflowConfig:
    document = {"experiment": {"name": "J"}, "data": {"csv_train": "synthetic", "csv_val": "synthetic",
                "csv_test": "synthetic"}, "models": {"vision_name": "miniature/siglip",
                "language_model_name": "miniature/qwen3"}, "evaluation": {"judge": judge}}  # fmt: skip
    return WorkflowConfig.from_dict(document, root)


def test_a_judge_is_planned_with_its_weights_and_prompt(tmp_path: Path, seven: Path) -> None:
    (tmp_path / "prompt.txt").write_text("{question} {reference} {answer}", encoding="utf-8")
    cfg = configured(tmp_path, model=str(seven), prompt_file="prompt.txt")
    inputs, upstream = of_judge(cfg, "judge", None)
    assert inputs["prompt"]["path"] == "prompt.txt" and len(inputs["judge.model"]) == 64
    assert ("predict", None) in upstream and ("predict_blind", None) in upstream
    assert "judge" in cfg.slice_of("metrics")["upstream"]
    before = cfg.digest("metrics")
    (tmp_path / "prompt.txt").write_text("{question} {reference} {answer}!", encoding="utf-8")
    assert configured(tmp_path, model=str(seven), prompt_file="prompt.txt").digest("metrics") != before
    assert "judge" not in configured(tmp_path).slice_of("metrics")["upstream"]
    built = configured(tmp_path, model="miniature/qwen3")
    assert "miniature_language" in built.slice_of("judge")["upstream"]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({"model": "no such/folder/here"}, "evaluation.judge.model must be a hub id"),
        ({"model": "a/b", "prompt_file": "none.txt"}, "evaluation.judge.prompt_file: none.txt does not exist"),
        ({"second_model": "a/b"}, "name the first one under judge.model"),
        ({"model": "a/b", "second_model": "a/b"}, "the first judge itself"),
        ({"model": "a/b", "max_new_tokens": 0}, "evaluation.judge.max_new_tokens"),
        ({"modell": "a/b"}, "modell"),
    ],
)
def test_wrong_judges_are_refused_before_anything_runs(tmp_path: Path, judge: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(tmp_path, **judge).digest("judge")


def test_no_judge_is_no_settings() -> None:
    judge = {"model": None, "second_model": None, "prompt_file": None, "max_new_tokens": 32}
    with pytest.raises(ConfigError, match="names no model"):
        judges_of({"judge": judge, "protocol": "grouped"}, {"eval_batch_size": 1, "precision": "auto"})


def test_without_a_judge_its_prompt_is_not_read(tmp_path: Path) -> None:
    cfg = configured(tmp_path, prompt_file="gone.txt")
    assert used_by([cfg]) == []  # status asks for every node
