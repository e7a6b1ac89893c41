"""Predicting survives a kill and a bad row: finished answers are kept, failures are named and cost one sample."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from panollava.data.samples import Sample
from panollava.errors import EvaluationError
from panollava.evaluation.of_folder import EvalRequest
from panollava.evaluation.predict import FinishedAnswers, PredictionSettings, kept_answers, predict, shuffled_pictures
from panollava.views.panorama import PanoramaError

CPU = torch.device("cpu")
SETTINGS = PredictionSettings(8, False, 1.0, 1.0, batch_size=3, seed=1)
SAMPLES = [Sample(n, f"p{n // 2}.png", f"query {n:02d}", ("reference",)) for n in range(12)]
KNOWN = [f"picture {n // 2} query {n:02d}" for n in range(12)]


class Echo:
    """A model that answers with its picture's number and its query, and does to some queries as it is told."""

    def __init__(self, **trouble: BaseException) -> None:
        self.trouble, self.asked = trouble, 0

    def to(self, device: torch.device) -> Echo:
        return self

    def eval(self) -> Echo:
        return self

    def autocast(self) -> nullcontext[None]:
        return nullcontext()

    def encode_vision(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)[:, :1]

    def generate(self, vision_features: torch.Tensor, queries: list[str], **options: Any) -> dict[str, list[str]]:
        for query in queries:
            if error := self.trouble.get(query.replace(" ", "_")):
                raise error
        self.asked += len(queries)
        return {"text": [f"picture {int(f)} {q} " for f, q in zip(vision_features, queries, strict=True)]}


class Pixels:
    def pixels(self, views: torch.Tensor) -> torch.Tensor:
        return views.float()


class Pictures:
    """Each holds its number; those in `gone` cannot be opened."""

    def __init__(self, *gone: str) -> None:
        self.gone = gone

    def __getitem__(self, path: str) -> np.ndarray:
        if path in self.gone:
            raise PanoramaError(path, "image missing", "no such file")
        return np.full((1, 2, 2, 3), int(path[1:-4]), np.uint8)


def run(model: Echo, pictures: Pictures | None = None, **options: Any) -> list[Any]:
    return predict(model, Pixels(), SAMPLES, pictures or Pictures(), SETTINGS, device=CPU, **options)  # type: ignore[arg-type]


def test_every_sample_is_answered_in_its_order() -> None:
    found = run(Echo())
    assert [one.text for one in found] == KNOWN and not any(one.error for one in found)
    stand_ins = shuffled_pictures(SAMPLES, 1)
    assert stand_ins is not None
    for one in run(Echo(), stand_ins=stand_ins):
        assert one.text.startswith(f"picture {stand_ins[one.image_path][1:-4]} ")


def test_a_picture_that_has_gone_costs_its_samples_only(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("panollava").propagate = True
    found = run(Echo(), Pictures("p2.png"))
    assert [one.text for one in found] == [*KNOWN[:4], "", "", *KNOWN[6:]]
    assert [one.error for one in found if one.error] == ["PanoramaError: p2.png: image missing: no such file"] * 2
    assert "2 of 12 samples have no answer" in caplog.text and "sample 5, p2.png, 'query 05'" in caplog.text


def test_a_stand_in_that_has_gone_is_the_blind_answers_failure() -> None:
    stand_ins = {f"p{n}.png": f"p{(n + 1) % 6}.png" for n in range(6)}
    found = run(Echo(), Pictures("p2.png"), stand_ins=stand_ins)
    assert [one.image_path for one in found if one.error] == ["p1.png", "p1.png"]


@pytest.mark.parametrize("error", [RuntimeError("shape"), ValueError("too long"), IndexError("position")])
def test_one_sample_that_cannot_be_answered_costs_itself_only(error: Exception) -> None:
    found = run(Echo(query_07=error))
    assert [one.text for one in found] == [*KNOWN[:7], "", *KNOWN[8:]]
    assert found[7].error == f"{type(error).__name__}: {error}"


def test_exhausted_memory_is_nobodys_answer() -> None:
    with pytest.raises(EvaluationError, match=r"lower training\.eval_batch_size \(now 3\)"):
        run(Echo(query_07=torch.OutOfMemoryError("CUDA out of memory")))


def test_where_every_sample_fails_the_run_does_and_the_next_tries_again(tmp_path: Path) -> None:
    broken = Echo(**{f"query_{n:02d}": RuntimeError("weights") for n in range(12)})
    with pytest.raises(
        EvaluationError, match=r"none of 12 samples could be answered\. The first: RuntimeError: weights"
    ):
        run(broken, finished=FinishedAnswers(tmp_path / "a.jsonl"))
    assert [one.text for one in run(Echo(), finished=FinishedAnswers(tmp_path / "a.jsonl"))] == KNOWN


def test_a_killed_prediction_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), kept_answers(tmp_path, "one") as kept:
        run(Echo(query_07=KeyboardInterrupt()), finished=kept("answers"))
    (file,) = tmp_path.glob("*.jsonl")
    with file.open("ab") as stream:
        stream.write(b'[9, "picture 4 qu')  # what a kill cuts short
    again = Echo()
    with kept_answers(tmp_path, "one") as kept:
        assert [one.text for one in run(again, finished=kept("answers"))] == KNOWN
        assert again.asked == 6 and file.is_file()
    assert not list(tmp_path.glob("*.jsonl"))


def test_answers_of_another_configuration_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), kept_answers(tmp_path, "one") as kept:
        run(Echo(query_07=KeyboardInterrupt()), finished=kept("answers"))
    again = Echo()
    with kept_answers(tmp_path, "two") as kept:
        run(again, finished=kept("answers"))
    assert again.asked == 12 and not list(tmp_path.glob("*.jsonl"))


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\n", b"nonsense\n", b'[1, "a"]\n', b"\xff\xfe\n"])
def test_damaged_answers_are_asked_for_again(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'[0, "kept", ""]\n' + damage + b'[1, "behind the damage", ""]\n')
    finished = FinishedAnswers(tmp_path / "a.jsonl")
    assert finished.texts == {0: ("kept", "")}
    assert (tmp_path / "a.jsonl").read_text() == '[0, "kept", ""]\n'


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"max_samples": -1}, ValueError, "max_samples must be >= 1, got -1"),
        ({"max_samples": 0}, ValueError, "max_samples must be >= 1"),
        ({"max_samples": 2.5}, TypeError, "max_samples must be a whole number, got 2.5"),
        ({"max_samples": True}, TypeError, "max_samples must be a whole number"),
        ({"batch_size": 0}, ValueError, "batch_size must be >= 1"),
        ({"epoch": -1}, ValueError, "epoch must be >= 0"),
        ({"epoch": "1"}, TypeError, "epoch must be a whole number, got '1'"),
        ({"protocol": "x"}, EvaluationError, "protocol must be one of grouped, per-annotation, original, got 'x'"),
    ],
)
def test_a_script_that_asks_wrongly_is_told_so(asked: dict[str, Any], error: type[Exception], said: str) -> None:
    assert EvalRequest(Path("runs/E"), epoch=0, max_samples=1, protocol="original").epoch == 0
    with pytest.raises(error, match=said):
        EvalRequest(Path("runs/E"), **asked)
