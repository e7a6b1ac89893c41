"""The page of `panollava serve`, driven in a real browser: examples, questions, good and bad uploads."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from browser import INSTALL
from conftest import Project
from PIL import Image

pytestmark = pytest.mark.workflow
pytest.importorskip("gradio", reason="no gradio: pip install -e '.[serve]'")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[dev]'")

PINCH = """() => {
  const target = document.querySelector("pano-view .pnlm-dragfix"), box = target.getBoundingClientRect();
  const y = box.y + box.height / 2, x = box.x + box.width / 2;
  const finger = (identifier, at) => new Touch({ identifier, target, clientX: at, clientY: y, pageX: at, pageY: y });
  const fingers = (half) => [finger(0, x - half), finger(1, x + half)];
  const send = (kind, half) => {
    const touches = half ? fingers(half) : [];
    target.dispatchEvent(new TouchEvent(
      kind, { touches, targetTouches: touches, changedTouches: fingers(half || 60), bubbles: true, cancelable: true }));
  };
  send("touchstart", 30); send("touchmove", 60); send("touchend", 0);
}"""
"""Two fingers that move apart on Pannellum's own surface."""
STARTS_WITHIN_S = 120
SHOWS_WITHIN_MS = 60_000


@pytest.fixture(scope="module")
def address(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`panollava serve` on the small experiment's last stage, as a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "serve.log"
    command = [sys.executable, "-m", "panollava", "serve", "--checkpoint-dir", "runs/SMALL", "--stage", "finetune",
               "--port", str(port)]  # fmt: skip
    with log.open("w") as stream:
        server = subprocess.Popen(command, cwd=finished.root, stdout=stream, stderr=stream,
                                  env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while "serving http" not in log.read_text():
            assert server.poll() is None and time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def page(address: str) -> Iterator[Any]:
    """The page in a Chromium without WebGL."""
    yield from opened(address, "--disable-gpu", "--disable-3d-apis")


@pytest.fixture
def webgl_page(address: str) -> Iterator[Any]:
    """The page in a Chromium whose WebGL is computed by the CPU."""
    yield from opened(address, "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def opened(address: str, *switches: str) -> Iterator[Any]:
    """The page; whatever it asks of other hosts fails the test."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip(f"no Chromium: {INSTALL}")
    elsewhere: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-background-networking", *switches]
        )
        shown = browser.new_page(viewport={"width": 1300, "height": 1000})
        shown.set_default_timeout(SHOWS_WITHIN_MS)
        shown.on(
            "request",
            lambda request: (
                elsewhere.append(request.url) if not request.url.startswith((address, "data:", "blob:")) else None
            ),
        )
        shown.goto(address)
        yield shown
        browser.close()
    assert not elsewhere, "the page asks other hosts"


def drop(page: Any, name: str, content: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#upload button").first.click()
    chooser.value.set_files({"name": name, "mimeType": "application/octet-stream", "buffer": content})


def encoded(size: tuple[int, int], form: str) -> bytes:
    stream = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize(size).save(stream, form)
    return stream.getvalue()


def test_a_visitor_looks_around_asks_and_sees_what_the_model_saw(page: Any) -> None:
    page.locator("#examples img").first.click()
    pano = page.locator("pano-view[yaw]")
    assert (pano.get_attribute("yaw"), pano.get_attribute("drawn-by")) == ("0.0", "canvas")
    canvas = page.locator("pano-view canvas")
    before = canvas.evaluate("canvas => canvas.toDataURL()")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert (pano.get_attribute("yaw"), pano.get_attribute("pitch")) == ("15.0", "15.0")
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 - 100, box["y"] + 50, steps=4)  # the scene follows the hand
    page.mouse.up()
    assert float(pano.get_attribute("yaw")) > 20
    assert canvas.evaluate("canvas => canvas.toDataURL()") != before
    page.locator("#sheet img").wait_for()

    page.locator("#ask").click()
    page.get_by_text(re.compile(r"\d+ tokens? in [\d.]+ s")).wait_for()
    assert page.locator("#answers .message.bot").last.inner_text().strip()
    page.locator("#question textarea").fill("what colour is it?")
    page.locator("#ask").click()
    page.locator("#answers .message.user").nth(1).wait_for()  # the first question and answer still stand there
    page.wait_for_function("document.querySelectorAll('#answers .message.bot').length === 2")
    assert [one.inner_text().strip() for one in page.locator("#answers .message.user").all()][1] == "what colour is it?"
    page.locator("#examples img").nth(1).click()  # another panorama: another conversation
    page.wait_for_function("document.querySelectorAll('#answers .message').length === 0")


def test_the_viewer_of_the_kept_library_looks_around_by_hand_and_by_two_fingers(webgl_page: Any) -> None:
    page = webgl_page
    page.locator("#examples img").first.click()
    pano = page.locator("pano-view[yaw]")
    pano.wait_for()
    assert pano.get_attribute("drawn-by") == "pannellum"
    page.wait_for_timeout(500)
    box = page.locator("pano-view .pano-stage").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 120, y, steps=6)
    page.mouse.up()
    page.wait_for_function("Number(document.querySelector('pano-view').getAttribute('yaw')) > 10")
    before = float(pano.get_attribute("fov"))
    page.evaluate(PINCH)
    page.wait_for_function(f"Number(document.querySelector('pano-view').getAttribute('fov')) < {before - 5}")


def test_without_webgl_two_fingers_come_nearer_too(page: Any) -> None:
    page.locator("#examples img").first.click()
    pano = page.locator("pano-view[yaw]")
    pano.wait_for()
    page.evaluate(
        """() => {
          const canvas = document.querySelector("pano-view canvas"), box = canvas.getBoundingClientRect();
          const y = box.y + box.height / 2, x = box.x + box.width / 2;
          canvas.setPointerCapture = () => {};
          const send = (kind, id, at) => canvas.dispatchEvent(
            new PointerEvent(kind, { pointerId: id, clientX: at, clientY: y, bubbles: true }));
          send("pointerdown", 1, x - 30); send("pointerdown", 2, x + 30);
          send("pointermove", 1, x - 60); send("pointermove", 2, x + 60);
          send("pointerup", 1, x - 60); send("pointerup", 2, x + 60);
        }"""
    )
    page.wait_for_function("document.querySelector('pano-view').getAttribute('fov') === '45.0'")
    assert pano.get_attribute("yaw") == "0.0"


def test_the_examples_are_small_pictures_side_by_side(page: Any) -> None:
    page.locator("#examples button img").first.wait_for()
    boxes = [image.bounding_box() for image in page.locator("#examples button:has(img)").all()]
    assert len(boxes) >= 2 and len({round(box["y"]) for box in boxes}) == 1
    assert all(1.8 < box["width"] / box["height"] < 2.2 and box["width"] < 450 for box in boxes)


def test_a_phone_sees_everything_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("#examples img").first.click()
    page.locator("pano-view[yaw]").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "Trained on 24 questions and answers" in page.locator("#about").inner_text()


def test_an_empty_seed_is_none_and_a_wrong_one_is_answered(page: Any) -> None:
    page.locator("#examples img").first.click()
    page.locator("pano-view[yaw]").wait_for()
    page.locator("#options button").first.click()
    page.locator("#sample input").check()
    seed = page.get_by_label("Seed (empty")
    assert seed.input_value() == ""
    with page.expect_request(lambda request: "queue/join" in request.url) as asked:
        page.locator("#ask").click()
    assert asked.value.post_data_json["data"][7] == ""
    page.get_by_text(re.compile(r"\d+ tokens? in [\d.]+ s")).wait_for()
    seed.fill("-1")
    page.locator("#ask").click()
    page.get_by_text("The seed is a whole number from 0 to").wait_for()


def test_a_long_name_stays_within_its_notice(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    drop(page, "a_photograph_of_" * 8 + ".png", b"words")
    notice = page.locator("#notice [role=alert]")
    notice.wait_for()
    assert notice.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_the_view_keeps_left_and_right(page: Any) -> None:
    """A panorama that is red to the right of its centre and blue to the left shows so when one turns."""
    panorama = Image.new("RGB", (512, 256), (0, 0, 255))
    panorama.paste((255, 0, 0), (256, 0, 512, 256))
    stream = io.BytesIO()
    panorama.save(stream, "PNG")
    drop(page, "halves.png", stream.getvalue())
    page.locator("pano-view[yaw]").wait_for()
    middle = "canvas => [...canvas.getContext('2d').getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data]"
    canvas = page.locator("pano-view canvas")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    red, _, blue, _ = canvas.evaluate(middle)
    assert red > 200 > 60 > blue
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    red, _, blue, _ = canvas.evaluate(middle)
    assert blue > 200 > 60 > red


def test_bad_uploads_are_answered_kindly_and_the_page_goes_on(page: Any) -> None:
    page.locator("#ask").click()
    page.get_by_text("Choose a panorama first.").wait_for()
    good = encoded((256, 128), "JPEG")
    bad = {
        "square.png": (encoded((64, 64), "PNG"), "twice as wide"),
        "words.jpg": (b"these are words", "not a picture"),
        "cut.jpg": (good[: len(good) // 2], "ends too early"),
        "empty.png": (b"", "ends too early"),
    }
    for name, (content, expected) in bad.items():
        drop(page, name, content)
        notice = page.locator("#notice [role=alert]", has_text=name)
        notice.wait_for()
        assert expected in notice.inner_text()
        assert page.locator("pano-view").count() == 0
    drop(page, "good.webp", encoded((256, 128), "WEBP"))
    page.locator("pano-view[yaw]").wait_for()
    assert not page.get_by_text("Questions of the test set").is_visible()  # of a panorama of one's own there are none
    assert page.locator("#notice [role=alert]").count() == 0
    assert "256 x 128" in page.locator("#notice").inner_text()
