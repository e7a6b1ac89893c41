"""A folder of others is read: nothing that a field of its files names is imported, called or opened elsewhere.

One test a field, each with a harmless mark: a module that makes a folder when it is imported, a file that must not be
opened.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import language_folder, tiny_config, vision_folder

from panollava.checkpoints.folder import METADATA, choose_checkpoint
from panollava.checkpoints.loading import load_stage
from panollava.checkpoints.weights import save_weights
from panollava.cli.main import main
from panollava.config import Settings, WorkflowConfig
from panollava.errors import CheckpointError, ConfigError, DataError, EvaluationError
from panollava.evaluation.comparison.results import read_results
from panollava.evaluation.of_folder import EvalRequest, evaluate_folder
from panollava.evaluation.predictions import Prediction, write_predictions
from panollava.evaluation.rescoring import place_of, read_document
from panollava.evaluation.score_files import score_files
from panollava.evaluation.verify import verify
from panollava.files import relative_link, sha256_file, sha256_folder, write_json
from panollava.models.processor import PanoramaProcessor
from panollava.models.vision import VisionEncoder
from panollava.models.vlm import PanoramaVLM
from panollava.serve.examples import csv_of, find_examples
from panollava.trust import configured_metrics, find_inside, project_of, runnable_metrics

METRIC = "stranger_marker:count"
COLUMNS = {"image_path": None, "query": None, "annotation": None}


@pytest.fixture(autouse=True)
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a module that leaves `ran` there when it is imported."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "stranger_marker.py").write_text(
        f"import os\nos.makedirs({str(here / 'ran')!r}, exist_ok=True)\n"
        "def count(predictions, references, rows):\n    return float(len(predictions))\n"
    )
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield here
    sys.modules.pop("stranger_marker", None)


@pytest.fixture
def their_metrics(tmp_path: Path) -> Path:
    """A metrics.json of others with one ordinary score and one that their own function gave."""
    folder = tmp_path / "theirs/results/E"
    write_predictions(
        folder / "predictions.csv", [Prediction(n, f"p{n}.png", "what?", f"a box {n}", ("a box",)) for n in range(4)]
    )
    evaluation = {**Settings().evaluation.model_dump(mode="json"), "metrics": ["rouge_l"], "bootstrap_samples": 0}
    document = score_files({"predict": folder / "predictions.csv"}, evaluation, folder / "metrics.json", {})
    document["metrics"]["count"] = {**document["metrics"]["rouge_l"], "value": 4.0, "library": METRIC}
    write_json(folder / "metrics.json", document)
    return folder / "metrics.json"


def states(path: Path, **options: Any) -> dict[str, tuple[str, str]]:
    return {check.what: (check.state, check.detail) for check in verify(path, **options)}


# ---- metrics.json --------------------------------------------------------------------------------
def test_library_of_a_score(their_metrics: Path, marked: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = states(their_metrics)
    assert found["ROUGE-L"][0] == "holds"
    assert found["count"][0] == "not checked" and f"--custom-metrics {METRIC}" in found["count"][1]
    other = their_metrics.parent.with_name("F")
    shutil.copytree(their_metrics.parent, other)
    with caplog.at_level(logging.WARNING, "panollava"):
        results = read_results([their_metrics, other / "metrics.json"])
    assert results[0].metrics["count"].value == 4.0 and results[0].metrics["count"].samples is None
    assert f"--custom-metrics {METRIC}" in caplog.text
    assert not (marked / "ran").exists() and str(marked) not in sys.path
    assert states(their_metrics, custom_metrics=[METRIC])["count"][0] == "holds"  # the user's word
    assert (marked / "ran").exists()


def test_library_of_a_score_that_the_users_own_project_names(their_metrics: Path, marked: Path) -> None:
    (marked / "config/experiments").mkdir(parents=True)
    own = marked / "config/experiments/MINE.yaml"
    own.write_text(f"experiment: {{name: MINE}}\nevaluation: {{custom_metrics: ['{METRIC}']}}\n")
    assert configured_metrics() == {METRIC}
    assert states(their_metrics)["count"][0] == "holds"


def test_commands_name_metrics(their_metrics: Path, marked: Path, monkeypatch: Any, capsys: Any) -> None:
    def call(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["panollava", *words])
        with pytest.raises(SystemExit):
            main()
        said = capsys.readouterr()
        return said.out + said.err

    assert "not recomputed" in call("eval", "--verify", str(their_metrics)) and not (marked / "ran").exists()
    assert "✓ count" in call("eval", "--verify", str(their_metrics), "--custom-metrics", METRIC)
    assert "must be written package.module:function" in call("compare", "a", "b", "--custom-metrics", "x y")


@pytest.mark.parametrize("field", ["csv", "checkpoint.folder", "checkpoint.file", "measures", "predictions.csv"])
def test_paths_of_metrics_json(their_metrics: Path, tmp_path: Path, field: str) -> None:
    """A file outside of the folder, its project and the working folder has no digest taken and no row read."""
    outside = tmp_path / "outside/secret.csv"
    outside.parent.mkdir()
    shutil.copy(their_metrics.parent / "predictions.csv", outside)
    for told in (str(outside), "../../../outside/secret.csv", "../outside/secret.csv"):
        document = read_document(their_metrics)
        digest = sha256_file(outside)
        if field == "csv":
            document["provenance"] |= {"csv": {"path": told, "sha256": digest}}
            assert place_of(told, their_metrics) is None
        elif field == "checkpoint.folder":
            folder = str(Path(told).parent)
            document["provenance"] |= {"checkpoint": {"folder": folder, "file": "secret.csv", "sha256": digest}}
        elif field == "checkpoint.file":
            document["provenance"] |= {"checkpoint": {"folder": "runs", "file": told, "sha256": digest}}
        elif field == "measures":
            document["provenance"] |= {"measures": {told: digest}}
        else:
            (their_metrics.parent / "predictions.csv").unlink()
            relative_link(their_metrics.parent / "predictions.csv", outside)
        changed = their_metrics.with_name(f"metrics_{abs(hash(told))}.json")
        write_json(changed, document)
        if field == "measures":
            with pytest.raises(EvaluationError, match=r"cannot be read as a metrics\.json"):
                verify(changed)
            continue
        looked_at = {state for what, (state, _) in states(changed).items() if what in ("predictions.csv", told) or
                     (field.startswith("checkpoint") and "secret" in what)}  # fmt: skip
        expected = {"differs"} if field == "predictions.csv" else {"holds", "not checked"}  # predictions.csv holds
        assert looked_at == expected, told


# ---- a stage folder ------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of others: backbones, a stage folder, a test CSV with a panorama; recorded is a root elsewhere."""
    root = tmp_path_factory.mktemp("their_project")
    vision_folder(root / "models", "siglip")
    language_folder(root / "models", "llama")
    torch.manual_seed(0)
    model = PanoramaVLM(tiny_config(root / "models", language="llama"))
    folder = root / "runs/E/finetune/v"
    save_weights(folder / "x_epoch00_loss1.0000.ckpt", model.trained_state_dict(), {"stage": "finetune"})
    relative_link(folder / "best.ckpt", folder / "x_epoch00_loss1.0000.ckpt")
    settings = Settings().model_dump(mode="json")
    paths = {"vision_path": "models/siglip", "language_path": "models/llama"}
    write_json(
        folder / METADATA,
        {
            "experiment_name": "E", "stage": "finetune", "model_config": {**model.config.to_json(), **paths},
            "backbones": {part: sha256_folder(root / path) for part, path in
                          {"vision": "models/siglip", "language": "models/llama"}.items()},
            "processor": PanoramaProcessor.for_model(model.config, model.vision).to_json(),
            "training_config": {"precision": "32-true"}, "dataset": {"test_csv": "data/test.csv"},
            "epoch_info": {"checkpoints": [
                {"file": "x_epoch00_loss1.0000.ckpt", "epoch": 0, "step": 1, "val_loss": 1.0}]},
            "checkpoint_info": {"project_root": "/on/their/machine"},
            "remembered": {"generation": {**settings["generation"], "max_new_tokens": 2},
                           "evaluation": {**settings["evaluation"], "metrics": ["bleu4"], "blind_control": False}},
        },
    )  # fmt: skip
    (root / "data").mkdir()
    Image.new("RGB", (64, 32)).save(root / "data/pano.png")
    (root / "data/test.csv").write_text("image_path,query,annotation\npano.png,what?,a box\n")
    (root / "Snakefile").touch()
    return root


