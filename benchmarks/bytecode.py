"""A training job's imports with and without Python's bytecode caches: CPU seconds of a process.

    python benchmarks/bytecode.py --runs 5

Without means: as in an image that nobody compiled and that may not be written (PYTHONDONTWRITEBYTECODE).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from side_by_side import THIS, alternate, compiled, cost

JOB, SMALL = "import panollava.training.job", "import numpy"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="the imports of numpy alone, once")
    given = parser.parse_args()
    if not given.smoke:
        compiled(THIS)
    command = [sys.executable, "-c", SMALL if given.smoke else JOB]
    with tempfile.TemporaryDirectory() as empty:
        without = {"PYTHONPYCACHEPREFIX": empty, "PYTHONDONTWRITEBYTECODE": "1"}
        found = alternate(
            {
                "compiled once": lambda: cost(command, Path(empty)),
                "compiled anew": lambda: cost(command, Path(empty), env=without),
            },
            1 if given.smoke else given.runs,
            warm=not given.smoke,
        )
    for name, one in found.items():
        print(f"{name:<14} {one.cpu_s:6.2f} CPU s")
    print(f"ratio {found['compiled anew'].cpu_s / found['compiled once'].cpu_s:.1f}")


if __name__ == "__main__":
    main()
