"""GPano XMP: what cameras say about their panoramas, seen by the pixels of views."""

from __future__ import annotations

import inspect
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from directions import crop_of, direction_panorama, packet, photo, shown
from PIL import Image, PngImagePlugin
from tiny_models import CHATML, tokenizer

from panollava.data.dataset import Collator, kept_views
from panollava.data.prepare import prepare_csv
from panollava.data.samples import Row
from panollava.models.processor import PanoramaProcessor
from panollava.models.prompt import ChatPrompt
from panollava.views.cache import ViewCache
from panollava.views.cache_build import build_view_cache
from panollava.views.contact_sheet import write_views
from panollava.views.panorama import (
    MAX_PIXELS,
    PanoramaError,
    decode_panorama,
    load_panorama,
    place_image,
    place_panorama,
)
from panollava.views.render import open_views
from panollava.views.rendering import Rendering
from panollava.views.sphere import GREY
from panollava.views.strategies import CROP_STRATEGIES, View, plan_views

WHOLE = direction_panorama(1024)
HALF = crop_of((2048, 1024), 1024, 256, (1024, 512))
HALF_PIXELS = direction_panorama(2048)[256:768, 1024:]
PHONE = crop_of((2048, 1024), 0, 171, (2048, 682))
FORMS = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]


def view(content: bytes, tmp_path: Path, yaw_deg: float, pitch_deg: float = 0.0, **options: object) -> np.ndarray:
    path = tmp_path / "panorama"
    path.write_bytes(content)
    looks = View("perspective", yaw_deg, pitch_deg, 90.0, 90.0)
    return open_views(path, [looks], (101, 101), Rendering(**options))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "writing", "quote"),
    [
        *((form, "attributes", '"') for form in FORMS),
        ("JPEG", "attributes", "'"), ("JPEG", "elements", '"'), ("PNG", "elements", "'"),
        ("JPEG", "two descriptions", '"'), ("TIFF", "two descriptions", "'"),
    ],
)  # fmt: skip
def test_half_a_turn_lies_where_it_was_taken(tmp_path: Path, form: str, writing: str, quote: str) -> None:
    content = photo(HALF_PIXELS, form, packet({"ProjectionType": "equirectangular", **HALF}, writing, quote))
    assert decode_panorama(content, "a").shape == (1024, 2048, 3)
    longitude, latitude = shown(view(content, tmp_path, 90), 0.5, 0.5)
    assert longitude == pytest.approx(90, abs=1.5) and latitude == pytest.approx(0, abs=1)
    for yaw_deg, pitch_deg in ((-90, 0), (0, 90)):
        assert np.abs(view(content, tmp_path, yaw_deg, pitch_deg)[50, 50].astype(int) - GREY).max() <= 1


def test_a_phones_sphere_without_zenith_and_nadir(tmp_path: Path) -> None:
    content = photo(direction_panorama(2048)[171:853], "JPEG", packet(PHONE))
    panorama = decode_panorama(content, "a")
    assert panorama.shape == (1024, 2048, 3)
    np.testing.assert_allclose(panorama[171:853].astype(int), direction_panorama(2048)[171:853], atol=12)
    assert (panorama[:171] == GREY).all() and (panorama[853:] == GREY).all()
    assert shown(view(content, tmp_path, -120, 20), 0.5, 0.5) == pytest.approx((-120, 20), abs=1.5)


def test_an_image_that_was_resized_keeps_its_place(tmp_path: Path) -> None:
    small = np.asarray(Image.fromarray(HALF_PIXELS).resize((500, 250)))
    content = photo(small, "PNG", packet(HALF))
    assert decode_panorama(content, "a").shape == (500, 1000, 3)
    assert shown(view(content, tmp_path, 90), 0.5, 0.5) == pytest.approx((90, 0), abs=1.5)


def test_a_partial_jpeg_is_decoded_smaller_where_its_place_divides() -> None:
    content = photo(HALF_PIXELS, "JPEG", packet(HALF))
    odd = photo(direction_panorama(2048)[171:853], "JPEG", packet(PHONE))
    assert decode_panorama(content, "a", 512).shape == (256, 512, 3)
    assert decode_panorama(odd, "a", 512).shape == (1024, 2048, 3)  # an eighth of 171 rows would move the horizon