@pytest.fixture
def theirs(trained: Path, marked: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, unpacked in the working folder: the stage folder."""
    shutil.copytree(trained, marked, symlinks=True, dirs_exist_ok=True)
    return marked / "runs/E/finetune/v"


def edit(folder: Path, **changes: Any) -> None:
    """Give sections of the metadata other values for some of their keys."""
    document = json.loads((folder / METADATA).read_text())
    for section, values in changes.items():
        document[section] = {**document[section], **values}
    (folder / METADATA).write_text(json.dumps(document))


def test_custom_metrics_of_metadata(theirs: Path, marked: Path, caplog: pytest.LogCaptureFixture) -> None:
    evaluation = json.loads((theirs / METADATA).read_text())["remembered"]["evaluation"]
    edit(theirs, remembered={"evaluation": {**evaluation, "custom_metrics": [METRIC]}})
    with caplog.at_level(logging.WARNING, "panollava"):
        _, document = evaluate_folder(EvalRequest(theirs, output_dir=marked / "out"))
    assert document["metrics"]["count"]["value"] is None and document["metrics"]["bleu4"]["value"] is not None
    assert f"--custom-metrics {METRIC}" in document["metrics"]["count"]["reason"] and METRIC in caplog.text
    assert not (marked / "ran").exists() and str(marked) not in sys.path
    request = EvalRequest(theirs, output_dir=marked / "out", custom_metrics=[METRIC])
    assert evaluate_folder(request)[1]["metrics"]["count"]["value"] == 1.0


def test_backbones_of_metadata(theirs: Path, marked: Path, tmp_path: Path) -> None:
    load_stage(theirs)
    outside = tmp_path / "elsewhere"
    shutil.move(marked / "models", outside)
    config = WorkflowConfig.from_dict(
        {"experiment": {"name": "E"},
         "models": {"vision_name": str(outside / "siglip"), "language_model_name": str(outside / "llama")}}
    )  # fmt: skip
    for told in (str(outside), "../elsewhere"):
        edit(theirs, model_config={"vision_path": f"{told}/siglip", "language_path": f"{told}/llama"})
        with pytest.raises(CheckpointError, match=r"lies outside of its project .*pass --config"):
            load_stage(theirs)
    load_stage(theirs, config=config)  # the user's own configuration names them
    edit(theirs, checkpoint_info={"project_root": str(marked)})
    load_stage(theirs)  # it was trained here


@pytest.mark.parametrize("name", ["elsewhere/siglip", "/abs/siglip", "../elsewhere/siglip"])
def test_backbones_without_a_digest_are_ids_of_the_hub(theirs: Path, marked: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(marked / "models/siglip", marked / "elsewhere/siglip")
    name = name.replace("/abs", str(marked / "elsewhere"))
    edit(theirs, backbones={"vision": None}, model_config={"vision_name": name, "vision_path": "models/siglip"})
    with pytest.raises(CheckpointError, match=r"model_config\.vision_name is .*records no digest"):
        load_stage(theirs)


@pytest.mark.parametrize("told", ["/outside/test.csv", "../outside/test.csv"])
def test_csv_of_metadata(theirs: Path, marked: Path, tmp_path: Path, told: str) -> None:
    shutil.copytree(marked / "data", tmp_path / "outside")
    edit(theirs, dataset={"test_csv": told.replace("/outside", str(tmp_path / "outside")) if told[0] == "/" else told})
    with pytest.raises(EvaluationError, match=r"the folder's test_csv .*not opened: pass --csv-input"):
        evaluate_folder(EvalRequest(theirs, output_dir=marked / "out"))
    loaded = load_stage(theirs)
    assert csv_of(loaded) is None
    evaluate_folder(EvalRequest(theirs, csv_input=tmp_path / "outside/test.csv", output_dir=marked / "out"))


def test_pictures_beside_their_csv_are_shown(marked: Path, tmp_path: Path) -> None:
    (marked / "data/images").mkdir(parents=True)
    Image.new("RGB", (64, 32)).save(marked / "data/images/a.png")
    table = marked / "data/own.csv"
    table.write_text(
        "image_path,query,annotation\nimages/a.png,what?,a box\n../../b.png,what?,a box\nimages/half.png,what?,a box\n"
    )
    (marked / "data/images/half.png").write_bytes((marked / "data/images/a.png").read_bytes()[:40])  # is left out
    Image.new("RGB", (64, 32)).save(marked.parent / "b.png")
    (found,) = find_examples(table, marked, COLUMNS, within=[marked])
    assert found.path == marked / "data/images/a.png"


@pytest.mark.parametrize("linked", [False, True])
def test_pictures_of_their_csv(theirs: Path, marked: Path, tmp_path: Path, linked: bool) -> None:
    private = tmp_path / "private.png"
    Image.new("RGB", (64, 32)).save(private)
    named = "link.png" if linked else str(private)
    if linked:
        (marked / "data/link.png").symlink_to(private)
    (marked / "data/test.csv").write_text(f"image_path,query,annotation\n{named},what?,a box\n")
    elsewhere = tmp_path / "work"
    elsewhere.mkdir()
    root = marked
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(elsewhere)  # where links are not the user's own
        assert not find_examples(root / "data/test.csv", root, COLUMNS, within=[root, elsewhere])
        assert len(find_examples(root / "data/test.csv", root, COLUMNS)) == 1  # a CSV that the user names
    if not linked:
        with pytest.raises(DataError, match="No row is left"):
            evaluate_folder(EvalRequest(theirs, output_dir=marked / "out"))
        assert "of others may name" in (marked / "out/rejected.csv").read_text()


def test_links_of_their_folder(theirs: Path, marked: Path, tmp_path: Path) -> None:
    outside = tmp_path / "weights.ckpt"
    shutil.move(theirs / "x_epoch00_loss1.0000.ckpt", outside)
    relative_link(theirs / "best.ckpt", outside)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(CheckpointError, match=r"best\.ckpt leads to .*weights\.ckpt, outside of the folder"):
            choose_checkpoint(theirs)
        edit(theirs, checkpoint_info={"project_root": str(marked)})
        assert choose_checkpoint(theirs).path == outside.resolve()  # a folder of one's own


# ---- an exported model ---------------------------------------------------------------------------
def test_files_of_an_exported_model(theirs: Path, marked: Path, tmp_path: Path) -> None:
    loaded = load_stage(theirs)
    exported = marked / "exported"
    loaded.model.save_pretrained(exported, loaded.processor)
    PanoramaVLM.from_pretrained(exported)
    for part in ("vision_encoder", "language_model"):
        adapter = exported / part / "adapter_config.json"
        adapter.write_text(json.dumps({"base_model_name_or_path": str(marked / "models/siglip"), "peft_type": "LORA"}))
        with pytest.raises(CheckpointError, match=r"adapter_config\.json would have another model loaded"):
            PanoramaVLM.from_pretrained(exported)
        adapter.unlink()
    shutil.move(exported / "model.safetensors", tmp_path / "elsewhere.safetensors")
    (exported / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors leads out of the folder"):
        PanoramaVLM.from_pretrained(exported)


def test_an_encoder_that_is_an_adapter_opens_no_other_model(marked: Path) -> None:
    folder = vision_folder(marked, "siglip")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "other", "peft_type": "LORA"}))
    with pytest.raises(ConfigError, match=r"adapter_config\.json: transformers would load the model"):
        VisionEncoder(str(folder))


# ---- the rules themselves ------------------------------------------------------------------------
def test_metrics_of_the_package_run_whoever_names_them() -> None:
    names = ["panollava.evaluation.metrics.synthetic:exact_match", "panollava.files:sha256_folder", METRIC]
    run, refused = runnable_metrics(names)
    assert run == names[:1] and list(refused) == names[1:]


def test_what_lies_inside(tmp_path: Path) -> None:
    root = tmp_path / "results/E"
    root.mkdir(parents=True)
    (root / "a.csv").touch()
    (tmp_path / "b.csv").touch()
    (root / "link").symlink_to(tmp_path / "b.csv")
    (root / "circle").symlink_to(root / "circle")
    assert find_inside("a.csv", [root]) == root / "a.csv" and find_inside(str(root / "a.csv"), [root])
    for told in ("", "../../b.csv", str(tmp_path / "b.csv"), "link", "circle", "a\0b", "x" * 5000, "x/../../../b.csv"):
        assert find_inside(told, [root]) is None, told
    assert project_of(root / "metrics.json") == tmp_path.resolve()
