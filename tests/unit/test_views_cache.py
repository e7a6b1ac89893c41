"""The view cache: equal to on-the-fly rendering, whole or absent, cheap to send to workers."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from panollava.errors import DataError
from panollava.views.cache import ViewCache, available_cores, build_view_cache
from panollava.views.render import open_views
from panollava.views.strategies import plan_views

VIEWS = plan_views("anyres_e2p")
SIZE = (12, 16)


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = []
    for index, suffix in enumerate(("png", "jpg", "png")):
        height = 32 * (index + 1)
        Image.fromarray(rng.integers(0, 256, (height, 2 * height, 3), np.uint8)).save(tmp_path / f"{index}.{suffix}")
        paths.append(f"{index}.{suffix}")
    return paths


def build(tmp_path: Path, images: list[str]) -> Path:
    build_view_cache(images, VIEWS, SIZE, True, tmp_path / "cache", progress=False, root=tmp_path)
    return tmp_path / "cache"


def test_cached_views_equal_rendered_ones_to_the_byte(tmp_path: Path, images: list[str]) -> None:
    cache = ViewCache.open(build(tmp_path, [*images, images[0]]))
    assert list(cache) == images
    assert len(cache) == 3
    assert cache.views == VIEWS
    assert cache.image_size == SIZE
    for path in images:
        assert path in cache
        np.testing.assert_array_equal(cache[path], open_views(tmp_path / path, VIEWS, SIZE))
        assert cache.sha256[path] == hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
    np.testing.assert_array_equal(np.load(cache.folder / "views.npy")[2], cache[images[2]])


def test_bytes_are_the_same_however_many_threads_build(
    tmp_path: Path, images: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for threads in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert available_cores() == int(threads)
        folder = build(tmp_path, images)
        written.append([(folder / name).read_bytes() for name in ("views.npy", "index.json")])
    assert written[0] == written[1]


def test_a_pickled_cache_opens_its_folder_again(tmp_path: Path, images: list[str]) -> None:
    cache = ViewCache(build(tmp_path, images))
    content = pickle.dumps(cache)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content)[images[1]], cache[images[1]])


def test_a_failed_build_leaves_no_cache_and_no_older_one(tmp_path: Path, images: list[str]) -> None:
    folder = build(tmp_path, images)
    (tmp_path / images[1]).write_bytes((tmp_path / images[1]).read_bytes()[:200])
    with pytest.raises(DataError, match=r"1\.jpg: truncated"):
        build(tmp_path, images)
    with pytest.raises(DataError, match="is no view cache"):
        ViewCache(folder)
    assert not list(folder.glob(".*partial"))


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
    (folder / "index.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        ViewCache(folder)
