"""A custom metric's digest: its module, and all of the project that it imports."""

from __future__ import annotations

from pathlib import Path

import pytest

from panollava.config import ConfigError
from panollava.config.own_code import code_digest
from panollava.files import sha256_file

FILES = {
    "metric.py": "import json\nfrom helpers.words import count\nimport deep\n\ndef score(*_):\n    import late\n",
    "helpers/__init__.py": "",
    "helpers/words.py": "from . import signs\nfrom .inner.one import x\n",
    "helpers/signs.py": "MARKS = '.,'\n",
    "helpers/inner/__init__.py": "",
    "helpers/inner/one.py": "from ..up import y\nx = 1\n",
    "helpers/up.py": "import metric  # a circle\ny = 1\n",
    "deep.py": "import importlib\nplugin = importlib.import_module('plugin')\n",
    "plugin.py": "",
    "late.py": "",
    "unrelated.py": "",
    "helpers/unrelated.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_an_edited_helper_changes_the_digest(root: Path, name: str) -> None:
    before = code_digest("metric:score", root)
    with (root / name).open("a") as stream:
        stream.write("changed = True\n")
    assert (code_digest("metric:score", root) != before) == ("unrelated" not in name)
    (root / name).write_text(FILES[name])
    assert code_digest("metric:score", root) == before


def test_a_module_without_helpers_has_the_digest_of_its_file(root: Path) -> None:
    assert code_digest("unrelated:score", root) == sha256_file(root / "unrelated.py")
    (root / "broken.py").write_text("def (")
    assert code_digest("broken:score", root) == sha256_file(root / "broken.py")  # it fails where it is run
    assert code_digest("json:dumps", root) is None
    with pytest.raises(
        ConfigError, match=r"there is no nothing_at_all/here\.py .* no installed package nothing_at_all"
    ):
        code_digest("nothing_at_all.here:score", root)
