"""What lies outside the configuration: CSVs, pictures, a metric's code, caches, touched files, other folders."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
import yaml
from conftest import Project
from plans import plan, planned_jobs, targets
from trouble import FAULTS

from panollava.files import sha256_folder

pytestmark = pytest.mark.workflow

AFTER_TRAINING = {"write_stage_state": 1, "select_checkpoint": 1, "predict": 1, "compute_metrics": 1}
AFTER_A_CSV = {"cache_views": 1, "compute_metrics": 1, "predict": 1, "prepare_csv": 1, "prepare_experiment": 1,
               "select_checkpoint": 1, "train_finetune": 1, "write_stage_state": 1}  # fmt: skip


def contents(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and time of change of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.lstat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def repaint(picture: Path) -> None:
    """Other pixels in a file of the same size, with its old time of change."""
    import cv2

    stat, pixels = picture.stat(), cv2.imread(str(picture))
    for value in range(1, 255):
        pixels[0, 0] = value
        cv2.imwrite(str(picture), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if picture.stat().st_size == stat.st_size:
            break
    os.utime(picture, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_changed_csv_re_runs_all_behind_it(local: Project) -> None:
    for split in ("train", "val"):
        csv = local.root / f"data/{split}.csv"
        old, stat = csv.read_text(), csv.stat()
        csv.write_text(old.replace("a thing 1", "a gnome 1"))
        os.utime(csv, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert plan(local) == AFTER_A_CSV, split
        csv.write_text(old)
        assert plan(local) == {}, split


def test_a_changed_picture_re_runs_all_behind_it(local: Project) -> None:
    picture = local.root / "data/val_00001.png"
    old, stat = picture.read_bytes(), picture.stat()
    repaint(picture)
    assert picture.stat().st_mtime_ns == stat.st_mtime_ns and picture.read_bytes() != old
    assert plan(local) == AFTER_A_CSV
    views = {job.outputs[0] for job in planned_jobs(local, targets("LOCAL")) if job.rule == "cache_views"}
    before = {path.read_bytes() for path in local.root.glob("cache/views/*/views.npy")}
    local.call("snakemake", "--cores", "1", "--", *views)
    assert (local.root / views.pop()).read_bytes() not in before
    picture.write_bytes(old)
    assert plan(local) == {}


@pytest.mark.parametrize("rule", ["prepare_csv", "cache_views"])
def test_a_picture_that_changes_while_a_run_goes_on_stays_in_no_cache(local: Project, rule: str) -> None:
    """The run ends with one line; the same command goes on, with the views of what is there now."""
    picture, other = local.root / "data/val_00001.png", local.root / "data/val_00000.png"
    old = picture.read_bytes()
    local.configure({"image_processing.antialias": False, "data.max_rejected_fraction": 0.06})
    edit = {"PYTHONPATH": str(FAULTS), "FAULTS": f"{rule}:edit", "FAULT_EDIT": f"{other} {picture}"}

    def views() -> set[str]:
        return {job.outputs[0] for job in planned_jobs(local, targets("LOCAL")) if job.rule == "cache_views"}

    before, caches = {path.parent for path in local.root.glob("cache/views/*/index.json")}, views()
    assert len(caches) == 2
    done = local.call("snakemake", "--cores", "1", "--keep-going", "--", *caches, check=False, env=edit)
    said = re.findall(r" ERROR +(.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert done.returncode == 1 and len(set(said)) == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"data/val\S+ .*changed after this job was planned\. .*run the same command again", said[0])
    kept = {path.parent for path in local.root.glob("cache/views/*/index.json")} - before
    assert len(kept) == 1  # of the training split
    unbuilt = {path for path in caches if not (local.root / path).with_name("index.json").exists()}
    now = views()
    assert len(now - caches) == 1
    local.call("snakemake", "--cores", "1", "--", *now)
    for cache, content in ((now - caches, picture.read_bytes()), (unbuilt, old)):
        picture.write_bytes(content)
        (index,) = {Path(path).with_name("index.json") for path in cache}
        local.call("snakemake", "--cores", "1", "--", str(index))
        images = json.loads((local.root / index).read_text())["images"]
        assert images["data/val_00001.png"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_changed_metric_of_ones_own_is_computed_again(local: Project) -> None:
    (local.root / "own_metric.py").write_text("def length(answers, references, rows):\n    return 1.0\n")
    assert plan(local) == {"compute_metrics": 1}


def test_so_is_one_whose_helper_changed(local: Project) -> None:
    (local.root / "helper.py").write_text("FACTOR = 1\n")
    (local.root / "own_metric.py").write_text(
        "from helper import FACTOR\ndef length(answers, references, rows):\n    return 1.0 * FACTOR\n"
    )
    local.panollava("run", "LOCAL")
    assert plan(local) == {}
    (local.root / "helper.py").write_text("FACTOR = 2\n")
    assert plan(local) == {"compute_metrics": 1}


def test_touched_files_make_nothing_stale(project: Project, local: Project) -> None:
    """Results first, sources last: everything becomes younger than what was made from it."""
    for one in (project, local):
        moment = time.time_ns()
        for folder in ("results", "runs", "cache", "data", "workflow", "config"):
            for path in sorted((one.root / folder).rglob("*"), key=lambda path: (path.suffix != ".json", str(path))):
                if path.is_file():
                    moment += 10**7
                    os.utime(path, ns=(moment, moment))
        assert plan(one) == {}


def test_a_cache_that_was_removed_is_made_again_for_those_alone_who_need_it(local: Project) -> None:
    before = {folder: contents(local.root / "cache" / folder) for folder in ("csv", "views")}
    shutil.rmtree(local.root / "cache/csv")
    shutil.rmtree(local.root / "cache/views")
    assert plan(local) == {}
    local.configure({"evaluation.metrics": ["rouge_l"]})
    assert plan(local) == {"compute_metrics": 1}
    local.configure({"generation.max_new_tokens": 5})
    assert plan(local) == {"prepare_csv": 1, "cache_views": 1, "predict": 1, "compute_metrics": 1}
    local.configure({"lora.rank": 1})
    assert plan(local) == {"prepare_csv": 2, "cache_views": 2, "train_finetune": 1, **AFTER_TRAINING}
    local.configure({})
    local.call(
        "snakemake", "--cores", "2", "--", *(f"cache/views/{name}" for name in before["views"] if "index" in name)
    )
    for folder, files in before.items():
        after = contents(local.root / "cache" / folder)
        assert {name: digest for name, (digest, _) in after.items()} == {n: digest for n, (digest, _) in files.items()}
    assert plan(local) == {}


def test_removed_drawings_are_drawn_again_where_a_picture_is_needed(project: Project) -> None:
    shutil.rmtree(project.root / "cache/synthetic")
    assert plan(project) == {}
    project.configure({"generation.max_new_tokens": 5})
    assert plan(project) == {"predict": 1, "predict_blind": 1, "compute_metrics": 1}
    project.configure({"image_processing.antialias": False})
    planned = plan(project)
    assert planned["draw_synthetic"] == 1 and planned["cache_views"] == 3 and "prepare_csv" not in planned
    project.configure({"evaluation.blind_control": False})
    shutil.rmtree(project.root / "cache/views")
    assert plan(project) == {"compute_metrics": 1}


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ("results/LOCAL/metrics.json", {"compute_metrics": 1}),
        ("runs/LOCAL_stage_state.json", {"write_stage_state": 1}),
        ("results/LOCAL", {"prepare_experiment": 1, "select_checkpoint": 1, "predict": 1, "compute_metrics": 1}),
        ("runs/LOCAL", {}),  # who throws weights away need not train again, as long as nothing needs them
        ("cache", {}),
    ],
)
def test_what_was_removed_is_made_again(finished_local: Project, tmp_path: Path, removed: str, expected: dict) -> None:
    """By `panollava run` and by the default target, which both ask for metrics and stage state."""
    local = finished_local.copy_to(tmp_path / "local")
    path = local.root / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert plan(local) == expected
    default = local.root / "config/default.yaml"
    document = yaml.safe_load(default.read_text(encoding="utf-8"))
    default.write_text(yaml.safe_dump({**document, "workflow": {"experiments": ["LOCAL"]}}), encoding="utf-8")
    assert {rule: n for rule, n in plan(local, ["all"]).items() if rule != "all"} == expected


def test_weights_that_were_removed_are_trained_again_where_they_are_needed(local: Project) -> None:
    (weights,) = local.root.glob("runs/LOCAL/finetune/*/*_epoch00_*.ckpt")
    weights.unlink()
    assert plan(local) == {}
    local.configure({"generation.max_new_tokens": 5})
    assert plan(local) == {"train_finetune": 1, **AFTER_TRAINING}


def test_backbones_in_folders_of_ones_own_are_known_by_their_digests(local: Project, tmp_path: Path) -> None:
    """They are found from any working folder, and other weights in them are neither trained on nor asked."""
    folders = {"vision": local.root / "weights/siglip", "language": local.root / "weights/qwen3"}
    for part, folder in folders.items():
        (built,) = (local.root / "cache/miniature" / part).iterdir()
        shutil.copytree(built, folder)
    named = {"models.vision_name": "weights/siglip", "models.language_model_name": "weights/qwen3"}
    local.configure(named)
    local.panollava("run", "LOCAL")
    (metadata,) = local.root.glob("runs/LOCAL/finetune/*/checkpoint_metadata.json")
    told = json.loads(metadata.read_text())
    assert told["backbones"] == {part: sha256_folder(folder) for part, folder in folders.items()}
    assert told["model_config"]["language_path"] == "weights/qwen3"
    picture = str(local.root / "data/val_00000.png")
    words = ("infer", picture, "--query", "what is left", "--checkpoint-dir", str(metadata.parent))
    elsewhere = Project(tmp_path)
    answer = elsewhere.panollava(*words).stdout
    (folders["language"] / "generation_config.json").write_text("{}")
    done = elsewhere.panollava(*words, check=False)
    assert answer and done.returncode == 1 and "language backbone" in done.stderr and "differs" in done.stderr
    assert "train_finetune" in plan(local)


def test_another_resampler_or_strategy_gets_a_folder_of_its_own(local: Project) -> None:
    """The first one's folder stays as it is, and serves again when the configuration returns to it."""
    old = local.root / "runs/LOCAL/finetune/anyres-e2p_mlp"
    before = contents(old)
    local.configure({"image_processing.crop_strategy": "e2p"})
    trained = [job.outputs for job in planned_jobs(local, targets("LOCAL")) if job.rule == "train_finetune"]
    assert all(path.startswith("runs/LOCAL/finetune/e2p_mlp/") for path in trained[0]) and len(trained) == 1
    local.panollava("run", "LOCAL")
    document = json.loads((local.root / "results/LOCAL/metrics.json").read_text())
    assert document["provenance"]["checkpoint"]["folder"] == "runs/LOCAL/finetune/e2p_mlp"
    assert contents(old) == before
    local.configure({})
    assert plan(local) == AFTER_TRAINING


def test_weeks_later_nothing_is_stale(local: Project) -> None:
    """Ages say nothing: all files equally old, or in the wrong order."""
    now = time.time_ns()
    files = [path for path in local.root.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, ns=(now, now - 10**15), follow_symlinks=False)
    assert plan(local) == {}
