"""Photographs through every format that is read: how close the views come to those of the picture that was written.

    python benchmarks/photographs.py --images ../shared/data/quic360/images

A line a format: the worst PSNR in dB over all panoramas and views, lossless formats at "exact". Lossy ones are written
with quality 95, where what is lost is the format's own; a picture that is turned, in wrong colours or at another place
has 5 to 30 dB. With Display P3 the pixels are converted and the profile is embedded; "unmarked" lacks the profile, to
show what that is worth. Ends with 1 where a format lies below `--least`.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageDraw
from supersampling import psnr

from panollava.views.code_points import display_p3_profile
from panollava.views.image_formats import known_formats
from panollava.views.panorama import load_panorama, place_panorama
from panollava.views.render import render_views
from panollava.views.strategies import plan_views

VIEWS = plan_views("anyres_e2p")
SIZE = (224, 224)
_ORIENTATION = 0x0112
_STORED = {  # what undoes an EXIF orientation
    1: lambda image: image, 2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
    4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
    6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
    7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
    8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
}  # fmt: skip


def srgb() -> Any:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    if form in ("JPEG", "MPO", "WEBP", "AVIF", "HEIF"):
        options = {"quality": 95} | options
    if form == "AVIF":
        options |= {"speed": 9}
    if form == "MPO":
        options |= {"save_all": True, "append_images": [image.rotate(180)]}
    image.save(stream, form, **options)
    return stream.getvalue()


def turned(image: Image.Image, form: str, orientation: int) -> bytes:
    stored = _STORED[orientation](image)
    if form == "TIFF":
        return saved(stored, form, tiffinfo={_ORIENTATION: orientation})
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return saved(stored, form, exif=exif.tobytes())


def deep(image: Image.Image, ending: str) -> bytes:
    ok, encoded = cv2.imencode(ending, np.asarray(image)[..., ::-1].astype(np.uint16) * 257)
    assert ok
    return bytes(encoded.tobytes())


def ways(image: Image.Image) -> dict[str, Callable[[], bytes]]:
    """How a panorama is written, by name; a name that begins with "grey" is compared with its grey."""
    forms = [
        form for form in ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "HEIF", "TIFF") if form in {*known_formats(), "MPO"}
    ]
    profile = display_p3_profile()
    wide = ImageCms.applyTransform(
        image, ImageCms.buildTransform(srgb(), ImageCms.ImageCmsProfile(io.BytesIO(profile)), "RGB", "RGB")
    )
    wide.info.clear()
    grey = image.convert("L")
    found: dict[str, Callable[[], bytes]] = {}
    for form in forms:
        found[form] = lambda form=form: saved(image, form)
        found[f"{form}, Display P3"] = lambda form=form: saved(wide, form, icc_profile=profile)
        found[f"{form}, sRGB embedded"] = lambda form=form: saved(image, form, icc_profile=srgb().tobytes())
        if form != "MPO":
            found[f"grey {form}"] = lambda form=form: saved(grey, form)
        for orientation in _STORED:
            found[f"{form}, orientation {orientation}"] = lambda form=form, to=orientation: turned(image, form, to)
    return found | {
        "JPEG, progressive": lambda: saved(image, "JPEG", progressive=True),
        "JPEG, CMYK": lambda: saved(image.convert("CMYK"), "JPEG"),
        "WEBP, lossless": lambda: saved(image, "WEBP", lossless=True, quality=10, method=0),
        "PNG, 16 bits": lambda: deep(image, ".png"),
        "TIFF, 16 bits": lambda: deep(image, ".tiff"),
        "TIFF, LZW": lambda: saved(image, "TIFF", compression="tiff_lzw"),
        "TIFF, JPEG": lambda: saved(image, "TIFF", compression="jpeg", quality=95),
        "JPEG2000": lambda: saved(image, "JPEG2000", quality_mode="rates", quality_layers=[8]),
        "unmarked Display P3": lambda: saved(wide, "PNG"),
    }


def views_of(content: bytes, name: str) -> Any:
    return render_views(place_panorama(content, name).pixels, VIEWS, SIZE)


def drawn() -> Image.Image:
    image = Image.linear_gradient("L").resize((256, 128)).convert("RGB")
    ImageDraw.Draw(image).ellipse((150, 20, 220, 60), fill=(220, 60, 40))
    return image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="A folder of panoramas.")
    parser.add_argument("--width", type=int, default=1024, help="Larger panoramas are brought to this width first.")
    parser.add_argument("--least", type=float, default=32.0)
    parser.add_argument("--smoke", action="store_true", help="One small drawn panorama.")
    given = parser.parse_args()
    if not given.smoke and given.images is None:
        parser.error("--images FOLDER, or --smoke")
    paths = [] if given.smoke else sorted(path for path in given.images.iterdir() if path.is_file())
    pictures = (Image.fromarray(load_panorama(path)) for path in paths)
    worst: dict[str, list[float]] = {}
    np.seterr(divide="ignore")  # of equal pictures
    for image in [drawn()] if given.smoke else pictures:
        if image.width > given.width:
            image = image.resize((given.width, given.width // 2), Image.Resampling.LANCZOS)
        expected = {grey: views_of(saved(image.convert("L") if grey else image, "BMP"), "original") for grey in (0, 1)}
        for name, write in ways(image).items():
            pairs = zip(views_of(write(), name), expected[int(name.startswith("grey"))], strict=True)
            worst.setdefault(name, []).append(min(psnr(*pair) for pair in pairs))
    bad = 0
    for name, found in worst.items():
        low = min(found) < given.least and not name.startswith("unmarked")
        bad += low
        shown = "exact" if min(found) > 90 else f"{min(found):5.1f}"
        print(f"{name:24} {shown:>5}{'   below the least' if low else ''}")
    print(
        f"worst PSNR in dB of {len(next(iter(worst.values()), []))} panoramas, {len(VIEWS)} views of each; {bad} below"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
