"""`prepare --from`: files of cube maps, dual-fisheye frames or photographs become files of panoramas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from panollava.errors import DataError
from panollava.files import refuse_overwriting
from panollava.logs import LOGGER
from panollava.views.conversion import (
    FACES,
    SOURCES,
    faces_of,
    from_cubemap,
    from_dual_fisheye,
    from_perspective,
    save_panorama,
)
from panollava.views.panorama import load_picture


def convert_files(
    kind: str,
    files: Sequence[Path],
    output_dir: Path,
    *,
    height: int | None = None,
    faces: str = FACES,
    fov_deg: float | None = None,
    yaw_deg: float = 0.0,
    pitch_deg: float = 0.0,
) -> list[Path]:
    """Write OUTPUT_DIR/NAME.png for each picture (six files of a cube are one); the paths written.

    `height` of the panorama in pixels is by default as fine as the source. `fov_deg` is that of a photograph
    (horizontally; it must be given) or of each fisheye lens (190). Raises DataError.
    """
    if kind not in SOURCES:
        raise DataError(f"--from is one of {', '.join(SOURCES)}, got {kind!r}")
    six = kind == "cubemap" and len(files) == 6
    groups = [list(files)] if six else [[file] for file in files]
    outputs = [output_dir / f"{_name(group)}.png" for group in groups]
    if len(set(outputs)) < len(outputs):
        raise DataError(f"two files would be written to one name in {output_dir}: rename one of them")
    refuse_overwriting(outputs, list(files))
    for group, output in zip(groups, outputs, strict=True):
        pictures = [(str(file), load_picture(file)) for file in group]
        box = None
        if kind == "cubemap":
            found = faces_of(pictures, faces)
            panorama = from_cubemap(found, height or 2 * found["F"].shape[0])
        elif kind == "dual_fisheye":
            panorama = from_dual_fisheye(pictures[0][1], height or pictures[0][1].shape[0], fov_deg or 190.0)
        else:
            if fov_deg is None:
                raise DataError("a photograph needs its horizontal field of view: --fov-deg")
            columns = pictures[0][1].shape[1]
            panorama, box = from_perspective(
                pictures[0][1], height or round(columns * 180 / fov_deg), fov_deg, yaw_deg, pitch_deg
            )
        save_panorama(panorama, output, box)
        LOGGER.info("%s: %s", ", ".join(str(file) for file in group), output)
    return outputs


def _name(group: Sequence[Path]) -> str:
    if len(group) == 1:
        return group[0].stem
    stem = group[0].stem
    return stem[: max(stem.rfind(mark) for mark in "_- ")] if any(mark in stem for mark in "_- ") else "cubemap"
