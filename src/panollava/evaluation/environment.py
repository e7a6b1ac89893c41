"""What this machine has and lacks: the table of `panollava check-env` and the one command that completes it.

Versions come from package metadata; torch is imported only where the caller asks for CUDA's state, since that costs
seconds. A check that is not `required` switches something off (a metric, the GPU) and nothing else.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import Any

from panollava.bytecode import remedy, why_compiled_anew
from panollava.evaluation.metrics import METRICS
from panollava.evaluation.metrics.java import find_java, java_version
from panollava.evaluation.metrics.result import MetricUnavailable
from panollava.evaluation.metrics.spice_parts import REMEDY as SETUP_METRICS
from panollava.evaluation.metrics.spice_parts import missing_parts, spice_folder
from panollava.evaluation.metrics.wordnet import DEBIAN_FOLDER, missing_debian_files, wordnet_source
from panollava.versions import package_version

MINIMUM_PYTHON = (3, 11)
JAVA_PACKAGE = "default-jre-headless"
WORDNET_PACKAGES = ("wordnet-base", "wordnet-sense-index")
# Used where panollava's own metadata is absent (a source tree on the path).
_CORE = ("lightning", "nltk", "numpy", "peft", "pycocoevalcap", "rouge-score", "sacrebleu", "snakemake")


@dataclass(frozen=True)
class Check:
    """One line of check-env. `found` is what is there ("" when nothing), `remedy` what brings it ("" when ok)."""

    name: str
    needed_for: str
    ok: bool
    found: str
    remedy: str = ""
    required: bool = False
    system_packages: tuple[str, ...] = ()


def check_environment(import_torch: bool = False) -> list[Check]:
    """Every check, in the order of the table. `import_torch` also asks torch for CUDA (seconds)."""
    checks = [_python(), _core_packages(), _java(), _wordnet(), _spice(), _torch(import_torch), _bytecode()]
    return [*checks, _flash_attention()]


def install_command(checks: Sequence[Check]) -> str | None:
    """The one command that installs what metrics lack on this machine (SPICE's jars by setup-metrics), or None.

    Debian and Ubuntu: apt-get, with sudo where the user is not root. Where there is no apt-get the command for
    the system's packages cannot be known; `install_advice` says so in words.
    """
    parts = []
    packages = [name for check in checks for name in check.system_packages]
    if packages and shutil.which("apt-get"):
        sudo = "" if os.geteuid() == 0 else "sudo "
        parts.append(f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {' '.join(packages)}")
    core = next((check for check in checks if check.name == "core packages"), None)
    if core is not None and not core.ok:
        parts.append(core.remedy)
    return " && ".join(parts) or None


def install_advice(checks: Sequence[Check]) -> str:
    """What to do about everything that is missing, as lines of text; "" when nothing is."""
    lines = []
    if command := install_command(checks):
        lines.append(f"Install what is missing:\n  {command}")
    packages = [name for check in checks for name in check.system_packages]
    if packages and not shutil.which("apt-get"):
        lines.append(
            f"This system has no apt-get. Install by its own means what Debian calls {', '.join(packages)}: Java 11 or "
            f"later on PATH, and WordNet 3.0 (python -m nltk.downloader wordnet, or its files in {DEBIAN_FOLDER})."
        )
    spice = next((check for check in checks if check.name == "SPICE"), None)
    if spice is not None and not spice.ok:
        lines.append("SPICE (386 MB):\n  panollava setup-metrics")
    return "\n".join(lines)


def environment_lines(checks: Sequence[Check]) -> list[str]:
    """The table as text: `✓ Java 17.0.15` and `✗ WordNet (METEOR): not found | remedy`."""
    lines = []
    for check in checks:
        if check.ok:
            lines.append(f"✓ {check.name}: {check.found}")
        else:
            mark = "✗" if check.required else "–"
            name = check.name if check.name == check.needed_for else f"{check.name} ({check.needed_for})"
            lines.append(f"{mark} {name}: {check.found or 'not found'} | {check.remedy}")
    return lines


def environment_json(checks: Sequence[Check]) -> dict[str, Any]:
    """The document of `panollava check-env --json`; `ok` is False when a required part is missing."""
    return {
        "ok": all(check.ok for check in checks if check.required),
        "checks": [
            {key: value for key, value in asdict(check).items() if key != "system_packages"} for check in checks
        ],
        "install_command": install_command(checks),
        "advice": install_advice(checks),
    }


def _python() -> Check:
    ok = sys.version_info[:2] >= MINIMUM_PYTHON
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    return Check(
        name="Python",
        needed_for="everything",
        ok=ok,
        found=platform.python_version(),
        remedy="" if ok else f"install Python {wanted} or later and make a new virtual environment with it",
        required=True,
    )


def _core_packages() -> Check:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    try:
        lines = requires("panollava") or []
        distribution("panollava")
    except ModuleNotFoundError:
        lines = list(_CORE)
    wanted = [Requirement(line) for line in lines]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    missing = []
    for one in wanted:
        found = package_version(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            missing.append(f"{canonicalize_name(one.name)}{one.specifier}")
    return Check(
        name="core packages",
        needed_for="everything",
        ok=not missing,
        found=f"{len(wanted) - len(missing)} of {len(wanted)}" + (f", not {', '.join(missing)}" if missing else ""),
        remedy="" if not missing else f"{sys.executable} -m pip install {' '.join(repr(one) for one in missing)}",
        required=True,
    )


def _java() -> Check:
    found = java_version()
    broken = find_java() if found is None else None
    return Check(
        name="Java",
        needed_for=", ".join(one.label for one in METRICS.values() if one.java != "not"),
        ok=found is not None,
        found=found or (f"{broken}, which does not start" if broken else ""),
        remedy="" if found else f"apt-get install {JAVA_PACKAGE}",
        system_packages=() if found else (JAVA_PACKAGE,),
    )


def _wordnet() -> Check:
    source = wordnet_source()
    packages: tuple[str, ...] = () if source else WORDNET_PACKAGES
    if packages and "index.sense" not in missing_debian_files():
        packages = WORDNET_PACKAGES[:1]
    elif packages and missing_debian_files() == ["index.sense"]:
        packages = WORDNET_PACKAGES[1:]
    return Check(
        name="WordNet 3.0",
        needed_for="METEOR",
        ok=source is not None,
        found=source or "",
        remedy="" if source else f"apt-get install {' '.join(packages)}",
        system_packages=packages,
    )


def _spice() -> Check:
    try:
        missing = missing_parts()
    except MetricUnavailable as error:
        missing = [str(error)]
    return Check(
        name="SPICE",
        needed_for="SPICE",
        ok=not missing,
        found=str(spice_folder()) if not missing else f"lacks {', '.join(missing)}",
        remedy="" if not missing else SETUP_METRICS,
    )


def _bytecode() -> Check:
    why = why_compiled_anew()
    return Check(
        name="bytecode",
        needed_for="jobs that start in seconds",
        ok=why is None,
        found=why or "written once",
        remedy="" if why is None else remedy(),
    )


def _torch(import_torch: bool) -> Check:
    found = package_version("torch") or ""
    if found and import_torch:
        import torch

        if torch.cuda.is_available():
            found += f", CUDA {torch.version.cuda} on {torch.cuda.get_device_name(0)}"
        else:
            found += ", no CUDA device"
    elif found:
        found += ", NVIDIA driver present" if Path("/proc/driver/nvidia/version").exists() else ", no NVIDIA driver"
    return Check(
        name="torch",
        needed_for="training and prediction",
        ok=bool(found),
        found=found,
        remedy="" if found else f"{sys.executable} -m pip install torch",
        required=True,
    )


def _flash_attention() -> Check:
    """FlashAttention is of use on a GPU only; without a GPU its absence is no fault."""
    found = package_version("flash-attn")
    gpu = Path("/proc/driver/nvidia/version").exists()
    return Check(
        name="FlashAttention",
        needed_for="faster attention on a GPU",
        ok=found is not None or not gpu,
        found=found or ("" if gpu else "not needed without a GPU"),
        remedy="" if found or not gpu else f"{sys.executable} -m pip install flash-attn --no-build-isolation",
    )