@pytest.mark.parametrize(
    ("pose", "row", "column", "latitude"),
    [
        ({"PosePitchDegrees": 20}, 0.5, 0.5, -20.0),
        ({"PosePitchDegrees": "-12.5"}, 0.5, 0.5, 12.5),
        ({"PoseRollDegrees": 20}, 0.5, 0.999, 13.8),
        ({"PoseRollDegrees": 20}, 0.5, 0.0, -13.8),
        ({"PoseRollDegrees": -15}, 0.5, 0.5, 0.0),
    ],
)
def test_a_tilted_camera_is_levelled(
    tmp_path: Path, pose: dict[str, object], row: float, column: float, latitude: float
) -> None:
    """The signs were read off Pannellum 2.5.7 and Photo Sphere Viewer 5.15.1, which agree."""
    content = photo(WHOLE, "PNG", packet(pose))
    assert shown(view(content, tmp_path, 0), row, column)[1] == pytest.approx(latitude, abs=0.8)
    plain = photo(WHOLE, "PNG")
    np.testing.assert_array_equal(view(content, tmp_path, 0, level="off"), view(plain, tmp_path, 0))


def test_pitch_and_roll_together_turn_roll_first(tmp_path: Path) -> None:
    """As Photo Sphere Viewer does: the camera rolled about its own axis, which then looked up."""
    content = photo(WHOLE, "PNG", packet({"PosePitchDegrees": 30, "PoseRollDegrees": 90}))
    # The camera lies on its right side and looks up: what is 30 degrees below its axis's level lies to its right.
    assert shown(view(content, tmp_path, 0, 30), 0.5, 0.5) == pytest.approx((0, 0), abs=1)
    assert shown(view(content, tmp_path, 0, 0), 0.5, 0.5) == pytest.approx((30, 0), abs=1)


def test_the_heading_turns_only_where_north_is_asked_for(tmp_path: Path) -> None:
    content = photo(WHOLE, "PNG", packet({"PoseHeadingDegrees": 90}))
    plain = photo(WHOLE, "PNG")
    np.testing.assert_array_equal(view(content, tmp_path, 0), view(plain, tmp_path, 0))
    assert shown(view(content, tmp_path, 90, north=True), 0.5, 0.5)[0] == pytest.approx(0, abs=1)
    assert shown(view(content, tmp_path, 0, north=True), 0.5, 0.5)[0] == pytest.approx(-90, abs=1)


def test_a_partial_panorama_is_levelled_too(tmp_path: Path) -> None:
    content = photo(HALF_PIXELS, "PNG", packet({**HALF, "PosePitchDegrees": 20}))
    looks = view(content, tmp_path, 90)
    assert shown(looks, 0.5, 0.5) == pytest.approx((90, 0), abs=1)  # its axis of tilt
    assert shown(view(content, tmp_path, 60), 0.5, 0.5)[1] == pytest.approx(-9.9, abs=1)


@pytest.mark.parametrize("strategy", CROP_STRATEGIES)
def test_every_strategy_sees_the_level_sphere_cached_and_not(tmp_path: Path, strategy: str) -> None:
    tilted = photo(WHOLE, "PNG", packet({"PosePitchDegrees": 20, "PoseHeadingDegrees": 45}))
    (tmp_path / "a.png").write_bytes(tilted)
    level = load_panorama(tmp_path / "a.png")
    Image.fromarray(level).save(tmp_path / "level.png")
    views = plan_views(strategy)
    expected = open_views(tmp_path / "level.png", views, (32, 32))
    direct = open_views(tmp_path / "a.png", views, (32, 32))
    assert np.abs(direct.astype(int) - expected).mean() < 1.5
    build_view_cache(["a.png"], views, (32, 32), tmp_path / "cache", root=tmp_path, progress=False)
    np.testing.assert_array_equal(ViewCache.open(tmp_path / "cache")["a.png"], direct)


def test_views_state_their_coverage(tmp_path: Path) -> None:
    views = plan_views("cubemap")
    (tmp_path / "a.jpg").write_bytes(photo(HALF_PIXELS, "JPEG", packet(HALF)))
    write_views(tmp_path / "a.jpg", views, (32, 32), Rendering(), tmp_path / "out")
    coverage = [entry["coverage"] for entry in json.loads((tmp_path / "out/views.json").read_text())]
    front, right, back, left, up, down = coverage
    assert (front, right, back) == (0.5, 1.0, 0.5)  # 45 degrees up are the middle of a face's edge, its corners less
    assert left == 0 and up == down == pytest.approx(0.1, abs=0.02)  # the corners of the poles' faces
    build_view_cache(["a.jpg"], views, (32, 32), tmp_path / "cache", root=tmp_path, progress=False)
    assert ViewCache.open(tmp_path / "cache").coverage["a.jpg"] == pytest.approx(coverage, abs=1e-4)
    rendered = ViewCache.open(tmp_path / "cache")["a.jpg"]
    assert (np.abs(rendered[3].astype(int) - GREY) <= 1).all()


