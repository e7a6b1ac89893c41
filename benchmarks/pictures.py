"""The README's pictures, drawn from a finished experiment: what a model sees, its samples page, the page of `serve`.

    python benchmarks/pictures.py EXP1          # writes docs/pictures/{views,samples,serve}.jpg and prints their sizes

For the two pages, which playwright photographs in Chromium (extras dev and serve), the experiment must have been run
(`panollava run EXP1`). `--only views` draws the first picture without, `--panorama PANO.jpg` of any panorama.
"""

from __future__ import annotations

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTH = 900
_STARTS_WITHIN_S = 600
_NAMES = ("views", "samples", "serve")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="?", default="EXP1")
    parser.add_argument("--only", nargs="+", choices=_NAMES, default=_NAMES)
    parser.add_argument("--panorama", type=Path, help="for the contact sheet; default: a drawn scene")
    parser.add_argument("--output-dir", type=Path, default=Path("docs/pictures"))
    given = parser.parse_args()
    given.output_dir.mkdir(parents=True, exist_ok=True)
    draw = {"views": draw_views, "samples": draw_samples, "serve": draw_serve}
    for name in given.only:
        path = given.output_dir / f"{name}.jpg"
        draw[name](given.experiment, given.panorama, path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def save(picture: Any, path: Path) -> None:
    """A small JPEG, WIDTH pixels wide."""
    from PIL import Image

    height = round(picture.height * WIDTH / picture.width)
    picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).save(path, quality=80, optimize=True)


def draw_views(experiment: str, panorama: Path | None, path: Path) -> None:
    """The contact sheet of a panorama, by the experiment's views."""
    from PIL import Image

    from panollava import WorkflowConfig
    from panollava.views.contact_sheet import contact_sheet
    from panollava.views.panorama import load_panorama
    from panollava.views.render import render_views
    from panollava.views.strategies import plan_views

    cfg = WorkflowConfig.load(experiment)
    settings = cfg.settings.image_processing
    pixels = load_panorama(panorama) if panorama else _drawn_panorama(cfg.settings.data.synthetic.seed)
    views = plan_views(settings.crop_strategy, fov_deg=settings.fov_deg, overlap_ratio=settings.overlap_ratio)
    save(Image.fromarray(contact_sheet(pixels, views, render_views(pixels, views, (256, 256)))), path)


def _drawn_panorama(seed: int) -> Any:
    """A scene of the synthetic data, larger than an experiment draws it: uint8 [1024, 2048, 3]."""
    import numpy as np

    from panollava.data.synthetic.scenes import render, sample_scene
    from panollava.views.geometry import view_rays
    from panollava.views.strategies import GLOBAL_VIEW

    scene = sample_scene(np.random.default_rng(seed), share=1.0, share_above=1.0)
    return render(scene, view_rays(GLOBAL_VIEW, 1024, 2048))[0]


def draw_samples(experiment: str, _: Path | None, path: Path) -> None:
    """The head of report_samples.html."""
    from panollava import WorkflowConfig

    page = Path(WorkflowConfig.load(experiment).names.metrics).with_name("report_samples.html").resolve()
    with browser() as shown:
        shown.goto(page.as_uri())
        _photograph(shown, path, height=820)


def draw_serve(experiment: str, _: Path | None, path: Path) -> None:
    """The page of `serve`, after a question about its first example."""
    with served(experiment) as address, browser() as shown:
        shown.goto(address)
        shown.locator("#examples img").first.click()
        shown.locator("pano-view[yaw]").wait_for()
        shown.wait_for_timeout(1500)
        shown.locator("#ask").click()
        shown.get_by_text("tokens in").wait_for()
        _photograph(shown, path, height=900)


def _photograph(shown: Any, path: Path, height: int) -> None:
    import io

    from PIL import Image

    clip = {"x": 0, "y": 0, "width": 1200, "height": height}
    save(Image.open(io.BytesIO(shown.screenshot(clip=clip, full_page=True))), path)


@contextmanager
def browser() -> Iterator[Any]:
    """A page of Chromium, 1200 pixels wide, whose WebGL is computed by the CPU."""
    from playwright.sync_api import sync_playwright

    switches = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path="/usr/bin/chromium", args=switches)
        shown = chromium.new_page(viewport={"width": 1200, "height": 900})
        shown.set_default_timeout(_STARTS_WITHIN_S * 1000)
        yield shown
        chromium.close()


@contextmanager
def served(experiment: str) -> Iterator[str]:
    """`panollava serve` of the experiment's last stage, as a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["panollava", "serve", "--checkpoint-dir", f"runs/{experiment}", "--port", str(port)]
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - read when the server has ended
    server = subprocess.Popen([sys.executable, "-m", *command], stdout=said, stderr=said)
    try:
        until = time.monotonic() + _STARTS_WITHIN_S
        while server.poll() is None and time.monotonic() < until:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        if server.poll() is not None:
            said.seek(0)
            sys.exit(f"{' '.join(command)} ended before its page was there:\n{said.read()}")
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
