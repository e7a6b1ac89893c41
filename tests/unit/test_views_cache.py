"""The view cache: equal to on-the-fly rendering, whole or absent, cheap to send to workers, bounded on disk."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from supersampling import psnr

from panollava.config import WorkflowConfig
from panollava.dag.job_slice import JobSlice
from panollava.dag.jobs import cache_views
from panollava.errors import DataError
from panollava.processes import available_cores
from panollava.views.cache import LAYOUTS, ViewCache
from panollava.views.cache_build import build_view_cache
from panollava.views.cache_limit import remove_unused, view_caches
from panollava.views.render import open_views
from panollava.views.strategies import plan_views

VIEWS = plan_views("anyres_e2p")
SIZE = (12, 16)


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    """Photographs, as far as JPEG is concerned: smooth, with a little noise."""
    rng = np.random.default_rng(0)
    paths = []
    for index, suffix in enumerate(("png", "jpg", "png")):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 8, 3), np.uint8))
        smooth = np.asarray(coarse.resize((64 * (index + 1), 32 * (index + 1)), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / f"{index}.{suffix}")
        paths.append(f"{index}.{suffix}")
    return paths


def build(tmp_path: Path, images: list[str], layout: str = "raw") -> Path:
    build_view_cache(images, VIEWS, SIZE, tmp_path / "cache", progress=False, root=tmp_path, layout=layout)
    return tmp_path / "cache"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cached_views_are_the_rendered_ones(tmp_path: Path, images: list[str], layout: str) -> None:
    cache = ViewCache.open(build(tmp_path, [*images, images[0]], layout))
    assert list(cache) == images
    assert len(cache) == 3
    assert (cache.views, cache.image_size, cache.layout) == (VIEWS, SIZE, layout)
    for path in images:
        assert path in cache
        rendered = open_views(tmp_path / path, VIEWS, SIZE)
        for _ in range(2):  # checked against its checksum, and not checked again
            assert psnr(cache[path], rendered) > 38 if layout == "jpeg" else np.array_equal(cache[path], rendered)
        assert cache[path].shape == rendered.shape
        assert cache.sha256[path] == hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
    stored = np.load(cache.folder / "views.npy")
    assert stored.ndim == (5 if layout == "raw" else 1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_job_keeps_views_as_the_configuration_says(
    tmp_path: Path, images: list[str], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`image_processing.view_cache`, from the slice of the node to the folder."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{path},what is it?,a thing" for path in images]
    Path("prepared.csv").write_text("\n".join(["image_path,query,annotation", *rows, ""]), encoding="utf-8")
    data = {"csv_train": "prepared.csv", "csv_val": "prepared.csv", "csv_test": None}
    image_processing = {"image_size": [12, 16], "view_cache": layout}
    config = WorkflowConfig.from_dict({"data": data, "image_processing": image_processing}, tmp_path)
    cache_views(JobSlice(config.slice_json("views_train")), csv=Path("prepared.csv"), index=Path("cache/index.json"))
    cache = ViewCache("cache")
    assert (cache.layout, cache.views, cache.image_size, list(cache)) == (layout, VIEWS, SIZE, images)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_the_same_however_many_threads_build(
    tmp_path: Path, images: list[str], layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert available_cores() == int(threads)
        folder = build(tmp_path, images, layout)
        written.append([(folder / name).read_bytes() for name in ("views.npy", "index.json")])
    assert written[0] == written[1]


def test_a_pickled_cache_opens_its_folder_again(tmp_path: Path, images: list[str]) -> None:
    cache = ViewCache(build(tmp_path, images))
    content = pickle.dumps(cache)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content)[images[1]], cache[images[1]])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cache_without_images(tmp_path: Path, layout: str) -> None:
    assert len(ViewCache(build(tmp_path, [], layout))) == 0


def test_a_failed_build_leaves_no_cache_and_no_older_one(tmp_path: Path, images: list[str]) -> None:
    folder = build(tmp_path, images)
    (tmp_path / images[1]).write_bytes((tmp_path / images[1]).read_bytes()[:200])
    with pytest.raises(DataError, match=r"1\.jpg: truncated"):
        build(tmp_path, images)
    with pytest.raises(DataError, match="is no view cache"):
        ViewCache(folder)
    assert not list(folder.glob(".*partial"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_changed_bit_is_never_used(tmp_path: Path, images: list[str], layout: str) -> None:
    folder = build(tmp_path, images, layout)
    content = bytearray((folder / "views.npy").read_bytes())
    content[-100] ^= 16
    (folder / "views.npy").write_bytes(content)
    cache = ViewCache(folder)
    assert cache[images[0]].shape == (9, *SIZE, 3)  # the others are as good as before
    for _ in range(2):
        with pytest.raises(DataError, match=r"views of 2\.png are damaged. Remove .*cache and run the same command"):
            cache[images[2]]
    build(tmp_path, images, layout)
    assert ViewCache(folder)[images[2]].shape == (9, *SIZE, 3)


def test_damage_is_found_when_the_cache_is_opened(tmp_path: Path, images: list[str]) -> None:
    folder = build(tmp_path, images)
    with pytest.raises(DataError, match=r"holds no image 'other\.png'"):
        ViewCache(folder)["other.png"]
    pixels = (folder / "views.npy").read_bytes()
    (folder / "views.npy").write_bytes(pixels[:-1])
    with pytest.raises(DataError, match=r"is not what index\.json says"):
        ViewCache(folder)
    (folder / "views.npy").unlink()
    with pytest.raises(DataError, match=r"views\.npy is missing"):
        ViewCache(folder)
    index = json.loads((folder / "index.json").read_text())
    for damaged in ("{", "[]", "{}", json.dumps({**index, "version": 1}), json.dumps({**index, "images": {"a": {}}})):
        (folder / "index.json").write_text(damaged)
        with pytest.raises(DataError, match=r"(damaged|version).* Remove .* and run the same command again"):
            ViewCache(folder)


def test_old_caches_go_where_all_are_too_large(tmp_path: Path, images: list[str]) -> None:
    """The longest unused first, those of the present run never; opening one counts as use."""
    root = tmp_path / "views"
    for number, name in enumerate("abcd"):
        build_view_cache(images[:1], VIEWS, SIZE, root / name, progress=False, root=tmp_path)
        os.utime(root / name, (1000 + number, 1000 + number))
    ViewCache(root / "b")
    assert [cache.path.name for cache in view_caches(root)] == ["a", "c", "d", "b"]
    size = view_caches(root)[0].size
    assert size > 9 * 12 * 16 * 3

    def never() -> set[str]:
        raise AssertionError("nobody needs to know what stays")

    assert remove_unused(root, 4 * size, never) == []
    assert [cache.path.name for cache in remove_unused(root, 3 * size - 1, lambda: {"a"})] == ["c", "d"]
    assert sorted(path.name for path in root.iterdir()) == ["a", "b"]
    assert [cache.path.name for cache in remove_unused(root, 0, lambda: {"a", "e"})] == ["b"]
    assert remove_unused(tmp_path / "absent", 0, never) == []
