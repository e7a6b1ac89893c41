"""Other pictures of the sphere as equirectangular panoramas: cube maps, dual-fisheye frames, perspective photographs.

Conventions, held by tests: a cube's face is what a camera inside sees (front at yaw 0, right at yaw 90; up has the
front's edge at its bottom, down at its top). A strip has the faces in the order front, right, back, left, up, down; a
dice is the cross with up above and down below the second of its four columns, left, front, right, back. A dual-fisheye
frame has the lens that looks forward on its left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from panollava.errors import DataError
from panollava.files import atomic_path
from panollava.views.geometry import angles_to_rays, erp_to_rays, project, unproject
from panollava.views.gpano import NAMESPACE
from panollava.views.sphere import GREY
from panollava.views.strategies import View, plan_views

Pixels = NDArray[np.uint8]
Source = Literal["cubemap", "dual_fisheye", "perspective"]
SOURCES: tuple[str, ...] = get_args(Source)
FACES = "FRBLUD"
"""Front, right, back, left, up, down."""
_WORDS = {
    "F": ("front", "f", "pz", "posz"), "R": ("right", "r", "px", "posx"), "B": ("back", "b", "nz", "negz"),
    "L": ("left", "l", "nx", "negx"), "U": ("up", "top", "u", "py", "posy"), "D": ("down", "bottom", "d", "ny", "negy"),
}  # fmt: skip
_DICE = {"U": (0, 1), "L": (1, 0), "F": (1, 1), "R": (1, 2), "B": (1, 3), "D": (2, 1)}
_BAND_ROWS = 256
"""Rows of a panorama that are converted at once: rays of a whole large one would take gigabytes."""
_LINE = 4096


def faces_of(pictures: Sequence[tuple[str, Pixels]], order: str = FACES) -> dict[str, Pixels]:
    """The six faces of a strip (6:1), a dice (4:3) or six files named for their faces, by letter.

    `order` is that of the faces in a strip. Raises DataError for what is none of these.
    """
    if sorted(order) != sorted(FACES):
        raise DataError(f"the order of faces names each of {FACES} once, got {order!r}")
    if len(pictures) == 6:
        faces = {_face_of(name): pixels for name, pixels in pictures}
        if len(faces) < 6:
            raise DataError(f"two files name the same face: {', '.join(name for name, _ in pictures)}")
    elif len(pictures) == 1:
        name, pixels = pictures[0]
        height, width = pixels.shape[:2]
        if width == 6 * height:
            faces = {face: pixels[:, place * height : (place + 1) * height] for place, face in enumerate(order)}
        elif 3 * width == 4 * height and width % 4 == 0:
            side = width // 4
            faces = {
                face: pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
                for face, (row, column) in _DICE.items()
            }
        else:
            raise DataError(
                f"{name}: {width} x {height} pixels are neither a strip of six faces (6:1) nor a dice (4:3)"
            )
    else:
        raise DataError(f"a cube is one file (a strip or a dice) or six, got {len(pictures)}")
    sizes = {face.shape for face in faces.values()}
    if len(sizes) > 1 or any(height != width for height, width, _ in sizes):
        raise DataError(f"a cube's faces are squares of one size, got {sorted(sizes)}")
    return faces


def _face_of(name: str) -> str:
    last = Path(name).stem.replace("-", "_").replace(" ", "_").split("_")[-1].casefold()
    for face, words in _WORDS.items():
        if last in words:
            return face
    endings = "front, right, back, left, up, down or their letters"
    raise DataError(f"{name}: which face is it? Six files end in {endings} (for instance room_front.jpg)")


def from_cubemap(faces: Mapping[str, Pixels], height: int) -> Pixels:
    """The panorama [H, 2H, 3] of six faces: each pixel shows, bilinearly, what lies where its centre looks."""
    views = dict(zip(FACES, plan_views("cubemap"), strict=True))
    bordered = [_bordered(faces, views, face) for face in FACES]
    panorama = np.empty((height, 2 * height, 3), np.uint8)
    for top in range(0, height, _BAND_ROWS):
        rays = _rays(height, top, min(top + _BAND_ROWS, height))
        nearest = _nearest(views, rays)
        for index, face in enumerate(FACES):
            here = nearest == index
            if here.any():
                x, y = _face_pixels(views[face], rays[here], faces[face].shape[0])
                panorama[top : top + _BAND_ROWS][here] = _sample(bordered[index], x + 1, y + 1)
    return panorama


def _nearest(views: Mapping[str, View], rays: NDArray[np.float64]) -> NDArray[np.intp]:
    """The place in `views` of the face [...] that each ray [..., 3] meets."""
    yaw_deg = np.array([view.yaw_deg for view in views.values()])
    pitch_deg = np.array([view.pitch_deg for view in views.values()])
    return np.argmax(rays @ angles_to_rays(yaw_deg, pitch_deg).T, axis=-1)


def _face_pixels(view: View, rays: NDArray[np.float64], side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where rays [..., 3] meet a face of `side` pixels: column and row [...], whole numbers at pixel centres."""
    uv, _ = project(view, rays)
    return ((uv[..., 0] + 1) * side - 1) / 2, ((uv[..., 1] + 1) * side - 1) / 2


