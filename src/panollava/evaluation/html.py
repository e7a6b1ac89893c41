"""Small self-contained HTML pages: text, tables and pictures enter, one file without links leaves."""

from __future__ import annotations

import base64
import io
from collections.abc import Container, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from panollava.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 1.5rem; max-width: 75rem }
h1 { font-size: 1.3rem; margin: 0 0 .3rem } p { margin: .3rem 0 }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .3rem } summary { cursor: pointer; margin: .5rem 0; font-weight: 600 }
table { border-collapse: collapse; margin: 1rem 0 } .scroll { overflow-x: auto }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #888; white-space: nowrap } tbody tr:hover { background: #f5f5f5 }
tr.first:not(:first-child) td { border-top: 2px solid #aaa }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap } .name { white-space: nowrap }
.best { font-weight: 700 }
.wrap { overflow-wrap: anywhere } .quiet, .below { color: #666; font-weight: 400 } .badge { font-weight: 700 }
.right { color: #176b2c } .wrong { color: #a01c1c }
figure { margin: 0; padding: 1rem 0; border-top: 1px solid #ddd; display: grid; gap: .6rem 1.4rem }
@media (max-width: 50rem) { body { margin: .8rem } th, td { padding: .25rem .4rem; font-size: .85rem } }
@media (min-width: 56rem) { figure { grid-template-columns: 30rem 1fr } }
figure img { display: block; width: 100%; height: auto; border-radius: 4px }
dl { margin: 0; display: grid; grid-template-columns: fit-content(11rem) 1fr; gap: .15rem .8rem }
dl { align-content: start }
dt { color: #666; min-width: 5.5rem; overflow-wrap: anywhere } dd { margin: 0; overflow-wrap: anywhere }
ul { margin: 0; padding-left: 1.1rem }
"""


def page(title: str, *parts: str) -> str:
    """A whole document; `parts` are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def folded(summary: str, content: str, is_open: bool = False) -> str:
    """`content` (HTML) below a line that opens and closes it."""
    return f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>\n{content}\n</details>"


def cell(text: str, kind: str = "", below: str = "") -> str:
    """A table's cell; `kind`: classes of the style sheet, number, name, best, quiet, wrap. `below` is a second line."""
    second = f'<br><span class="below">{escape(below)}</span>' if below else ""
    return f'<td class="{kind}">{escape(text)}{second}</td>' if kind else f"<td>{escape(text)}{second}</td>"


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = (), firsts: Container[int] = ()
) -> str:
    """A table of `cell`s. `numbers` are columns whose head stands to the right, `firsts` rows that begin a group."""
    right = set(numbers)
    head = "".join(
        f'<th class="number">{escape(name)}</th>' if index in right else f"<th>{escape(name)}</th>"
        for index, name in enumerate(header)
    )
    body = "\n".join(
        f"<tr{' class=first' if index in firsts else ''}>{''.join(row)}</tr>" for index, row in enumerate(rows)
    )
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def figure(picture: str, terms: Iterable[tuple[str, str]]) -> str:
    """A picture (HTML) with terms beside it; a term is plain text, what it means is HTML."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in terms)
    return f"<figure>{picture}<dl>{listed}</dl></figure>"


def panorama(path: Path, width: int = 512) -> str:
    """The panorama, small; the reason where it cannot be shown."""
    from PIL import Image

    from panollava.views.panorama import load_panorama

    try:
        image = Image.fromarray(load_panorama(path, min_width=width))
    except DataError as error:  # it was there when it was predicted
        return paragraph(f"picture not shown: {error}", "wrong")
    return picture(image.resize((width, width // 2), Image.Resampling.LANCZOS), path.name)


def picture(image: Image, alt: str) -> str:
    """An <img> that carries its picture as a JPEG."""
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    width, height = image.size
    return f'<img src="data:image/jpeg;base64,{data}" width="{width}" height="{height}" alt="{escape(alt)}">'
