"""`panollava eval` on a trained folder, in all its forms; what broken folders are told; kills and bad pictures."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Project

from panollava.cli.main import main
from panollava.errors import TrainingError
from panollava.evaluation import of_folder
from panollava.evaluation import predict as predicting
from panollava.locks import FolderLock

pytestmark = pytest.mark.workflow

FOLDER = "runs/SMALL/finetune/anyres-e2p_mlp"
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`panollava eval …` in this process: exit code and everything that was said."""

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["panollava", "eval", *words])
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


@pytest.fixture
def quick(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The finished experiment, whose folder remembers metrics that need neither Java nor WordNet."""
    monkeypatch.chdir(project.root)
    path = project.root / FOLDER / "checkpoint_metadata.json"
    document = json.loads(path.read_text())
    document["remembered"]["evaluation"] |= {"metrics": ["rouge_l"], "custom_metrics": []}
    path.write_text(json.dumps(document))
    return project


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_every_form(quick: Project, evaluate: Call) -> None:
    root = quick.root
    code, said = evaluate("--checkpoint-dir", FOLDER, "--max-samples", "20", "--batch-size", "8", "--log-samples",
                          "--log-max-samples", "2", "--log-interval", "1")  # fmt: skip
    assert code == 0, said
    for fact in (FOLDER, "best.ckpt", "SMALL", "finetune", "miniature/siglip", "miniature/qwen3", "mlp", "anyres_e2p",
                 "lora_weights", "the folder's test_csv", "batch 3 of 3", "expected ["):  # fmt: skip
        assert fact in said, fact
    assert said.count("expected [") == 2
    results = root / "results/SMALL/eval/test"
    document = read(results / "metrics.json")
    assert document["num_samples"] == 20 and document["controls"]["blind"]["rouge_l"] is not None
    told = document["provenance"]
    assert told["csv"]["max_samples"] == 20 and told["generation"]["batch_size"] == 8
    assert (told["seed"], told["device"], told["dtype"]) == (42, told["device"], "float32") and told["predicted_with"]
    assert evaluate("--verify", str(results / "metrics.json"), "--predict-again")[0] == 0

    (root / "mine.csv").write_text("".join((results / "prepared.csv").read_text().splitlines(keepends=True)[:7]))
    code, said = evaluate("--checkpoint-dir", "runs/SMALL", "--csv-input", "mine.csv", "--epoch", "0", "--protocol",
                          "per-annotation", "--output-dir", "out")  # fmt: skip
    assert code == 0 and "(epoch 0)" in said and "mine.csv (--csv-input)" in said
    assert read(root / "out/metrics.json")["protocol"] == "per-annotation"
    assert "one picture only: nothing to shuffle" in said
    assert {path.name for path in (root / "out").iterdir() if path.name[0] != "."} == {
        "metrics.json", "predictions.csv", "prepared.csv", "rejected.csv",
    }  # fmt: skip

    quick.configure({"evaluation": {"metrics": ["bleu4"], "blind_control": False}, "generation.max_new_tokens": 3})
    code, said = evaluate("--config", "SMALL", "--max-samples", "2")
    assert code == 0 and "differs from the folder" not in said
    document = read(results / "metrics.json")
    assert list(document["metrics"]) == ["bleu4"] and document["controls"]["blind"] is None
    assert not (results / "predictions_blind.csv").exists()
    assert document["provenance"]["generation"]["max_new_tokens"] == 3

    quick.configure({"evaluation.metrics": ["bleu4"], "lora.rank": 3, "image_processing.fov_deg": 60})
    code, said = evaluate("--config", "config/experiments/SMALL.yaml", "--checkpoint-dir", FOLDER, "--max-samples", "2")
    assert code == 0 and said.count("differs from the folder, which counts") == 1
    assert "image_processing.fov_deg: configuration 60.0, folder 90" in said
    assert "lora.rank: configuration 3, folder 2" in said

    code, said = evaluate("--csv-input", str(results / "predictions.csv"), "--output-dir", "scores")
    assert code == 0 and read(root / "scores/metrics.json")["num_samples"] == 2


def test_the_dags_own_numbers_hold(project: Project, evaluate: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    told = read(project.root / "results/SMALL/metrics.json")["provenance"]
    assert (
        (told["seed"], told["dtype"]) == (42, "float32") and told["csv"]["sha256"] and told["predicted_with"]["torch"]
    )
    code, said = evaluate("--verify", "results/SMALL/metrics.json", "--predict-again", "--max-samples", "16")
    assert code == 0 and "✗" not in said, said
    for what in ("predictions.csv", "predictions_blind.csv", "runs/SMALL/finetune", "BLEU-4, blind", "16 samples"):
        assert any(line.startswith("✓") and what in line for line in said.splitlines()), (what, said)


def test_what_broken_folders_are_told(quick: Project, evaluate: Call) -> None:
    folder = quick.root / FOLDER
    for words, told in (
        (["--checkpoint-dir", "runs/SMALL/vision/anyres-e2p_mlp"], "Pass the folder of stage resampler or finetune"),
        (["--checkpoint-dir", "nowhere"], "nowhere: no such folder"),
        (["--checkpoint-dir", "config"], "default.yaml"),
        (["--checkpoint-dir", FOLDER, "--epoch", "9"], "no checkpoint of epoch 9; there are epochs 0"),
        (["--checkpoint-dir", FOLDER, "--step", "999"], "no checkpoint of step 999; there are steps"),
        (["--checkpoint-dir", FOLDER, "--csv-input", "absent.csv"], "absent.csv"),
        (["--checkpoint-dir", FOLDER, "--csv-input", "Snakefile"], 'found "# panollava'),
        (
            ["--csv-input", "results/SMALL/prepared/test.csv"],
            "Found: image_path, query, annotation. Expected: prediction",
        ),
        (["--csv-input", "results/SMALL/prepared/test.csv"], "answered first, pass --checkpoint-dir or --config"),
    ):
        code, said = evaluate(*words, "--max-samples", "1") if "--checkpoint-dir" in words else evaluate(*words)
        assert code == 1 and told in said and "Traceback" not in said, (words, said)
    metadata = (folder / "checkpoint_metadata.json").read_text()
    (folder / "checkpoint_metadata.json").unlink()
    code, said = evaluate("--checkpoint-dir", FOLDER)
    assert code == 1 and "no checkpoint_metadata.json" in said and "--config" in said
    (folder / "checkpoint_metadata.json").write_text(metadata)
    shutil.copytree(folder, folder.with_name("e2p_mlp"), symlinks=True)
    code, said = evaluate("--checkpoint-dir", "runs/SMALL")
    assert code == 1 and "several variants of stage finetune" in said and "e2p_mlp" in said
    (folder / (folder / "best.ckpt").readlink()).unlink()
    code, said = evaluate("--checkpoint-dir", FOLDER)
    assert code == 1 and "best.ckpt points to" in said
    (folder / "best.ckpt").unlink()
    (folder / "last.ckpt").unlink()
    code, said = evaluate("--checkpoint-dir", FOLDER)
    assert code == 1 and "no .ckpt file there; the folder holds:" in said and "loss_curves.csv" in said


def test_a_killed_evaluation_goes_on(quick: Project, evaluate: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("--checkpoint-dir", FOLDER, "--max-samples", "20", "--batch-size", "5")
    assert evaluate(*words)[0] == 0
    results = quick.root / "results/SMALL/eval/test"
    undisturbed = {name: (results / name).read_bytes() for name in ("predictions.csv", "predictions_blind.csv")}
    asked: list[int] = []
    generate = predicting._generate

    def counting(*arguments: Any) -> list[str]:
        asked.append(len(arguments[2]))
        if len(asked) == 6:  # of eight batches, four of them blind
            raise KeyboardInterrupt
        return generate(*arguments)

    monkeypatch.setattr(predicting, "_generate", counting)
    assert evaluate(*words)[0] == 130 and not (results / "metrics.json").exists()
    code, said = evaluate(*words)
    assert code == 0 and len(asked) == 6 + 3 and "20 answers kept" in said and "5 answers kept" in said
    for name, content in undisturbed.items():
        assert (results / name).read_bytes() == content
    before = len(asked)
    assert evaluate(*words)[0] == 0 and len(asked) == before + 8  # nothing is kept of what is finished


def test_one_evaluation_at_a_time_writes_into_a_folder(
    quick: Project, evaluate: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the prepared CSV on: a second one would write its own questions under the first one's answers."""
    prepare, tried = of_folder.prepare_csv, []

    def beside_another(*arguments: Any, **options: Any) -> None:
        with pytest.raises(TrainingError, match="still in use"), FolderLock(quick.root / "out/.state", wait_s=0):
            pass
        tried.append(prepare(*arguments, **options))

    monkeypatch.setattr(of_folder, "prepare_csv", beside_another)
    assert evaluate("--checkpoint-dir", FOLDER, "--max-samples", "2", "--output-dir", "out")[0] == 0 and tried
    assert evaluate("--checkpoint-dir", FOLDER, "--csv-input", "gone.csv", "--output-dir", "never")[0] == 1
    assert not (quick.root / "never").exists()


def test_pictures_that_go_between_preparing_and_predicting(
    quick: Project, evaluate: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images,) = quick.root.glob("cache/synthetic/*/images")
    prepare = of_folder.prepare_csv

    def and_lose(*arguments: Any, **options: Any) -> None:
        prepare(*arguments, **options)
        (images / "test_00000.png").unlink()
        (images / "test_00001.png").write_bytes((images / "test_00001.png").read_bytes()[:200])

    monkeypatch.setattr(of_folder, "prepare_csv", and_lose)
    code, said = evaluate("--checkpoint-dir", FOLDER)
    assert code == 0 and "samples have no answer and are scored as empty" in said
    answers = rows(quick.root / "results/SMALL/eval/test/predictions.csv")
    for row in answers:
        lost = not row["image_path"].endswith("test_00002.png")
        assert bool(row["error"]) == lost and (not lost or row["prediction"] == "")
    document = read(quick.root / "results/SMALL/eval/test/metrics.json")
    lost_samples = {row["sample_id"] for row in answers if row["error"]}
    assert document["num_errors"] == len(lost_samples) and document["num_empty"] >= len(lost_samples) > 0


def test_a_listed_metric_that_cannot_run_is_told_of_before_anything_runs(project: Project, tmp_path: Path) -> None:
    project.configure({"evaluation.metrics": ["bleu4", "spice"]})
    done = project.panollava("run", "SMALL", check=False, env={"PANOLLAVA_CACHE": str(tmp_path / "empty")})
    said = done.stdout + done.stderr
    warning = said.index("warning: compute_metrics of SMALL will fail: evaluation.metrics lists SPICE")
    assert "panollava setup-metrics" in said[warning:] and warning < said.index("compute_metrics", warning + 50)
    assert done.returncode != 0 and not (project.root / "results/SMALL/metrics.json").exists()
