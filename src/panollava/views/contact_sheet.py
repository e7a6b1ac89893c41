"""Draw a panorama and its views on one contact sheet, and write the files of `panollava views`.

On top the panorama with each view's border, drawn through the same directions that rendering uses: a wrong yaw or a
mirrored axis shows at once. Below it the views in their order, each framed in its border's colour.
"""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from panollava.files import atomic_path, refuse_overwriting, write_json
from panollava.views.geometry import rays_to_erp, unproject
from panollava.views.panorama import Pixels, place_panorama, read_image, warn_if_unstitched
from panollava.views.render import open_views
from panollava.views.rendering import Rendering
from panollava.views.strategies import View

_SHEET_WIDTH = 1280
_GAP = 12
_LABEL_HEIGHT = 26
_COLUMNS = (3, 4, 5)
_BACKGROUND, _INK = (255, 255, 255), (20, 20, 20)


def write_views(
    image_path: str | Path,
    views: Sequence[View],
    image_size: tuple[int, int],
    rendering: Rendering,
    output_dir: str | Path,
) -> None:
    """Write view_00.png …, views.json and contact_sheet.png. Raises PanoramaError.

    views.json lists `{"file", "kind", "yaw_deg", "pitch_deg", "fov_deg", "coverage"}`; `coverage` in [0, 1] is the
    share of the view that the file's picture covers. Views left by an earlier call are removed.
    """
    rendered = open_views(image_path, views, image_size, rendering)
    opened = place_panorama(read_image(image_path), image_path, _SHEET_WIDTH, **rendering.pose)
    panorama, coverage = opened.pixels, opened.placement.coverage(views)
    warn_if_unstitched(panorama, image_path)
    folder = Path(output_dir)
    names = [f"view_{index:02d}.png" for index in range(len(views))]
    earlier = [path for path in folder.glob("view_*.png") if re.fullmatch(r"view_\d{2,}\.png", path.name)]
    refuse_overwriting([*(folder / name for name in (*names, "contact_sheet.png")), *earlier], [image_path])
    folder.mkdir(parents=True, exist_ok=True)
    for old in earlier:
        if old.name not in names:
            old.unlink()
    for name, pixels in zip(names, rendered, strict=True):
        _save(pixels, folder / name)
    _save(contact_sheet(panorama, views, rendered), folder / "contact_sheet.png")
    keys = ("kind", "yaw_deg", "pitch_deg", "fov_deg")
    entries = [
        {"file": name, **{key: view.to_json()[key] for key in keys}, "coverage": round(share, 4)}
        for name, view, share in zip(names, views, coverage, strict=True)
    ]
    write_json(folder / "views.json", entries)


def contact_sheet(panorama: Pixels, views: Sequence[View], rendered: Pixels) -> Pixels:
    """The sheet, uint8 [h, 1280, 3], of a panorama [H, W, 3] and its `views` as `rendered` [V, h, w, 3]."""
    columns = min(_COLUMNS, key=lambda count: (-len(views) % count, -count))  # no gaps, then few rows
    cell_width = (_SHEET_WIDTH - _GAP) // columns - _GAP
    cell_height = round(cell_width * rendered.shape[1] / rendered.shape[2])
    top_width = _SHEET_WIDTH - 2 * _GAP
    top_height = top_width // 2
    rows = math.ceil(len(views) / columns)
    sheet_height = _GAP + top_height + _GAP + rows * (_LABEL_HEIGHT + cell_height + _GAP)

    sheet = Image.new("RGB", (_SHEET_WIDTH, sheet_height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=16)
    sheet.paste(_outlined(panorama, views, (top_width, top_height)), (_GAP, _GAP))
    for index, (view, pixels) in enumerate(zip(views, rendered, strict=True)):
        row, column = divmod(index, columns)
        left = _GAP + column * (cell_width + _GAP)
        top = _GAP + top_height + _GAP + row * (_LABEL_HEIGHT + cell_height + _GAP)
        draw.text((left, top + 3), _label(index, view), fill=_INK, font=font)
        picture = Image.fromarray(pixels).resize((cell_width, cell_height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top + _LABEL_HEIGHT))
        right, bottom = left + cell_width - 1, top + _LABEL_HEIGHT + cell_height - 1
        draw.rectangle((left, top + _LABEL_HEIGHT, right, bottom), outline=_colour(index), width=3)
    return np.array(sheet)


def _outlined(panorama: Pixels, views: Sequence[View], size: tuple[int, int]) -> Image.Image:
    width, height = size
    picture = Image.fromarray(panorama).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size=15)
    for index, view in enumerate(views):
        if view.kind == "global":  # its border is the picture's own
            continue
        x, y = rays_to_erp(unproject(view, _border(0.99 - 0.02 * (index % 3))), height, width)
        points = np.stack([x, y], axis=-1)
        for start, end in pairwise(points):
            if abs(end[0] - start[0]) < width / 2:  # not across the seam
                draw.line((*start, *end), fill=_colour(index), width=2)
    for index, view in enumerate(views):  # last, so that no border hides a number
        if view.kind == "global":
            continue
        x, y = rays_to_erp(unproject(view, np.zeros((1, 2))), height, width)
        left, top = min(max(float(x[0]), 14), width - 14), min(max(float(y[0]), 14), height - 14)
        draw.ellipse((left - 12, top - 12, left + 12, top + 12), fill=_colour(index), outline=_INK)
        draw.text((left, top), str(index), fill=_INK, font=font, anchor="mm")
    return picture


def _border(inset: float, steps: int = 128) -> NDArray[np.float64]:
    """Normalised image coordinates [4 * steps + 1, 2] along a view's border and back to the start.

    `inset` < 1 moves it inwards, so that borders which coincide (a tile's edge, the next but one's) stay apart.
    """
    along = np.linspace(-1, 1, steps, endpoint=False)
    one = np.ones(steps)
    sides = [(along, -one), (one, along), (-along, one), (-one, -along)]
    border = np.concatenate([np.stack(side, axis=-1) for side in sides])
    return inset * np.concatenate([border, border[:1]])


def _label(index: int, view: View) -> str:
    if view.kind == "global":
        return f"{index}: global"
    pitch = f", pitch {round(view.pitch_deg, 1):g}°" if view.pitch_deg else ""
    return f"{index}: {view.kind}, yaw {round(view.yaw_deg, 1):g}°{pitch}"


def _colour(index: int) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb((index * 0.381966) % 1.0, 0.65, 1.0)  # neighbours get distant hues
    return round(255 * red), round(255 * green), round(255 * blue)


def _save(pixels: Pixels, path: Path) -> None:
    with atomic_path(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG")
