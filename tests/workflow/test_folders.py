"""What users do with a trained folder: ask it, export it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import Project
from PIL import Image

from panollava import PanoramaProcessor, PanoramaVLM
from panollava.checkpoints.loading import load_stage
from panollava.cli.main import main

pytestmark = pytest.mark.workflow


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], finished: Project):  # type: ignore[no-untyped-def]
    """A command in the finished project: its exit code, standard output and standard error."""
    monkeypatch.chdir(finished.root)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["panollava", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def pictures(project: Project) -> list[Path]:
    return sorted(project.root.glob("cache/synthetic/*/images/test_*.png"))


def test_a_question_is_answered_from_each_kind_of_folder(finished: Project, tmp_path: Path, call) -> None:  # type: ignore[no-untyped-def]
    """The answer is the DAG's own; with --json one document and nothing else on standard output."""
    import csv

    with (finished.root / "results/SMALL/predictions.csv").open(encoding="utf-8", newline="") as stream:
        row = next(csv.DictReader(stream))
    folder = "runs/SMALL/finetune/anyres-e2p_mlp"
    asked = ["infer", row["image_path"], "--query", row["original_query"]]
    code, out, _ = call(*asked, "--checkpoint-dir", folder)
    assert (code, out) == (0, row["prediction"] + "\n")
    for merge in ([], ["--merge-lora"]):
        output = str(tmp_path / f"exported{len(merge)}")
        code, out, err = call("export", "--checkpoint-dir", "runs/SMALL", "--output-dir", output, *merge)
        assert code == 0 and out == f"written: {output}\n", err
        code, out, _ = call(*asked, "--checkpoint-dir", output, "--json")
        document = json.loads(out)
        assert (code, document["text"], document["experiment"]) == (0, row["prediction"], "SMALL")
        assert document["num_views"] == 9 and document["stage"] == "finetune"


def test_bad_pictures_and_folders_are_answered(finished: Project, tmp_path: Path, call) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "text.jpg").write_text("no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "square.png")
    good, whole = str(pictures(finished)[0]), ["--checkpoint-dir", "runs/SMALL"]
    for image, query, folder, code, said in (
        ("none.png", "what?", whole, 1, "none.png: no such file"),
        (str(tmp_path / "text.jpg"), "what?", whole, 1, "not an image"),
        (str(tmp_path / "square.png"), "what?", whole, 1, "2:1"),
        (good, "  ", whole, 1, "question is empty"),
        (good, "what?", ["--checkpoint-dir", "runs/NONE"], 1, "no such folder"),
        (good, "what?", ["--checkpoint-dir", "runs/SMALL/vision/anyres-e2p_mlp"], 1, "no language model"),
        (good, "what?", [*whole, "--epoch", "7"], 1, "no checkpoint of epoch 7"),
        (good, "what?", [*whole, "--epoch", "0", "--step", "1"], 2, "exclude each other"),
    ):
        found, out, err = call("infer", image, "--query", query, *folder, "--json")
        assert (found, out) == (code, ""), (image, err)
        assert said in err and "Traceback" not in err


def test_an_exported_folder_is_whole_and_says_where_it_comes_from(finished: Project, tmp_path: Path, call) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / "exported"
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    code, _, err = call("export", "--checkpoint-dir", "runs/SMALL", "--output-dir", str(output))
    assert code == 2 and "holds other files" in err and (output / "thesis.tex").is_file()
    (output / "thesis.tex").unlink()
    for _ in range(2):  # an export may be replaced
        assert call("export", "--checkpoint-dir", "runs/SMALL", "--output-dir", str(output))[0] == 0
    loaded = load_stage(finished.root / "runs/SMALL")
    model, checkpoint = PanoramaVLM.from_pretrained(output), PanoramaVLM.from_checkpoint(finished.root / "runs/SMALL")
    assert PanoramaProcessor.from_pretrained(output) == loaded.processor
    ours, theirs = model.state_dict(), checkpoint.state_dict()
    assert ours.keys() == theirs.keys()
    for key in ours:  # the VICReg projector, which finetune's checkpoints do not have, is new in each
        assert key.startswith("vicreg_projector.") or torch.equal(ours[key], theirs[key]), key
    assert model.origin == checkpoint.origin and model.origin is not None
    assert model.origin["evaluation"]["metrics"] == json.loads(
        (finished.root / "results/SMALL/metrics.json").read_text()
    )["metrics"]  # fmt: skip
    card = (output / "README.md").read_text(encoding="utf-8")
    for part in ("# SMALL", "training rows | 24", "learning_rate | 0.001", "| bleu4 |", "rank 2, alpha 4"):
        assert part in card, part
    assert str(finished.root) not in card + (output / "config.json").read_text()


def test_an_exported_folder_is_evaluated_and_verified_as_its_stage_folder(
    finished: Project,
    tmp_path: Path,
    call,  # type: ignore[no-untyped-def]
) -> None:
    exported = str(tmp_path / "model")
    assert call("export", "--checkpoint-dir", "runs/SMALL", "--output-dir", exported)[0] == 0
    documents = {}
    for name, folder in (("stage", "runs/SMALL"), ("exported", exported)):
        output = tmp_path / name
        code, _, err = call("eval", "--checkpoint-dir", folder, "--output-dir", str(output))
        assert code == 0, err
        documents[name] = json.loads((output / "metrics.json").read_text())
        assert not (output / "images.json").exists()
    assert (tmp_path / "stage/predictions.csv").read_bytes() == (tmp_path / "exported/predictions.csv").read_bytes()
    stage, other = documents["stage"], documents["exported"]
    assert (stage["metrics"], stage["controls"]) == (other["metrics"], other["controls"])
    told = other["provenance"]["checkpoint"]
    assert (told["file"], told["chosen_as"]) == (".", "an exported model")
    assert told["config_digest"] == stage["provenance"]["checkpoint"]["config_digest"] is not None
    (Path(exported) / "README.md").write_text("my own card")  # no weights: the numbers still hold
    metrics = str(tmp_path / "exported/metrics.json")
    code, out, err = call("eval", "--verify", metrics, "--predict-again", "--max-samples", "2")
    assert code == 0 and "answers, predicted again" in out, out + err
    for option in ("--epoch", "--step"):
        code, _, err = call("eval", "--checkpoint-dir", exported, option, "1")
        assert code == 2 and "holds one checkpoint" in err
    code, _, err = call("eval", "--checkpoint-dir", exported, "--stage", "resampler")
    assert code == 2 and "is an exported model of stage finetune" in err