def test_an_ordinary_panorama_is_covered_and_untouched(tmp_path: Path) -> None:
    said = {"ProjectionType": "equirectangular", **crop_of((1024, 512), 0, 0, (1024, 512)), "PosePitchDegrees": "0.0"}
    for form in FORMS:
        plain, marked = photo(WHOLE, form), photo(WHOLE, form, packet(said))
        np.testing.assert_array_equal(decode_panorama(marked, "a"), decode_panorama(plain, "a"))
    placed = place_panorama(photo(WHOLE, "PNG"), "a").placement
    assert placed.untouched and placed.coverage(plan_views("cubemap")) == (1.0,) * 6


@pytest.mark.parametrize("projection", ["cylindrical", "cubestrip", "fisheye"])
@pytest.mark.parametrize("form", FORMS)
def test_other_projections_are_refused(projection: str, form: str) -> None:
    content = photo(WHOLE, form, packet({"ProjectionType": projection}))
    with pytest.raises(PanoramaError, match=f"not equirectangular: GPano:ProjectionType is '{projection}'"):
        decode_panorama(content, "a")


@pytest.mark.parametrize(
    ("said", "reason", "found"),
    [
        (crop_of((2048, 1024), 0, 0, (2048, 1024)) | {"CroppedAreaTopPixels": 171}, "contradictory", "leaves its full"),
        (crop_of((2048, 1024), 1500, 256, (1024, 512)), "contradictory", "leaves its full panorama"),
        (crop_of((2048, 1024), 0, 171, (2048, 682)), "contradictory", "of another shape"),
        (crop_of((2048, 1024), 0, 0, (-1024, 512)), "contradictory", "CroppedAreaImageWidthPixels is '-1024'"),
        ({"PosePitchDegrees": "20,5"}, "contradictory", "PosePitchDegrees is '20,5', expected a number"),
        ({"PoseRollDegrees": "nan"}, "contradictory", "expected a number"),
        ({"FullPanoWidthPixels": 2048, "FullPanoHeightPixels": 1024, "CroppedAreaImageWidthPixels": 1024,
          "CroppedAreaImageHeightPixels": 512, "CroppedAreaTopPixels": 256}, "contradictory",
         "CroppedAreaLeftPixels is missing"),
        (crop_of((2048, 600), 512, 40, (1024, 512)), "not about 2:1", "a part of 2048 x 600"),
        (crop_of((200_000, 100_000), 0, 0, (1024, 512)), "not an image", f"at most {MAX_PIXELS}"),
    ],
)  # fmt: skip
def test_metadata_that_cannot_be_followed(said: dict[str, object], reason: str, found: str) -> None:
    with pytest.raises(PanoramaError) as caught:
        decode_panorama(photo(WHOLE, "PNG", packet(said)), "a.png")
    assert caught.value.reason.startswith(reason) and found in caught.value.detail


