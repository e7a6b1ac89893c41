"""Every file of a finished experiment, removed or edited: what was made comes back by the same command."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project
from plans import plan, targets

from panollava.config import WorkflowConfig
from panollava.dag.freshness import ResultCache
from panollava.dag.nodes import TABLE
from panollava.dag.outputs import changed_files, note_of
from panollava.dag.tasks import task_of, tasks_behind

pytestmark = pytest.mark.workflow

NODES = ("metrics", "predict", "select_checkpoint", "train_finetune", "stage_state", "prepare_experiment")
# What nobody's result depends on, or what may be thrown away as long as nobody needs it.
FREE = {"best.ckpt", "last.ckpt", "checkpoint_metadata.json"}


@pytest.fixture(scope="module")
def shared(finished_local: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of LOCAL in which each test puts back what it changes."""
    return finished_local.copy_to(tmp_path_factory.mktemp("removed") / "local")


@pytest.fixture
def config(shared: Project, monkeypatch: pytest.MonkeyPatch) -> WorkflowConfig:
    monkeypatch.chdir(shared.root)
    return WorkflowConfig.load(shared.yaml, ".")


def planned_again(config: WorkflowConfig, nodes: tuple[str, ...] = NODES) -> set[str]:
    """The nodes whose results the DAG plans again, without Snakemake's own reasons."""
    again: list[str] = []
    present = ResultCache(lambda _: None, again.append, lambda: False)
    tasks = [task_of(config, name) for name in nodes]
    for task in tasks:
        present.inputs_of(task)
    names = {task.recorded_by: task.node.name for task in tasks}
    return {names.get(path, path) for path in again}


def outputs_of(config: WorkflowConfig) -> dict[str, str]:
    """Each file that a node of the experiment declares, and its node."""
    files: dict[str, str] = {}
    for name in NODES:
        for given in task_of(config, name).outputs.values():
            files |= dict.fromkeys([given] if isinstance(given, str) else given, name)
    return files


def without(path: Path) -> Iterator[None]:
    kept = path.with_name(f"{path.name}.kept")
    path.rename(kept)
    yield
    kept.replace(path)


def edited(path: Path) -> Iterator[None]:
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    yield
    path.write_bytes(content)
    assert stat.st_size == path.stat().st_size


@pytest.mark.parametrize("change", [without, edited])
def test_each_result_comes_back(config: WorkflowConfig, change: Callable[[Path], Iterator[None]]) -> None:
    """By the node that made it and by no other; weights, where they were only removed, when somebody needs them."""
    assert planned_again(config) == set()
    declared = outputs_of(config)
    assert len(declared) == 15 and all(Path(path).exists() for path in declared)
    for path, node in declared.items():
        thrown_away = change is without and Path(path).name in FREE
        for _ in change(Path(path)):
            assert planned_again(config) == (set() if thrown_away else {node}), path
        assert planned_again(config) == set(), path


@pytest.mark.parametrize("change", [without, edited])
def test_further_files_hinder_nobody(config: WorkflowConfig, change: Callable[[Path], Iterator[None]]) -> None:
    """Files that no node declares: the adapter comes back, states and notes are not needed behind a finished result."""
    declared = outputs_of(config)
    folders = [Path("results/LOCAL"), Path("runs/LOCAL"), Path("logs")]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    further = [path for path in files if path.as_posix() not in declared and path.name != "lock"]
    assert len(further) > 12
    weights = Path("runs/LOCAL/finetune/anyres-e2p_mlp/best.ckpt").resolve()
    for path in further:
        if path.resolve() == weights:
            continue  # as best.ckpt, above
        for _ in change(path):
            told_by_note = path.name.startswith(".") and path.name.endswith(".csv.json")
            made = {"train_finetune"} if "lora_weights" in path.parts else set()
            assert told_by_note or planned_again(config) == made, path


