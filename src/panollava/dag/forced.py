"""Jobs that a command asks for although nothing about them is stale: snakemake's -F, -f and -R.

The command has a name, which its jobs are given, on a cluster too: a training that was asked for anew begins once, and
goes on after an interruption instead of beginning again.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from functools import cache
from typing import Any

VARIABLE = "PANOLLAVA_FORCED"


def hand_on(settings: Any) -> None:
    """Leave to all jobs of this command what it asks for anew.

    Args:
        settings: Snakemake's `dag_settings`.
    """
    names = {str(one) for one in settings.forcerun}
    names |= {str(one) for one in settings.targets if settings.forcetargets}
    asked = {"command": uuid.uuid4().hex, "all": settings.forceall, "names": sorted(names)}
    os.environ[VARIABLE] = json.dumps(asked)
    _asked.cache_clear()


def forced_by(rule: str, outputs: Iterable[str]) -> str | None:
    """The name of the command, if it asks for the job of this rule with these outputs anew."""
    asked = _asked()
    anew = bool(asked) and (asked["all"] or bool({rule, *outputs} & {*asked["names"]}))
    return asked["command"] if anew else None


@cache
def _asked() -> dict[str, Any]:
    return json.loads(os.environ.get(VARIABLE, "{}"))
