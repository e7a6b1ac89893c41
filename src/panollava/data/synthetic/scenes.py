"""A small world of coloured solids around a camera, drawn by casting rays.

Draws a scene from a random generator, then computes for unit rays the scene's colours and which solid each ray meets.
One `render` draws equirectangular panoramas and perspective views alike, because a picture is nothing but its rays;
nothing here knows what a pixel is. Shadows, reflections and textures were traded away for milliseconds. Axes as
everywhere: x right, y up, z forward; yaw 0 is forward, positive to the right.

Pictures must be the same bytes on every machine, so rendering uses only operations that IEEE 754 rounds exactly
(no matrix products, no powers or exponentials, whose results depend on the CPU).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from panollava.errors import DataError
from panollava.views.geometry import angles_to_rays

Array = NDArray[np.float32]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "green": (30, 165, 75),
    "blue": (45, 85, 225),
    "yellow": (240, 210, 45),
    "purple": (150, 50, 190),
    "white": (242, 242, 242),
}
SHAPES = ("sphere", "box", "cone")
SECTORS: dict[str, float] = {"front": 0.0, "right": 90.0, "behind": 180.0, "left": -90.0}
"""Places around the camera and the yaw of their middle, degrees."""
PLACES = (*SECTORS, "above")
SKIES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "day": ((110, 170, 245), (215, 232, 250)),
    "dusk": ((75, 60, 125), (245, 155, 95)),
    "night": ((8, 8, 28), (38, 42, 78)),
}
"""Colours at the zenith and at the horizon."""
GROUNDS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "grass": ((62, 112, 48), (80, 134, 62)),
    "sand": ((212, 188, 132), (228, 208, 156)),
    "stone": ((112, 112, 118), (172, 172, 178)),
}
"""Colours of the two kinds of squares that tile the ground."""

EYE_HEIGHT = 1.6
_MOST_YAW_JITTER_DEG = 25.0
_LIGHT = (0.45, 0.75, -0.48)
_LAMP = {"day": 1.0, "dusk": 0.85, "night": 0.65}
_HAZE_DISTANCE = 12.0


@dataclass(frozen=True)
class Solid:
    """A sphere, box or upright cone: the place it represents, its centre (metres from the camera) and size."""

    place: str
    colour: str
    shape: str
    radius: float
    turn_deg: float
    centre: tuple[float, float, float]


@dataclass(frozen=True)
class Scene:
    """Sky, ground and at most one solid in each place; `offset` shifts the ground's squares."""

    sky: str
    ground: str
    offset: tuple[float, float]
    solids: tuple[Solid, ...]

    def at(self, place: str) -> Solid | None:
        return next((solid for solid in self.solids if solid.place == place), None)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Scene:
        """The inverse of `to_json`, for what scenes.json holds."""
        solids = tuple(Solid(**{**solid, "centre": tuple(solid["centre"])}) for solid in document["solids"])
        return cls(document["sky"], document["ground"], tuple(document["offset"]), solids)


def sample_scene(rng: np.random.Generator, share: float = 0.7, share_above: float = 0.55) -> Scene:
    """Draw a scene with at least one solid.

    Each place around the camera holds a solid with probability `share`, the place above with `share_above`.
    Solids lie within 25 degrees of the middle of their 90 degree sector: those behind the camera are often cut
    by the panorama's seam at +-180 degrees, and those above often reach the zenith.
    """
    sky, ground = str(rng.choice(list(SKIES))), str(rng.choice(list(GROUNDS)))
    offset = (float(rng.uniform(0, 2)), float(rng.uniform(0, 2)))
    solids: list[Solid] = []
    while not solids:
        solids = [
            _sample_solid(rng, place) for place in PLACES if rng.random() < (share_above if place == "above" else share)
        ]
    return Scene(sky, ground, offset, tuple(solids))


