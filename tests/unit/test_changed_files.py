"""A picture, CSV, download or checkpoint that is not what a job was planned with: refused in one line, nothing kept."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panollava.checkpoints.folder import checkpoint_of_run
from panollava.config.fingerprints import PlannedSource, csv_fingerprint
from panollava.dag.job_slice import JobSlice
from panollava.dag.jobs import cache_views
from panollava.data.prepare import prepare_csv
from panollava.data.prepared_images import read_images, views_of_csv
from panollava.errors import CheckpointError, DataError, FileChanged
from panollava.evaluation.measures.rolled import RolledPictures
from panollava.evaluation.of_job import open_job
from panollava.files import write_json
from panollava.views.cache import ViewCache
from panollava.views.cache_build import build_view_cache
from panollava.views.render import open_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import plan_views

VIEWS, SIZE = plan_views("resize"), (8, 8)


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 64, 3), np.uint8)).save(path)


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.csv names two pictures beside it, one that is not there, and one in a row that cannot be used."""
    for seed, name in enumerate(("a.png", "b.png", "unused.png", "spare/other.png")):
        draw(tmp_path / "data" / name, seed)
    rows = ["a.png,q,x", "b.png,q,x", "gone.png,q,x", "unused.png,,x"]
    (tmp_path / "data/a.csv").write_text("\n".join(["url,query,annotation", *rows, ""]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepare(edit: Callable[[], object] = lambda: None) -> None:
    """As the job does it: the plan first, then the files; `edit` comes in between."""
    planned = [PlannedSource.of(csv_fingerprint("data/a.csv"))]
    edit()
    prepare_csv(
        ["data/a.csv"], "out/prepared.csv", "out/rejected.csv", max_rejected_fraction=1, planned=planned, progress=False
    )


EDITS: dict[str, tuple[Callable[[], object], str]] = {
    "another picture": (lambda: draw(Path("data/b.png"), 9), r"b\.png of data/a\.csv changed after"),
    "half a picture": (lambda: Path("data/b.png").write_bytes(b"\x89PNG"), r"b\.png of data/a\.csv changed after"),
    "no picture": (lambda: Path("data/b.png").unlink(), r"b\.png of data/a\.csv came or went after"),
    "a new picture": (lambda: draw(Path("data/gone.png"), 9), r"gone\.png of data/a\.csv came or went after"),
    "another place": (
        lambda: (shutil.move("data/b.png", "b.png"), draw(Path("b.png"), 9)), r"b\.png of data/a\.csv changed after",
    ),
    "another csv": (
        lambda: Path("data/a.csv").write_text("url,query,annotation\na.png,q,y\n"), r"^data/a\.csv changed after",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_what_changes_while_it_is_prepared_is_refused(root: Path, edit: str) -> None:
    change, said = EDITS[edit]
    with pytest.raises(FileChanged, match=rf"{said}.*run the same command again$"):
        prepare(change)
    assert not list(root.rglob("out/*"))


def test_what_is_prepared_tells_what_its_pictures_were(root: Path) -> None:
    prepare()
    images = read_images("out/prepared.csv")
    assert images == {f"data/{name}": digest(f"data/{name}") for name in ("a.png", "b.png")}
    with pytest.raises(FileChanged, match=r"a picture that data/a\.csv names changed after"):
        planned = csv_fingerprint("data/a.csv")
        draw(root / "data/unused.png", 9)
        PlannedSource.of(planned)
    (root / "data/a.csv").unlink()
    with pytest.raises(FileChanged, match=r"data/a\.csv was removed after"):
        PlannedSource.of(planned)


@pytest.mark.parametrize("change", [lambda path: draw(path, 9), lambda path: path.unlink()], ids=["edited", "removed"])
def test_a_picture_that_changed_since_gets_no_views(root: Path, change: Callable[[Path], None]) -> None:
    prepare()
    images = {"crop_strategy": "resize", "fov_deg": 90, "overlap_ratio": 0.5, "anyres_max_patches": 9,
              "cubemap_poles": True, "antialias": True, "image_size": [8, 8], "view_cache": "raw"}  # fmt: skip
    slice = JobSlice(json.dumps({"config": {"image_processing": images}}))
    cache_views(slice, Path("out/prepared.csv"), Path("views/index.json"))
    before = ViewCache("views")["data/b.png"].copy()
    change(root / "data/b.png")
    with pytest.raises(FileChanged, match=r"^data/b\.png (changed|was removed) after this job was planned"):
        cache_views(slice, Path("out/prepared.csv"), Path("views/index.json"))
    assert [path.name for path in (root / "views").iterdir()] == ["views.npy"]  # without its index it is no cache
    draw(root / "data/b.png", 1)
    cache_views(slice, Path("out/prepared.csv"), Path("views/index.json"))
    np.testing.assert_array_equal(ViewCache("views")["data/b.png"], before)


def test_views_are_found_by_content(root: Path) -> None:
    """A picture that moved is the same; another one at the same place is not."""
    prepare()
    build_view_cache(["data/a.png", "data/b.png"], VIEWS, SIZE, "views", progress=False)
    views = views_of_csv("views", "out/prepared.csv")
    before = views["data/b.png"].copy()
    shutil.move("data/b.png", "b.png")
    prepare()
    moved = views_of_csv("views", "out/prepared.csv")
    assert list(moved) == ["data/a.png", "b.png"] and "data/b.png" not in moved and len(moved) == 2
    for cache in (moved, pickle.loads(pickle.dumps(moved))):
        np.testing.assert_array_equal(cache["b.png"], before)
    assert moved.digest != views.digest == ViewCache("views").digest
    draw(root / "b.png", 9)
    prepare()
    with pytest.raises(DataError, match=r"views: the view cache holds another picture than b\.png. Remove views"):
        views_of_csv("views", "out/prepared.csv")


def test_the_digest_of_views_is_that_of_their_content(root: Path) -> None:
    digests = set()
    for seed, antialias, views in ((1, True, VIEWS), (9, True, VIEWS), (1, False, VIEWS), (1, True, plan_views("e2p"))):
        draw(root / "data/b.png", seed)
        build_view_cache(["data/b.png"], views, SIZE, "views", Rendering(antialias), progress=False)
        digests.add(ViewCache("views").digest)
    assert len(digests) == 4


@pytest.mark.parametrize("content", ["", "[]", '{"a.png": 1}'])
def test_damaged_digests_are_refused(root: Path, content: str) -> None:
    prepare()
    Path("out/images.json").write_text(content)
    with pytest.raises(DataError, match=r"out/images\.json .*Remove out and run the same command again"):
        read_images("out/prepared.csv")


def test_rolled_panoramas_are_the_prepared_ones(root: Path) -> None:
    sha256 = {"data/a.png": digest("data/a.png")}
    pictures = RolledPictures(VIEWS, SIZE, Rendering(), {"data/a.png": 90.0}, sha256=sha256)
    assert pictures["data/a.png"].shape == (1, *SIZE, 3)
    draw(root / "data/a.png", 9)
    with pytest.raises(FileChanged, match=r"^data/a\.png changed after"):
        pictures["data/a.png"]
    with pytest.raises(FileChanged, match="changed after"):
        open_views("data/a.png", VIEWS, SIZE, sha256=sha256["data/a.png"])


# ---- checkpoints ---------------------------------------------------------------------------------
NAME = "v_mlp_c_d_epoch00_loss1.0000.ckpt"


@pytest.fixture
def stage(root: Path) -> dict[str, object]:
    """A stage folder with one checkpoint, chosen."""
    (root / "stage").mkdir()
    Path("stage", NAME).write_bytes(b"weights")
    entry = {"file": NAME, "epoch": 0, "step": 1, "val_loss": 1.0, "sha256": digest(Path("stage", NAME))}
    write_json(
        "stage/checkpoint_metadata.json",
        {"experiment_name": "A", "stage": "finetune", "checkpoint_info": {"config_digest": "d"},
         "epoch_info": {"best_epoch": 0, "checkpoints": [entry]}},
    )  # fmt: skip
    return checkpoint_of_run(Path("stage"), "d")


def test_weights_that_were_replaced_are_not_chosen(stage: dict[str, object]) -> None:
    assert stage["sha256"] == digest(Path("stage", NAME))
    Path("stage", NAME).write_bytes(b"another run's")
    with pytest.raises(
        CheckpointError, match=rf"stage/{NAME} was changed after its training wrote it.*; or remove stage/"
    ):
        checkpoint_of_run(Path("stage"), "d")


@pytest.mark.parametrize("remove", [False, True])
def test_weights_that_were_replaced_answer_nothing(stage: dict[str, object], remove: bool) -> None:
    Path("stage", NAME).unlink() if remove else Path("stage", NAME).write_bytes(b"another run's")
    said = "which checkpoint.json names, is not there" if remove else "is not the file that checkpoint.json chose"
    with pytest.raises(
        CheckpointError, match=rf"stage/{NAME}.* {said}.*remove stage/checkpoint_metadata\.json and run"
    ):
        open_job({"training": {"cpu_threads": 1}}, stage, Path("out/prepared.csv"))
