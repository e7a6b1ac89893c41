"""`eval --verify`: what was changed since is found, what cannot be looked at is not called right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from odd_documents import changed

from panollava.cli.main import main
from panollava.config.schema import EvaluationSettings
from panollava.errors import EvaluationError
from panollava.evaluation.measures.measured import Measured
from panollava.evaluation.metrics import MetricResult
from panollava.evaluation.predictions import Prediction, read_predictions, write_predictions
from panollava.evaluation.score_files import score_csv, score_files
from panollava.evaluation.verify import verify
from panollava.files import sha256_file

EVALUATION = {
    **EvaluationSettings().model_dump(mode="json"), "metrics": ["bleu4", "rouge_l"], "bootstrap_samples": 50,
    "custom_metrics": ["panollava.evaluation.metrics.synthetic:exact_match"],
}  # fmt: skip


def predictions(answer: str) -> list[Prediction]:
    return [
        Prediction(n, f"p{n}.png", "what is it?", f"{answer} number {n}", (f"a box number {n}", "a thing"))
        for n in range(6)
    ]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """A finished evaluation with all that metrics.json tells digests of."""
    stage, results = tmp_path / "runs/E/finetune/v", tmp_path / "results/E"
    stage.mkdir(parents=True)
    (stage / "x.ckpt").write_bytes(b"weights")
    (stage / "checkpoint_metadata.json").write_text('{"stage": "finetune", "checkpoint_info": {"config_digest": "c0"}}')
    (tmp_path / "questions.csv").write_text("image_path,query,annotation\n")
    write_predictions(results / "predictions.csv", predictions("a box"))
    write_predictions(results / "predictions_blind.csv", predictions("a red cone"))
    provenance = {
        "csv": {"path": "questions.csv", "sha256": sha256_file(tmp_path / "questions.csv")},
        "checkpoint": {
            "folder": "runs/E/finetune/v", "file": "x.ckpt", "sha256": sha256_file(stage / "x.ckpt"),
            "config_digest": "c0",
        },
    }  # fmt: skip
    score_files(
        {"predict": results / "predictions.csv", "predict_blind": results / "predictions_blind.csv"},
        EVALUATION,
        results / "metrics.json",
        provenance,
    )
    return results / "metrics.json"


def states(path: Path) -> dict[str, str]:
    return {check.what: check.state for check in verify(path)}


def test_what_was_just_computed_holds(scored: Path) -> None:
    found = states(scored)
    assert set(found.values()) == {"holds"}, found
    assert {
        "predictions.csv", "predictions_blind.csv", "questions.csv", "runs/E/finetune/v/x.ckpt",
        "configuration of the checkpoint", "num_samples", "BLEU-4", "BLEU-4, blind", "ROUGE-L", "exact_match",
    } <= set(found)  # fmt: skip


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _set(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        (_set("metrics", "bleu4", "value", value=0.9), {"BLEU-4"}),
        (_set("metrics", "rouge_l", "interval", value=[0.1, 0.2]), {"ROUGE-L"}),
        (_set("controls", "blind", "exact_match", value=1.0), {"exact_match, blind"}),
        (_set("num_samples", value=7), {"num_samples"}),
        (_set("provenance", "checkpoint", "sha256", value="0" * 64), {"runs/E/finetune/v/x.ckpt"}),
        (_set("provenance", "checkpoint", "config_digest", value="c1"), {"configuration of the checkpoint"}),
        (_set("provenance", "csv", "sha256", value="0" * 64), {"questions.csv"}),
        (_set("provenance", "predictions", value="0" * 64), {"predictions.csv"}),
    ],
)
def test_what_metrics_json_tells_wrongly_is_found(scored: Path, change: Any, differing: set[str]) -> None:
    edit(scored, change)
    assert {what for what, state in states(scored).items() if state == "differs"} == differing


def test_any_value_in_any_place_is_told_or_checked(scored: Path) -> None:
    document = json.loads(scored.read_text())
    document["metrics"] = {"exact_match": document["metrics"]["exact_match"]}
    document["intervals"]["draws"] = 2
    told = 0
    for what, other in changed(document):
        scored.write_text(json.dumps(other))
        try:
            verify(scored)
        except EvaluationError as error:
            assert "cannot be read as a metrics.json" in str(error), what
            told += 1
        except Exception as error:
            raise AssertionError(what) from error
    assert told > 100


def test_a_stage_folder_whose_metadata_are_damaged_differs(scored: Path) -> None:
    (scored.parents[2] / "runs/E/finetune/v/checkpoint_metadata.json").write_text("{")
    assert states(scored)["configuration of the checkpoint"] == "differs"


def test_other_predictions_are_found_by_digest_and_by_score(scored: Path) -> None:
    write_predictions(scored.with_name("predictions.csv"), predictions("a cone"))
    differing = {what for what, state in states(scored).items() if state == "differs"}
    assert {"predictions.csv", "BLEU-4", "ROUGE-L", "exact_match"} <= differing
    assert "questions.csv" not in differing and "predictions_blind.csv" not in differing


def test_predictions_that_have_gone_are_no_success(scored: Path) -> None:
    scored.with_name("predictions.csv").unlink()
    assert states(scored)["predictions.csv"] == "differs"


def test_what_is_not_there_is_not_checked(scored: Path) -> None:
    (scored.parents[2] / "questions.csv").unlink()
    (scored.parents[2] / "runs/E/finetune/v/x.ckpt").unlink()
    edit(scored, lambda d: d["metrics"].update(perplexity={**d["metrics"]["bleu4"], "library": "panollava"}))
    edit(scored, lambda d: d["metrics"].update(spice={**d["metrics"]["bleu4"], "value": None, "reason": "no Java"}))
    found = states(scored)
    assert {what for what, state in found.items() if state == "not checked"} == {
        "questions.csv", "runs/E/finetune/v/x.ckpt", "perplexity", "SPICE",
    }  # fmt: skip
    assert "differs" not in found.values()


def test_what_the_measures_left_is_checked_too(scored: Path) -> None:
    result = MetricResult(3.5, "1 or more, lower is better", "panollava", "0.1.0", "signature")
    measured = Measured({"perplexity": result}, {"perplexity": 9.0})
    file = scored.parent / "measures/perplexity.json"
    measured.write(file, {})
    edit(scored, lambda d: d["metrics"].update(perplexity=result.to_json()))
    edit(scored, _set("provenance", "measures", value={"perplexity.json": sha256_file(file)}))
    found = states(scored)
    assert found["perplexity.json"] == found["perplexity"] == "holds" and "differs" not in found.values()
    edit(scored, _set("metrics", "perplexity", "value", value=3.4))
    assert states(scored)["perplexity"] == "differs"
    file.write_text(file.read_text().replace("3.5", "3.4"))
    assert states(scored)["perplexity.json"] == "differs"


def test_answers_cannot_be_made_again_from_what_does_not_say_how(scored: Path) -> None:
    (check,) = (check for check in verify(scored, predict_again=True) if "again" in check.what)
    assert check.state == "not checked" and "does not tell how" in check.detail


def test_turns_of_a_conversation_that_share_an_identifier_are_told_apart(
    scored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [Prediction("c", "p.png", f"turn {n}", f"answer {n}", ("a",)) for n in range(2)]
    write_predictions(scored.with_name("predictions.csv"), turns)
    again = read_predictions(scored.with_name("predictions.csv"))
    monkeypatch.setattr("panollava.evaluation.verify._predict_again", lambda *_: again)

    def check() -> Any:
        return next(one for one in verify(scored, predict_again=True) if "again" in one.what)

    assert (check().state, check().detail) == ("holds", "2 samples")
    again[0]["prediction"] = "another"
    assert check().state == "differs"
    assert "1 of 2. sample c: recorded 'answer 0', predicted now 'another'" in check().detail


def test_scores_of_somebodys_csv_are_verified_by_that_csv(tmp_path: Path) -> None:
    csv = tmp_path / "theirs.csv"
    csv.write_text("prediction,reference\na box,a box\na cone,a thing\n")
    path, _ = score_csv(csv)
    found = states(path)
    assert found["predictions.csv"] == found["BLEU-4"] == "holds" and "differs" not in found.values()
    csv.write_text("prediction,reference\na box,a box\na cone,a cone\n")
    assert states(path)["predictions.csv"] == "differs"


def test_the_command(scored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["panollava", "eval", "--verify", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    code, told, _ = call(str(scored))
    assert code == 0 and "✓ BLEU-4" in told and told.splitlines()[-1].endswith(" hold")
    edit(scored, _set("metrics", "bleu4", "value", value=0.9))
    code, told, _ = call(str(scored))
    assert code == 1 and "✗ BLEU-4: recorded 0.9, recomputed " in told and ", 1 differs" in told
    assert call(str(scored), "--protocol", "grouped")[0] == 2
    assert call(str(scored), "--max-samples", "3")[0] == 2
    scored.write_text("[]")
    code, _, error = call(str(scored))
    assert code == 1 and "cannot be read as a metrics.json" in error
    with pytest.raises(EvaluationError, match=r"cannot be read as a metrics\.json"):
        verify(scored.with_name("absent.json"))


def test_a_protocol_that_a_csv_cannot_have_leaves_its_older_scores(tmp_path: Path) -> None:
    csv = tmp_path / "answers.csv"
    csv.write_text("prediction,reference\na red box,a box\n", encoding="utf-8")
    path, _ = score_csv(csv)
    with pytest.raises(EvaluationError, match="grouped"):
        score_csv(csv, protocol="grouped")
    assert path.is_file()