def _sample_solid(rng: np.random.Generator, place: str) -> Solid:
    radius, distance = float(rng.uniform(0.95, 1.25)), float(rng.uniform(2.4, 3.2))
    if place == "above":
        direction = angles_to_rays(np.asarray(rng.uniform(-180, 180)), np.asarray(rng.uniform(50, 72)))
        x, y, z = (float(part) * distance for part in direction)
    else:
        yaw_deg = SECTORS[place] + rng.uniform(-_MOST_YAW_JITTER_DEG, _MOST_YAW_JITTER_DEG)
        direction = angles_to_rays(np.asarray(yaw_deg), np.asarray(0.0))
        x, z = float(direction[0]) * distance, float(direction[2]) * distance
        stands = rng.random() < 0.6
        y = radius - EYE_HEIGHT if stands else float(rng.uniform(-0.5, 1.2))
    colour, shape = str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES))
    turn_deg = float(rng.uniform(0, 90))
    # six decimals: the same scene in memory and in scenes.json
    return Solid(place, colour, shape, round(radius, 6), round(turn_deg, 6), (round(x, 6), round(y, 6), round(z, 6)))


def render(scene: Scene, rays: NDArray[np.floating[Any]]) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """Look along unit rays [..., 3]: RGB colours uint8 [..., 3], and int8 [...] the index of the solid met or -1.

    Raises DataError for a sky, ground, colour or shape that does not exist.
    """
    _check(scene)
    shape = rays.shape[:-1]
    x, y, z = np.ascontiguousarray(rays.reshape(-1, 3).T, dtype=np.float32)
    colours, depth = _background(scene, x, y, z)
    met = np.full(len(x), -1, np.int8)
    light = 0.5 + 0.5 * _LAMP[scene.sky]
    for index, solid in enumerate(scene.solids):
        near = np.flatnonzero(_inside_cone_of(solid, x, y, z))
        distance, normal = _HITS[solid.shape](solid, x[near], y[near], z[near])
        front = distance < depth[near]
        near, normal = near[front], normal[:, front]
        depth[near], met[near] = distance[front], index
        facing = normal[0] * _f(_LIGHT[0]) + normal[1] * _f(_LIGHT[1]) + normal[2] * _f(_LIGHT[2])
        shade = (_f(0.55) + _f(0.45) * np.clip(facing, 0, 1)) * _f(light)
        colours[near] = np.asarray(COLOURS[solid.colour], np.float32) * shade[:, None]
    return np.clip(colours, 0, 255).astype(np.uint8).reshape(*shape, 3), met.reshape(shape)


def _check(scene: Scene) -> None:
    known = [("sky", scene.sky, tuple(SKIES)), ("ground", scene.ground, tuple(GROUNDS))]
    for solid in scene.solids:
        known += [("colour", solid.colour, tuple(COLOURS)), ("shape", solid.shape, SHAPES)]
    for what, value, allowed in known:
        if value not in allowed:
            raise DataError(f"no {what} {value!r} in the synthetic world; there are: {', '.join(allowed)}")


def _f(value: float) -> np.float32:
    return np.float32(value)