def test_what_was_removed_is_there_again(local: Project) -> None:
    """All at once, by the real Snakemake."""
    results, stage = local.root / "results/LOCAL", local.root / "runs/LOCAL/finetune/anyres-e2p_mlp"
    gone = [results / "report_samples.html", results / "predictions.csv", results / "prepared/val.csv",
            local.root / "runs/LOCAL_stage_state.json", stage / "loss_curves.png"]  # fmt: skip
    for path in gone:
        path.unlink()
    (results / "checkpoint.json").write_text((results / "checkpoint.json").read_text().replace("e", "E", 1))
    local.call("snakemake", "--cores", "2", "--", *targets("LOCAL"))
    assert all(path.is_file() for path in gone)
    assert plan(local) == {}


# ---- the shared cache ----------------------------------------------------------------------------
CACHED = ("prepare_train", "prepare_val", "views_train", "views_val", "miniature_vision", "miniature_language")


@pytest.mark.parametrize("change", [without, edited])
def test_what_a_job_needs_of_the_cache_is_mended(
    config: WorkflowConfig, change: Callable[[Path], Iterator[None]]
) -> None:
    """Each file of each folder: behind a finished result nobody needs it, a stage that is to be trained does."""
    changed = config.with_values({"lora.rank": 1})
    for name in CACHED:
        task = task_of(config, name)
        files = [
            Path(path) for given in task.outputs.values() for path in ([given] if isinstance(given, str) else given)
        ]
        if name.startswith("prepare"):
            files.append(files[0].with_name("images.json"))
        assert changed_files(files[0], task.digest) == []
        for path in files:
            for _ in change(path):
                if change is edited and path.name in TABLE["views"].unread:
                    continue  # its checksums are in index.json
                assert planned_again(config) == set(), path
                again = {one for one in planned_again(changed) if one.startswith("cache/")}
                asked = next(one for one in files if one.name in ("prepared.csv", "index.json", "model.safetensors"))
                assert again == ({asked.as_posix()} if path != asked or change is edited else set()), path


def test_pictures_that_moved_or_went_are_prepared_again_for_those_who_open_them(config: WorkflowConfig) -> None:
    """Beside the CSV or in the root: the same picture has the same key, and another path."""
    again: list[str] = []

    def mended(node: str, values: dict[str, object]) -> list[str]:
        again.clear()
        present = ResultCache(lambda _: None, again.append, lambda: False)
        present.inputs_of(task_of(config.with_values(values), node))
        return list(again)

    csv = f"cache/csv/{config.csv_key('val')}/prepared.csv"
    other = {"image_processing.antialias": False}
    assert mended("views_val", other) == []
    shutil.move("data/val_00001.png", "val_00001.png")
    try:
        assert mended("views_val", other) == [csv] == mended("predict_rolled", {"generation.max_new_tokens": 3})[-1:]
        assert csv not in mended("predict", {"generation.max_new_tokens": 3})
        assert planned_again(config) == set()
    finally:
        shutil.move("val_00001.png", "data/val_00001.png")
    assert mended("views_val", other) == []


def test_a_moved_picture_is_no_dead_end(local: Project) -> None:
    shutil.move(local.root / "data/val_00001.png", local.root / "val_00001.png")
    assert plan(local) == {}
    local.configure({"image_processing.antialias": False})
    views = WorkflowConfig.load(local.yaml, local.root).views_key("val")
    assert plan(local, [f"cache/views/{views}/index.json"]) == {"cache_views": 1, "prepare_csv": 1}
    local.call("snakemake", "--cores", "1", "--", f"cache/views/{views}/index.json")
    local.configure({"generation.max_new_tokens": 5})  # the older views, found by content
    local.call("snakemake", "--cores", "1", "--", "results/LOCAL/predictions.csv")


def test_notes_are_written_by_every_job(config: WorkflowConfig) -> None:
    for task in [task_of(config, name) for name in NODES] + tasks_behind(config, "metrics"):
        first = task.recorded_by or next(path for path in task.outputs.values() if isinstance(path, str))
        assert note_of(first).is_file(), task.node.rule
        assert changed_files(first, "another slice") is None
