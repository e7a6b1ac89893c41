"""The view cache in the DAG: damage is told and mended by the remedy; old caches go."""

from __future__ import annotations

import re
import shutil

import pytest
import yaml
from conftest import Project
from plans import plan

pytestmark = pytest.mark.workflow


def test_damage_is_told_and_the_remedy_mends_it(local: Project) -> None:
    """Meanwhile the limit of the whole cache takes what no experiment of the run reads, and nothing else."""
    caches = sorted((local.root / "cache/views").iterdir())
    before = {cache.name: (cache / "views.npy").read_bytes() for cache in caches}
    for cache in caches:
        (cache / "views.npy").write_bytes(before[cache.name][:-1000] + bytes(1000))
    local.configure({"generation.max_new_tokens": 5})
    done = local.panollava("run", "LOCAL", check=False)
    told = re.search(r"the views of \S+ are damaged\. Remove (cache/views/\w+) and run the same command", done.stderr)
    assert done.returncode == 1 and told and "Traceback" not in done.stderr, done.stderr[-3000:]

    shutil.copytree(caches[0], local.root / "cache/views/0123456789abcdef", dirs_exist_ok=True)
    shutil.rmtree(local.root / told[1])
    default = local.root / "config/default.yaml"
    document = yaml.safe_load(default.read_text(encoding="utf-8"))
    document["workflow"]["view_caches_gib"] = 0
    default.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert plan(local) == {"cache_views": 1, "predict": 1, "compute_metrics": 1}  # what was made from it stays
    again = local.panollava("run", "LOCAL")
    assert again.stderr.count("removed cache/views/") == 1 and "removed cache/views/0123456789abcdef" in again.stderr
    assert sorted(path.name for path in (local.root / "cache/views").iterdir()) == sorted(before)
    assert (local.root / told[1] / "views.npy").read_bytes() == before[told[1].rpartition("/")[2]]
    assert plan(local) == {}