def _background(scene: Scene, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Sky and checkered ground [N, 3], and the distance [N] of the ground (infinite towards the sky)."""
    top, horizon = (np.asarray(colour, np.float32) for colour in SKIES[scene.sky])
    colours = horizon + (top - horizon) * np.sqrt(np.clip(y, 0, 1))[:, None]
    depth = np.full(len(x), np.inf, np.float32)
    down = np.flatnonzero(y < -1e-3)
    distance = _f(EYE_HEIGHT) / -y[down]
    along = np.floor(x[down] * distance + _f(scene.offset[0]))
    across = np.floor(z[down] * distance + _f(scene.offset[1]))
    odd = ((along + across) % 2)[:, None]
    one, other = (np.asarray(colour, np.float32) for colour in GROUNDS[scene.ground])
    near = (_f(1) / (_f(1) + distance * distance / _f(_HAZE_DISTANCE**2)))[:, None]  # far squares melt into haze
    tiles = one * odd + other * (1 - odd)
    middle = (one + other) / 2
    colours[down] = (tiles * near + middle * (1 - near)) * _f(_LAMP[scene.sky])
    depth[down] = distance
    return colours, depth


def _inside_cone_of(solid: Solid, x: Array, y: Array, z: Array) -> NDArray[np.bool_]:
    """Rays [N] that may meet the solid: those that meet its bounding sphere."""
    a, b, c = (_f(part) for part in solid.centre)
    along = x * a + y * b + z * c
    bound = _f(1.5 * solid.radius)
    return (along > 0) & (a * a + b * b + c * c - along * along <= bound * bound)


def _hit_sphere(solid: Solid, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Distance [N] along the rays (infinite where they miss) and outward normal [3, N]."""
    a, b, c = (_f(part) for part in solid.centre)
    radius = _f(solid.radius)
    along = x * a + y * b + z * c
    under_root = along * along - (a * a + b * b + c * c - radius * radius)
    distance = along - np.sqrt(np.maximum(under_root, 0))
    distance = np.where((under_root > 0) & (distance > 0), distance, _f(np.inf))
    finite = np.where(np.isfinite(distance), distance, _f(0))
    normal = np.stack([finite * x - a, finite * y - b, finite * z - c]) / radius
    return distance, normal.astype(np.float32)


def _hit_box(solid: Solid, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """A cube turned about the vertical; slab test (Kay & Kajiya 1986)."""
    half = _f(0.85 * solid.radius)
    cos, sin = _f(np.cos(np.deg2rad(solid.turn_deg))), _f(np.sin(np.deg2rad(solid.turn_deg)))
    a, b, c = (_f(part) for part in solid.centre)
    rays = np.stack([x * cos + z * sin, y, z * cos - x * sin])  # in the box's frame
    rays = np.where(np.abs(rays) < 1e-6, _f(1e-6), rays)
    origin = np.asarray([-(a * cos + c * sin), -b, -(c * cos - a * sin)], np.float32)[:, None]
    one, other = (-half - origin) / rays, (half - origin) / rays
    enter, leave = np.minimum(one, other), np.maximum(one, other)
    axis = enter.argmax(axis=0)
    distance = enter.max(axis=0)
    hit = (distance <= leave.min(axis=0)) & (distance > 0)
    which = np.arange(len(x))
    local = np.zeros_like(rays)
    local[axis, which] = -np.sign(rays[axis, which])
    normal = np.stack([local[0] * cos - local[2] * sin, local[1], local[2] * cos + local[0] * sin])
    return np.where(hit, distance, _f(np.inf)), normal.astype(np.float32)


def _hit_cone(solid: Solid, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """An upright cone, base radius 0.95 and height 2 radii; its side and its base disc."""
    a, b, c = (_f(part) for part in solid.centre)
    height = _f(solid.radius)  # half of it
    base = _f(0.95 * solid.radius)
    slope = base / (2 * height)
    apex = height + b  # of the apex above the camera
    # side: (x t - a)^2 + (z t - c)^2 = slope^2 (apex - y t)^2
    qa = x * x + z * z - slope * slope * y * y
    qb = slope * slope * apex * y - a * x - c * z
    qc = a * a + c * c - slope * slope * apex * apex
    under_root = qb * qb - qa * qc
    root = np.sqrt(np.maximum(under_root, 0))
    qa = np.where(np.abs(qa) < 1e-6, _f(1e-6), qa)
    distance = np.full(len(x), np.inf, np.float32)
    for t in ((-qb - root) / qa, (-qb + root) / qa):
        on_side = (under_root > 0) & (t > 0) & (np.abs(y * t - b) <= height)
        distance = np.where(on_side & (t < distance), t, distance)
    finite = np.where(np.isfinite(distance), distance, _f(0))
    normal = np.stack([finite * x - a, np.full(len(x), slope * base, np.float32), finite * z - c])
    length = np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2])
    normal = (normal / np.maximum(length, _f(1e-9))).astype(np.float32)
    below = (b - height) / np.where(np.abs(y) < 1e-6, _f(1e-6), y)
    dx, dz = x * below - a, z * below - c
    on_base = (below > 0) & (dx * dx + dz * dz <= base * base) & (below < distance)
    distance = np.where(on_base, below, distance)
    normal[:, on_base] = np.asarray([0, -1, 0], np.float32)[:, None]
    return distance, normal


_HITS = {"sphere": _hit_sphere, "box": _hit_box, "cone": _hit_cone}
