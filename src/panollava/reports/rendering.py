"""A template of `templates/` and what it shows become one HTML file without links (Jinja, everything escaped)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from panollava.errors import DataError
from panollava.files import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

ABSENT = "–"


@dataclass(frozen=True)
class Picture:
    """A panorama for a page: `source` is a data address, None where it cannot be shown; `note` then says why."""

    source: str | None
    note: str
    width: int = 512

    @property
    def height(self) -> int:
        return self.width // 2


def write_page(template: str, path: Path, **shown: Any) -> None:
    """Render `templates/{template}.html.jinja` and write it, atomically."""
    write_text(path, _environment().get_template(f"{template}.html.jinja").render(shown))


def panorama(path: Path, width: int = 512) -> Picture:
    """The panorama, small; the reason where it cannot be read any more."""
    from PIL import Image

    from panollava.views.panorama import load_panorama

    try:
        image = Image.fromarray(load_panorama(path, min_width=width))
    except DataError as error:  # it was there when it was predicted
        return Picture(None, str(error))
    stream = io.BytesIO()
    image.resize((width, width // 2), Image.Resampling.LANCZOS).save(stream, format="JPEG", quality=80)
    return Picture(f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", path.name, width)


def number(value: float | None, form: str = ".4f") -> str:
    """`0.1234`, a dash where there is none."""
    return ABSENT if value is None else format(value, form)


def between(interval: Sequence[float] | None, form: str = ".4f") -> str:
    """`0.1 to 0.2`, nothing where there is no interval."""
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def probability(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("panollava.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "between": between, "probability": probability}
    return environment