def test_hostile_and_broken_packets() -> None:
    said = packet({"PosePitchDegrees": "&b;"})
    bomb = b'<!DOCTYPE r [<!ENTITY a "1111111111"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>\n<x:xmpmeta'
    for broken in (said.replace(b"<x:xmpmeta", bomb), said, packet({"PosePitchDegrees": 20})[:-260]):
        with pytest.raises(PanoramaError, match="speaks of GPano and cannot be read"):
            decode_panorama(photo(WHOLE, "JPEG", broken), "a.jpg")
    unconcerned = photo(WHOLE, "JPEG", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'><open></x:xmpmeta>")
    np.testing.assert_array_equal(decode_panorama(unconcerned, "a.jpg"), decode_panorama(photo(WHOLE), "a.jpg"))
    twice = packet({"PosePitchDegrees": 20}).replace(
        b"/></rdf:RDF>", b"><GPano:PosePitchDegrees>21</GPano:PosePitchDegrees></rdf:Description></rdf:RDF>"
    )
    with pytest.raises(PanoramaError, match="PosePitchDegrees is said twice, '20' and '21'"):
        decode_panorama(photo(WHOLE, "JPEG", twice), "a.jpg")


def test_other_places_of_a_packet(tmp_path: Path) -> None:
    said = packet({"PosePitchDegrees": 20})
    plain = photo(WHOLE, "JPEG", quality=98)
    head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32
    parts = b""
    for start in reversed(range(0, len(said), 300)):
        body = head + struct.pack(">II", len(said), start) + said[start : start + 300]
        parts += b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
    compressed = photo(WHOLE, "PNG", said, zip=True)
    utf16 = photo(WHOLE, "JPEG", said.decode().encode("utf-16"))
    for content in (plain[:2] + parts + plain[2:], compressed, utf16, photo(WHOLE, "JPEG", said + bytes(50))):
        assert shown(view(content, tmp_path, 0), 0.5, 0.5)[1] == pytest.approx(-20, abs=1)


@pytest.mark.parametrize("keyword", ["Raw profile type xmp", "Raw profile type APP1"])
@pytest.mark.parametrize("packed", [False, True])
def test_pngs_of_converters_keep_their_gpano(tmp_path: Path, keyword: str, packed: bool) -> None:
    """ImageMagick 6 and djxl write XMP as digits; both are among the conversions that refusals name."""
    said = packet(HALF)
    if keyword.endswith("APP1"):
        said = b"http://ns.adobe.com/xap/1.0/\0" + said
    digits = "\n".join(said.hex()[start : start + 72] for start in range(0, 2 * len(said), 72))
    text = PngImagePlugin.PngInfo()
    text.add_text(keyword, f"\nxmp\n{len(said):8}\n{digits}\n", zip=packed)
    content = photo(HALF_PIXELS, "PNG", pnginfo=text)
    assert shown(view(content, tmp_path, 90), 0.5, 0.5) == pytest.approx((90, 0), abs=1.5)
    if keyword.endswith("xmp"):
        assert place_image(Image.open(io.BytesIO(content))).pixels.shape == (1024, 2048, 3)
    exif = PngImagePlugin.PngInfo()
    exif.add_text("Raw profile type APP1", "\nexif\n       6\n457869660000\n", zip=packed)
    assert decode_panorama(photo(HALF_PIXELS, "PNG", pnginfo=exif), "a").shape == HALF_PIXELS.shape
    broken = PngImagePlugin.PngInfo()
    broken.add_text("Raw profile type xmp", "\nxmp\n       4\nGPano\n", zip=packed)
    with pytest.raises(PanoramaError, match="its raw profile is damaged"):
        decode_panorama(photo(WHOLE, "PNG", pnginfo=broken), "a.png")


def test_the_overlap_loss_learns_which_views_are_covered() -> None:
    rows = [Row(name, "q", "a") for name in ("whole.png", "half.png", "whole.png")]
    kept = kept_views({"half.png": (0.5, 0.49), "whole enough.png": (0.9, 0.5)}, 0.5)
    assert kept == {"half.png": [True, False]}
    views = (View("global", 0, 0, 360, 180), View("perspective", 0, 0, 90, 90))
    processor = PanoramaProcessor(views, (8, 8), (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]
    collate = Collator(processor, None, 8, features=False, kept_views=kept)
    picture = np.zeros((2, 8, 8, 3), np.uint8)
    batch = collate([(picture, row) for row in rows])
    assert batch["kept_views"].tolist() == [[True, True], [True, False], [True, True]]
    assert "kept_views" not in collate([(picture, rows[0])])
    asked = Collator(processor, ChatPrompt(tokenizer(CHATML), 2), 64, features=False, kept_views=kept)
    batch = asked([(picture, row) for row in rows])  # of each picture once, as the pictures themselves
    assert batch["image_index"].tolist() == [0, 1, 0] and batch["kept_views"].tolist() == [[True, True], [True, False]]


def test_prepare_rejects_what_is_no_panorama_and_takes_a_part(tmp_path: Path) -> None:
    (tmp_path / "part.jpg").write_bytes(photo(direction_panorama(512)[43:213], "JPEG", packet(PHONE)))
    (tmp_path / "cylinder.png").write_bytes(photo(WHOLE, "PNG", packet({"ProjectionType": "cylindrical"})))
    lines = "\n".join(f"{name},what is it?,a thing" for name in ("part.jpg", "cylinder.png"))
    (tmp_path / "a.csv").write_text(f"image_path,query,annotation\n{lines}\n")
    summary = prepare_csv(
        [tmp_path / "a.csv"], tmp_path / "prepared.csv", tmp_path / "rejected.csv", max_rejected_fraction=0.5,
        root=tmp_path, progress=False,
    )  # fmt: skip
    assert summary.num_accepted == 1 and summary.reasons == {"not equirectangular": 1}
    assert "GPano:ProjectionType is 'cylindrical'" in (tmp_path / "rejected.csv").read_text()


def test_both_kinds_of_model_take_what_the_vision_stage_gives() -> None:
    from panollava.models.native import NativeVLM
    from panollava.models.vlm import PanoramaVLM

    for kind in (PanoramaVLM, NativeVLM):
        assert "kept_views" in inspect.signature(kind.forward).parameters, kind
