"""The page: drop a panorama, look around in it, ask, see the answer and the views that the model was given.

Everything is served from this machine: no fonts, scripts or counters from outside. What a visitor gets wrong is
answered in a sentence on the page; the model is never asked with it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from panollava.errors import DataError, PanollavaError
from panollava.logs import LOGGER
from panollava.serve.answering import Answering, OpenedPanorama
from panollava.serve.examples import Example
from panollava.views.panorama import load_panorama

MAX_UPLOAD = "100mb"
MOST_WAITING = 20  # requests in the queue; who comes later is told that the page is busy
_KEPT_S = 3600  # how long a visitor's views are kept
_THUMBNAIL_WIDTH = 320
_EMPTY = '<div class="pano-empty">Drop a 360° panorama (twice as wide as high), or choose an example.</div>'
_STYLE = """
.pano-empty { display: grid; place-items: center; aspect-ratio: 16 / 9; border: 2px dashed #b9bec7; border-radius: 8px;
  color: #5d6470; padding: 1rem; text-align: center }
pano-view { display: block } pano-view canvas { width: 100%; height: auto; border-radius: 8px; cursor: grab;
  touch-action: none; display: block } pano-view canvas:active { cursor: grabbing }
.pano-label { font-size: .85rem; color: #5d6470; margin-top: .3rem }
.notice { padding: .6rem .9rem; border-radius: 8px; background: #fdf0ef; color: #8f1d18 }
#sheet img { max-width: 62rem; margin: 0 auto }
.quiet { color: #5d6470; font-size: .9rem }
"""
_FONT = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]


def build_page(answering: Answering, examples: Sequence[Example], about: Sequence[str]) -> gr.Blocks:
    """The page of one loaded stage. `about` are the lines that say what answers."""
    metadata = answering.loaded.metadata
    title = f"{metadata['experiment_name']} · panollava"
    most_tokens: int = int(metadata["remembered"]["generation"]["max_new_tokens"])

    limit = max(256, most_tokens)

    def look(path: str | Path, uploaded: bool = False) -> tuple[Any, ...]:
        name = Path(path).name
        try:
            opened = answering.open(path, uploaded)
        except DataError as error:
            return None, _EMPTY, None, "", _notice(f"{name}: {error}")
        width, height = opened.size
        return opened.views, _viewer(opened), opened.sheet, "", _quiet(f"{name}, {width} x {height} pixels")

    def take(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, None, _EMPTY, None, "", ""
        try:
            return None, *look(path, uploaded=True)  # the drop zone is free for the next one
        finally:
            Path(path).unlink(missing_ok=True)  # gradio's copy of the upload: nothing reads it again

    def choose(event: gr.SelectData) -> tuple[Any, ...]:
        example = examples[event.index]
        return gr.update(choices=list(example.questions), value=example.questions[0]), *look(example.path)

    def ask(views: Any, question: str | None, tokens: float) -> tuple[str, str]:
        if views is None:
            return "", _notice("Choose a panorama first.")
        try:
            asked = min(int(tokens), limit) if isinstance(tokens, (int, float)) else tokens
            given = answering.answer(views, "" if question is None else question, asked)
        except DataError as error:
            return "", _notice(str(error))
        except (PanollavaError, RuntimeError, ValueError) as error:  # one visitor's failure must not end the page
            LOGGER.exception("a question could not be answered")
            return "", _notice(f"The model failed: {error}")
        text = given.text or "(the model answers nothing)"
        return text, _quiet(f"{given.num_tokens} tokens in {given.seconds:.1f} s")

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        views = gr.State(time_to_live=_KEPT_S)
        gr.Markdown(f"# {escape(metadata['experiment_name'])}\n{escape(' · '.join(about))}")
        with gr.Row():
            with gr.Column(scale=3):
                viewer = gr.HTML(_EMPTY, elem_id="viewer")
                upload = gr.File(label="Panorama: JPEG, PNG, WebP, TIFF", type="filepath", elem_id="upload", height=130)
            with gr.Column(scale=2):
                question = gr.Dropdown(
                    label="Question", choices=[], allow_custom_value=True, value="What is behind me?",
                    elem_id="question", info="Type one, or choose one of the example's.",
                )  # fmt: skip
                tokens = gr.Slider(1, limit, value=most_tokens, step=1, label="Most tokens")
                button = gr.Button("Ask", variant="primary", elem_id="ask")
                answer = gr.Textbox(label="Answer", lines=4, interactive=False, elem_id="answer")
                notice = gr.HTML("", elem_id="notice")
        gallery = gr.Gallery(
            [_thumbnail(one.path) for one in examples], label="Examples", columns=max(1, len(examples)), rows=1,
            height=170, object_fit="contain", allow_preview=False, elem_id="examples", buttons=[],
            visible=bool(examples), interactive=False,
        )  # fmt: skip
        with gr.Accordion("What the model sees", open=True):
            sheet = gr.Image(label="The views, and their outlines on the panorama", elem_id="sheet",
                             interactive=False, show_label=False, buttons=["fullscreen"])  # fmt: skip
        shown = [views, viewer, sheet, answer, notice]
        upload.upload(take, upload, [upload, *shown])
        gallery.select(choose, None, [question, *shown])
        button.click(ask, [views, question, tokens], [answer, notice])
    return page


def launch(page: gr.Blocks, host: str, port: int | None, *, block: bool = True) -> str:
    """Serve the page and return its address; with `block`, until Ctrl-C. Raises OSError where the port is taken."""
    script = resources.files("panollava.serve").joinpath("pano_view.js").read_text(encoding="utf-8")
    theme = gr.themes.Default(font=_FONT, font_mono=_MONO)
    _, address, _ = page.queue(default_concurrency_limit=1, max_size=MOST_WAITING).launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, theme=theme, css=_STYLE,
        head=f"<script>{script}</script>", max_file_size=MAX_UPLOAD, footer_links=[], ssr_mode=False, show_error=True,
    )  # fmt: skip
    LOGGER.info("serving %s   (Ctrl-C ends it)", address)
    if block:
        page.block_thread()
    return str(address)


@contextmanager
def uploads_folder() -> Iterator[Path]:
    """A folder of this process for what visitors upload, gone when the block ends."""
    before = os.environ.get("GRADIO_TEMP_DIR")
    with tempfile.TemporaryDirectory(prefix="panollava-serve-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("GRADIO_TEMP_DIR")
            if before is not None:
                os.environ["GRADIO_TEMP_DIR"] = before


def _viewer(opened: OpenedPanorama) -> str:
    return f'<pano-view src="{opened.preview}"></pano-view>'


def _quiet(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def _notice(text: str) -> str:
    return f'<div class="notice" role="alert">{escape(text)}</div>'


def _thumbnail(path: Path) -> Image.Image:
    image = Image.fromarray(load_panorama(path, min_width=_THUMBNAIL_WIDTH))
    return image.resize((_THUMBNAIL_WIDTH, _THUMBNAIL_WIDTH // 2), Image.Resampling.LANCZOS, reducing_gap=2.0)
