"""Points and boxes on the sphere: read from text, scored exactly across the seam and at the poles."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from panollava.answers.boxes import Box, ErpBox, FovBox, erp_box_of_pixels, intersection, iou
from panollava.answers.grading import Question, grade
from panollava.answers.part import answer_part
from panollava.answers.places import read_box, read_point
from panollava.answers.sphere import Direction, angle_between_deg, cross, wrapped

SIZE = (2048, 1024)


@pytest.mark.parametrize(
    ("text", "yaw", "pitch"),
    [
        ("yaw 30, pitch 10", 30, 10), ("30°, 10°", 30, 10), ("(30, 10)", 30, 10), ("(30, -5)", 30, -5),
        ("behind", 180, 0),
        ('```json\n{"yaw": 30, "pitch": -5}\n```', 30, -5), ("[1023.5, 511.5]", 0, 0), ("x=1023.5, y=511.5", 0, 0),
        ('{"x": 1535.5, "y": 255.5}', 90, 45), ("(1023.5, 511.5)", 0, 0), ("1023.5, 511.5 px", 0, 0),
        ("the point is at [511.5, 511.5].", -90, 0), ("[2047.5, 511.5]", 180, 0), ("[-30, 10]", -30, 10),
    ],
)  # fmt: skip
def test_points(text: str, yaw: float, pitch: float) -> None:
    found = read_point(answer_part(text), SIZE)
    assert found is not None
    assert angle_between_deg(found, Direction(yaw, pitch)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "text", ["nowhere", "[3000, 100]", "(30, 2000)", '<point x="50" y="50">', "[10, 20] or [30, 40]", "[10]", ""]
)
def test_points_that_are_not_read(text: str) -> None:
    assert read_point(answer_part(text), SIZE) is None


def test_a_bare_pair_counts_in_what_the_reference_counts_in() -> None:
    question = Question("point", size=SIZE)
    assert grade("(90, 45)", ["x=90, y=45"], question).error_deg == pytest.approx(0)
    assert grade("(90, 45)", ["yaw 90, pitch 45"], question).error_deg == pytest.approx(0)
    with pytest.raises(ValueError, match="the row needs both columns"):
        grade("(90, 45)", ["x=90, y=45"], Question("point"))


BOXES = {
    "[382, 124, 1508, 525]": ErpBox(
        382 / 2048 * 360 - 180, 1126 / 2048 * 360, 90 - 525 / 1024 * 180, 90 - 124 / 1024 * 180
    ),
    "x1=0, y1=0, x2=1024, y2=512": ErpBox(-180, 180, 0, 90),
    "yaw 10, pitch 5, fov 40x20": FovBox(Direction(10, 5), 40, 20),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("(boundingbox: [382, 124, 1508, 525])", 0), ("382, 124, 1508, 525", 0),
        ("<box>[[382,124,1508,525]]</box>", 0),
        ('```json\n[{"bbox_2d": [382, 124, 1508, 525], "label": "pipe"}]\n```', 0), ("(382, 124, 1508, 525)", 0),
        ("[382, 124, 1508, 525] or rather [382, 124, 1508, 525]", 0), ("x1=0, y1=0, x2=1024, y2=512", 1),
        ('{"xmin": 0, "ymin": 0, "xmax": 1024, "ymax": 512}', 1), ("[0, -9, 1024, 512]", 1),
        ("[-1024, 0, 0, 512]", None),
        ("yaw 10, pitch 5, fov 40x20", 2), ('{"yaw": 10, "pitch": 5, "fov": [40, 20]}', 2),
        ("(10, 5), FoV 40° x 20°", 2),
        ('{"yaw": 10, "pitch": 5, "hfov": 40, "vfov": 20}', 2), ('{"center": [10, 5], "fov": [40, 20]}', 2),
    ],
)  # fmt: skip
def test_boxes(text: str, same_as: int | None) -> None:
    found = read_box(answer_part(text), SIZE)
    assert found is not None
    if same_as is not None:
        assert iou(found, list(BOXES.values())[same_as]) == pytest.approx(1)


@pytest.mark.parametrize("text", [
    "", "nothing", "[1, 2, 3]", "[1, 2, 3, 4, 5]", "[100, 400, 300, 200]", "[5, 1, 5, 9]",
    "[1, 2, 30, 40] [5, 6, 70, 80]",
    "(1, 2), (30, 40)", "yaw 3, pitch 0, fov 200", "fov 40", "[0, 1100, 10, 1200]", "[9000, 1, 9001, 2]"])  # fmt: skip
def test_boxes_that_are_not_read(text: str) -> None:
    assert read_box(answer_part(text), SIZE) is None
    assert not grade(text, ["[0, 0, 99, 99]"], Question("box", size=SIZE)).readable


def test_a_box_across_the_seam_is_one_region() -> None:
    across = erp_box_of_pixels(1948, 400, 100, 600, *SIZE)
    beyond = erp_box_of_pixels(1948, 400, 2148, 600, *SIZE)
    before = erp_box_of_pixels(-100, 400, 100, 600, *SIZE)
    assert across is not None and beyond is not None and before is not None
    assert across.width_deg == pytest.approx(200 / 2048 * 360)
    assert iou(across, beyond) == pytest.approx(1) and iou(across, before) == pytest.approx(1)
    left, right = ErpBox(170, 10, -10, 10), ErpBox(-180, 10, -10, 10)
    assert iou(ErpBox(170, 20, -10, 10), left) == pytest.approx(0.5) and iou(left, right) == 0
    assert intersection(ErpBox(0, 300, 0, 10), ErpBox(250, 300, 0, 10)) == pytest.approx(
        math.radians(50 + 190) * math.sin(math.radians(10)))  # fmt: skip


def test_areas_are_those_of_the_sphere() -> None:
    whole = erp_box_of_pixels(0, 0, 2048, 1024, *SIZE)
    assert whole is not None and whole.area() == pytest.approx(4 * math.pi)
    assert FovBox(Direction(20, 30), 90, 90).area() == pytest.approx(4 * math.pi / 6)  # a face of the cube
    # Equal heights at the pole and at the equator: in pixels alike, on the sphere not.
    pole, equator = ErpBox(0, 90, 80, 90), ErpBox(0, 90, -5, 5)
    assert pole.area() < 0.1 * equator.area()
    cap = FovBox(Direction(123, 90), 40, 40)
    assert iou(cap, FovBox(Direction(123 + 90, 90), 40, 40)) == pytest.approx(1)  # a square at the zenith, turned
    assert intersection(cap, ErpBox(-180, 360, 0, 90)) == pytest.approx(cap.area())


def boxes(seed: int, count: int = 40) -> Iterator[tuple[Box, Box]]:
    rng = np.random.default_rng(seed)

    def one() -> Box:
        if rng.integers(2):
            bottom, top = np.sort(rng.uniform(-90, 90, 2))
            return ErpBox(float(rng.uniform(-180, 180)), float(rng.uniform(5, 360)), float(bottom), float(top))
        centre = Direction(float(rng.uniform(-180, 180)), float(rng.choice([rng.uniform(-90, 90), 90, -85])))
        return FovBox(centre, float(rng.uniform(10, 170)), float(rng.uniform(10, 170)))

    for _ in range(count):
        yield one(), one()


def rolled(box: Box, turn: float) -> Box:
    if isinstance(box, ErpBox):
        return ErpBox(wrapped(box.left_deg + turn), box.width_deg, box.bottom_deg, box.top_deg)
    return FovBox(Direction(wrapped(box.centre.yaw_deg + turn), box.centre.pitch_deg), box.hfov_deg, box.vfov_deg)


def test_overlap_is_symmetric_one_with_itself_and_the_same_however_the_panorama_is_rolled() -> None:
    for one, other in boxes(0):
        value = iou(one, other)
        assert 0 <= value <= 1 and iou(other, one) == pytest.approx(value, abs=1e-12)
        assert iou(one, one) == 1 and iou(rolled(one, 360), one) == pytest.approx(1)
        for turn in (37.3, 180, -170.5):
            assert iou(rolled(one, turn), rolled(other, turn)) == pytest.approx(value, abs=1e-7)


def test_overlap_is_what_counting_directions_gives() -> None:
    rng = np.random.default_rng(1)
    rays = rng.normal(size=(200_000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    yaw, pitch = np.degrees(np.arctan2(rays[:, 0], rays[:, 2])), np.degrees(np.arcsin(rays[:, 1]))

    def inside(box: Box) -> np.ndarray:
        if isinstance(box, ErpBox):
            return ((yaw - box.left_deg) % 360 <= box.width_deg) & (pitch >= box.bottom_deg) & (pitch <= box.top_deg)
        corners = box.corners()
        sides = [rays @ np.array(cross(corners[(i + 1) % 4], corner)) >= 0 for i, corner in enumerate(corners)]
        return np.logical_and.reduce(sides)

    for one, other in boxes(2, 25):
        shared = (inside(one) & inside(other)).mean() * 4 * math.pi
        assert intersection(one, other) == pytest.approx(shared, abs=0.06)


def test_the_error_of_points_is_the_same_however_the_panorama_is_rolled() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        one, other = (Direction(*map(float, rng.uniform((-180, -90), (180, 90)))) for _ in range(2))
        turned = [Direction(wrapped(d.yaw_deg + 123.4), d.pitch_deg) for d in (one, other)]
        assert angle_between_deg(*turned) == pytest.approx(angle_between_deg(one, other), abs=1e-9)
        assert angle_between_deg(one, other) == pytest.approx(angle_between_deg(other, one))
        assert angle_between_deg(one, one) == pytest.approx(0, abs=1e-12)


def test_a_box_is_accurate_from_half_on() -> None:
    question = Question("box", size=SIZE)
    half = grade("[0, 0, 100, 1024]", ["[0, 0, 200, 1024]"], question)
    assert half.score == pytest.approx(0.5) and half.accurate
    less = grade("[0, 0, 99, 1024]", ["[0, 0, 200, 1024]"], question)
    assert less.score < 0.5 and not less.accurate and less.readable