def _bordered(faces: Mapping[str, Pixels], views: Mapping[str, View], face: str) -> Pixels:
    """A face with one pixel more on each side, as its neighbours show it: across an edge, too, pixels are blended."""
    side = faces[face].shape[0]
    whole = np.pad(faces[face], ((1, 1), (1, 1), (0, 0)), mode="edge")
    rim = np.ones(whole.shape[:2], np.bool_)
    rim[1:-1, 1:-1] = False
    rows, columns = np.nonzero(rim)
    rays = unproject(views[face], np.stack([(2 * columns - 1) / side - 1, (2 * rows - 1) / side - 1], axis=-1))
    nearest = _nearest(views, rays)
    for index, other in enumerate(FACES):
        here = nearest == index
        x, y = (np.clip(np.rint(at), 0, side - 1).astype(int) for at in _face_pixels(views[other], rays[here], side))
        whole[rows[here], columns[here]] = faces[other][y, x]
    return whole


def _sample(pixels: Pixels, x: NDArray[np.float64], y: NDArray[np.float64]) -> Pixels:
    """Pixels [N, 3] at columns and rows [N]; in lines of _LINE, for OpenCV takes no more than 32,767 of anything."""
    shape = (-(-x.size // _LINE), _LINE)
    map_x, map_y = (np.resize(at, shape).astype(np.float32) for at in (x, y))
    seen = cv2.remap(pixels, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, np.uint8).reshape(-1, 3)[: x.size]


def from_dual_fisheye(frame: Pixels, height: int, lens_fov_deg: float = 190.0) -> Pixels:
    """The panorama [H, 2H, 3] of two fisheye discs side by side: equidistant lenses back to back, each disc as large
    as its half of the frame. Where both see a direction, they are blended by how far they look aside."""
    if frame.shape[1] != 2 * frame.shape[0]:
        raise DataError(f"a dual-fisheye frame is 2:1, got {frame.shape[1]} x {frame.shape[0]} pixels")
    if not 180 <= lens_fov_deg < 360:
        raise DataError(f"the lenses' field of view is in [180, 360) degrees, got {lens_fov_deg:g}")
    side = frame.shape[0]
    rays = _rays(height)
    total, weights = np.zeros((height, 2 * height, 3)), np.zeros((height, 2 * height, 1))
    for half, forward in ((frame[:, :side], 1.0), (frame[:, side:], -1.0)):
        x, y, z = rays[..., 0] * forward, rays[..., 1], rays[..., 2] * forward
        angle_deg = np.degrees(np.arccos(np.clip(z, -1, 1)))
        radius = angle_deg / (lens_fov_deg / 2) * side / 2
        aside = np.maximum(np.hypot(x, y), 1e-12)
        map_x, map_y = side / 2 + radius * x / aside - 0.5, side / 2 - radius * y / aside - 0.5
        seen = cv2.remap(half, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR,
                         borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
        weight = np.clip((lens_fov_deg / 2 - angle_deg) / max(lens_fov_deg - 180, 1e-3), 0, 1)[..., None]
        total, weights = total + seen * weight, weights + weight
    return np.rint(total / np.maximum(weights, 1e-12)).astype(np.uint8)


def from_perspective(
    photo: Pixels, height: int, hfov_deg: float, yaw_deg: float = 0.0, pitch_deg: float = 0.0
) -> tuple[Pixels, tuple[int, int, int, int]]:
    """The panorama [H, 2H, 3] of a pinhole photograph, grey where it does not look, and the box (left, top, right,
    bottom) in it that holds the photograph."""
    if not 0 < hfov_deg < 180:
        raise DataError(f"a photograph's horizontal field of view is in (0, 180) degrees, got {hfov_deg:g}")
    rows, columns = photo.shape[:2]
    vfov_deg = float(np.degrees(2 * np.arctan(np.tan(np.radians(hfov_deg) / 2) * rows / columns)))
    uv, valid = project(View("perspective", yaw_deg, pitch_deg, hfov_deg, vfov_deg), _rays(height))
    map_x, map_y = ((uv[..., 0] + 1) * columns - 1) / 2, ((uv[..., 1] + 1) * rows - 1) / 2
    seen = cv2.remap(photo, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)  # fmt: skip
    panorama = np.where(valid[..., None], seen, np.uint8(GREY)).astype(np.uint8)
    down, across = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    return panorama, (int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1)


def _rays(height: int, top: int = 0, bottom: int | None = None) -> NDArray[np.float64]:
    rows = np.arange(top, height if bottom is None else bottom, dtype=np.float64)
    x, y = np.meshgrid(np.arange(2 * height, dtype=np.float64), rows)
    return erp_to_rays(x, y, height, 2 * height)


def save_panorama(panorama: Pixels, path: Path, box: tuple[int, int, int, int] | None = None) -> None:
    """Write a PNG whose GPano metadata say that it is equirectangular, and with `box` which part of it is."""
    said = {"ProjectionType": "equirectangular"}
    if box is not None:
        left, top, right, bottom = box
        said |= {
            "FullPanoWidthPixels": str(panorama.shape[1]), "FullPanoHeightPixels": str(panorama.shape[0]),
            "CroppedAreaLeftPixels": str(left), "CroppedAreaTopPixels": str(top),
            "CroppedAreaImageWidthPixels": str(right - left), "CroppedAreaImageHeightPixels": str(bottom - top),
        }  # fmt: skip
        panorama = panorama[top:bottom, left:right]
    listed = " ".join(f'GPano:{name}="{value}"' for name, value in said.items())
    text = PngImagePlugin.PngInfo()
    text.add_itxt(
        "XML:com.adobe.xmp",
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:GPano="{NAMESPACE}" {listed}/></rdf:RDF></x:xmpmeta>',
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        Image.fromarray(np.ascontiguousarray(panorama)).save(partial, format="PNG", pnginfo=text)
