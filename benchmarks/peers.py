"""Other people's libraries, for a benchmark that compares with them: in an environment of their own, thrown away."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

NOT_INSTALLED = 75  # EX_TEMPFAIL


def run_with(package: str, requirements: Sequence[str]) -> None:
    """Return at once where `package` can be imported; else run this script again, with the same arguments, where
    `requirements` are installed beside what is installed here, and exit with its status, or with NOT_INSTALLED.

    Nothing here changes: the packages come from the index into a temporary environment, without their dependencies,
    which are to be named too where this environment lacks them.
    """
    if importlib.util.find_spec(package) is not None:
        return
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{Path(sys.base_prefix) / 'bin'}") or shutil.which(
            "uv"
        )
        venv.create(folder, with_pip=uv is None)
        python = Path(folder) / "bin/python"
        install = [uv, "pip", "install", "--python", str(python)] if uv else [str(python), "-m", "pip", "install"]
        if subprocess.run([*install, "--quiet", "--no-deps", *requirements]).returncode:
            print(f"{package} could not be installed from the package index", file=sys.stderr)
            sys.exit(NOT_INSTALLED)
        (there,) = Path(folder).glob("lib/python*/site-packages")
        (there / "base.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
        sys.exit(subprocess.run([str(python), *sys.argv]).returncode)
