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

from panollava.errors import DataError, PanollavaError
from panollava.logs import LOGGER
from panollava.models.checks import TEMPERATURES
from panollava.serve.answering import Answering, OpenedPanorama, Sampling
from panollava.serve.examples import Example
from panollava.serve.notice import trained_on

MAX_UPLOAD = "100mb"
MOST_WAITING = 20  # requests in the queue; later ones are answered that the page is busy
_SEEDS = 2**32
_KEPT_S = 3600  # how long a visitor's views are kept
_MOST_TURNS = 8  # of the conversation that a question's prompt may hold
_EMPTY = '<div class="pano-empty"><span>Drop a 360° panorama (twice as wide as high){or_choose}.</span></div>'
_OR_CHOOSE = ', or <a href="#examples">choose an example</a>'
_STYLE = """
.pano-empty { display: grid; place-items: center; aspect-ratio: 16 / 9; border: 2px dashed #b9bec7; border-radius: 8px;
  color: color-mix(in srgb, var(--body-text-color) 78%, transparent); padding: 1rem; text-align: center }
pano-view { display: block } .pano-stage { aspect-ratio: 16 / 9; border-radius: 8px; overflow: hidden }
.pano-sphere { width: 100%; height: 100% } .pano-stage canvas { touch-action: none }
.pano-stage > canvas { width: 100%; height: 100%; cursor: grab; display: block }
.pano-stage > canvas:active { cursor: grabbing }
.pano-label { font-size: .85rem; color: color-mix(in srgb, var(--body-text-color) 78%, transparent); margin-top: .3rem }
.about { color: color-mix(in srgb, var(--body-text-color) 78%, transparent); font-size: .95rem; margin: 0;
  border-left: 4px solid #b26a00; padding: .2rem .8rem }
#examples, #examples .grid-wrap, #examples .gallery-container { height: auto !important; min-height: 0 !important;
  max-height: none } #examples .grid-wrap { overflow: visible } #examples .thumbnail-lg { aspect-ratio: 2 / 1 }
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(min(11rem, 46%), 1fr)) !important;
  grid-template-rows: none !important }
.notice { padding: .6rem .9rem; border-radius: 8px; background: #fdf0ef; color: #8f1d18 }
.notice, .quiet { overflow-wrap: anywhere }
.pano-empty a { text-decoration: underline; margin: 0 !important; padding: 0 !important }
#upload .wrap { padding-top: 1.4rem } #upload .icon-wrap { display: none } #answers .placeholder { padding: 0 1rem }
#options input[type=range]::-webkit-slider-thumb { box-shadow: 0 0 0 1px var(--body-text-color-subdued) }
#options input[type=range]::-moz-range-thumb { box-shadow: 0 0 0 1px var(--body-text-color-subdued) }
#options .min_value, #options .max_value, #upload .or { color: var(--body-text-color-subdued) }
#sheet img { max-width: 62rem; margin: 0 auto }
.quiet { color: color-mix(in srgb, var(--body-text-color) 78%, transparent); font-size: .9rem }
"""
_READABLE = {
    "body_text_color_subdued": "*neutral_500", "button_primary_background_fill": "*primary_700",
    "button_primary_background_fill_dark": "*primary_700", "button_primary_background_fill_hover": "*primary_800",
    "button_primary_background_fill_hover_dark": "*primary_800",
}  # fmt: skip
"""Where gradio's own colours have less than 4.5:1 of contrast."""
_FONT = ["system-ui", "sans-serif"]
_MONO = ["ui-monospace", "monospace"]


def build_page(answering: Answering, examples: Sequence[Example], about: Sequence[str]) -> gr.Blocks:
    """The page of one loaded stage. `about` are the lines that say what answers."""
    metadata = answering.loaded.metadata
    title = f"{metadata['experiment_name']} · panollava"
    generation: dict[str, Any] = metadata["remembered"]["generation"]
    most_tokens = int(generation["max_new_tokens"])
    limit = max(256, most_tokens)
    empty = _EMPTY.format(or_choose=_OR_CHOOSE if examples else "")
    sentences = trained_on(metadata, answering.model.origin)

    def look(path: str | Path, uploaded: bool = False) -> tuple[Any, ...]:
        name = Path(path).name
        try:
            opened = answering.open(path, uploaded)
        except DataError as error:
            return None, empty, None, [], [], _notice(f"{name}: {error}")
        width, height = opened.size
        said = _quiet(f"{name}, {width} x {height} pixels")
        if opened.unstitched:
            said += _notice(f"{name} looks like two fisheye pictures. Stitch it first: these are no directions.")
        return opened.views, _viewer(opened), opened.sheet, [], [], said

    def take(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return None, _asked([]), None, empty, None, [], [], ""
        try:
            return None, _asked([]), *look(path, uploaded=True)  # the drop zone is free for the next one
        finally:
            Path(path).unlink(missing_ok=True)  # gradio's copy of the upload: nothing reads it again

    def choose(event: gr.SelectData) -> tuple[Any, ...]:
        example = examples[event.index]
        return _asked(example.questions), example.questions[0], *look(example.path)

    def ask(
        views: Any, question: str | None, turns: list[tuple[str, str]], tokens: float, sample: bool, temperature: float,
        top_p: float, seed: str, follows: bool,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """The conversation as it grows; `turns` is what has been asked and answered about this panorama."""
        turns = turns or []
        asked = "" if question is None else question
        if views is None:
            yield _shown(turns), turns, _notice("Choose a panorama first.")
            return
        try:
            wanted = min(int(tokens), limit) if isinstance(tokens, (int, float)) else tokens
            drawn = Sampling(float(temperature), float(top_p), _seed(seed)) if sample else None
            earlier = turns[-_MOST_TURNS:] if follows else ()
            given = None
            for given in answering.stream(views, asked, wanted, sampling=drawn, earlier=earlier):
                yield _shown([*turns, (asked, given.text)]), turns, _quiet("…")
        except DataError as error:
            yield _shown(turns), turns, _notice(str(error))
            return
        except (PanollavaError, RuntimeError, ValueError, TypeError) as error:  # it must not end the page
            LOGGER.exception("a question could not be answered")
            yield _shown(turns), turns, _notice(f"The model failed: {error}")
            return
        assert given is not None
        turns = [*turns, (asked, given.text or "(the model answers nothing)")]
        yield _shown(turns), turns, _quiet(f"{given.num_tokens} tokens in {given.seconds:.1f} s")

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        views, turns = gr.State(time_to_live=_KEPT_S), gr.State([], time_to_live=_KEPT_S)
        gr.Markdown(f"# {escape(metadata['experiment_name'])}\n{escape(' · '.join(about))}")
        gr.HTML(_about(sentences), elem_id="about")
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                viewer = gr.HTML(empty, elem_id="viewer")
                upload = gr.File(label="Panorama: JPEG, PNG, WebP, TIFF", type="filepath", elem_id="upload", height=130)
            with gr.Column(scale=2, min_width=320):
                chat = gr.Chatbot(
                    label="Questions and answers", elem_id="answers", height=300, buttons=["copy"],
                    render_markdown=False, placeholder="Ask about the panorama: answers appear here.",
                )  # fmt: skip
                question = gr.Textbox("What is behind me?", label="Question", elem_id="question", lines=1)
                with gr.Row():
                    button = gr.Button("Ask", variant="primary", elem_id="ask", min_width=120)
                    clear = gr.Button("Clear", elem_id="clear", min_width=120)
                notice = gr.HTML("", elem_id="notice")
                questions = gr.Dataset(
                    components=[question], samples=[], label="Questions of the test set", elem_id="questions",
                    samples_per_page=6, visible=False,
                )  # fmt: skip
                with gr.Accordion("How it answers", open=False, elem_id="options"):
                    tokens = gr.Slider(1, limit, value=most_tokens, step=1, label="Most tokens")
                    follows = gr.Checkbox(False, label="Earlier questions and answers are part of the question",
                                          elem_id="follows")  # fmt: skip
                    sample = gr.Checkbox(bool(generation["do_sample"]), label="Draw words at random", elem_id="sample",
                                         info="Off: the likeliest word each time, always the same answer.")  # fmt: skip
                    temperature = gr.Slider(*TEMPERATURES, value=float(generation["temperature"]), step=0.05,
                                            label="Temperature")  # fmt: skip
                    top_p = gr.Slider(0.05, 1.0, value=float(generation["top_p"]), step=0.05,
                                      label="Top p (share of the likeliest words)")  # fmt: skip
                    seed = gr.Textbox("", label="Seed (empty: another answer each time)", elem_id="seed", lines=1)
        gr.HTML("<h3>Examples</h3>", visible=bool(examples))
        gallery = gr.Gallery(
            [one.thumbnail for one in examples], show_label=False, object_fit="cover", height="auto",
            columns=2, allow_preview=False, elem_id="examples", buttons=[], visible=bool(examples),
            interactive=False,
        )  # fmt: skip
        with gr.Accordion("What the model sees", open=True):
            sheet = gr.Image(label="The views, and their outlines on the panorama", elem_id="sheet",
                             interactive=False, show_label=False, buttons=["fullscreen"])  # fmt: skip
        shown = [views, viewer, sheet, chat, turns, notice]
        given = [views, question, turns, tokens, sample, temperature, top_p, seed, follows]
        upload.upload(take, upload, [upload, questions, *shown])
        gallery.select(choose, None, [questions, question, *shown])
        questions.click(lambda chosen: chosen[0], questions, question, api_name="question")
        clear.click(lambda: ([], [], ""), None, [chat, turns, notice], api_name="clear")
        for event in (button.click, question.submit):
            event(ask, given, [chat, turns, notice])
    return page


def _shown(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Questions and answers as the page's conversation."""
    return [
        {"role": role, "content": text}
        for one, answer in turns
        for role, text in (("user", one), ("assistant", answer))
    ]


def _seed(written: str) -> int | None:
    """What stands in the seed's box, None for nothing: gradio's own box for numbers sends 0 where it is empty."""
    written = str(written).strip()
    if not written:
        return None
    if not (written.isascii() and written.isdecimal() and len(written) <= 10 and int(written) < _SEEDS):
        raise DataError(f"The seed is a whole number from 0 to {_SEEDS - 1}, or empty.")
    return int(written)


def _asked(questions: Sequence[str]) -> dict[str, Any]:
    """The list of a panorama's questions, which is there where there are some."""
    update: dict[str, Any] = gr.update(samples=[[one] for one in questions], visible=bool(questions))
    return update


def _about(sentences: Sequence[str]) -> str:
    return f'<p class="about" role="note">{escape(" ".join(sentences))}</p>'


def launch(page: gr.Blocks, host: str, port: int | None, *, block: bool = True) -> str:
    """Serve the page and return its address; with `block`, until Ctrl-C. Raises OSError where the port is taken."""
    own = resources.files("panollava.serve")
    library = own.joinpath("vendor/pannellum/pannellum.js").read_text(encoding="utf-8")
    script = own.joinpath("pano_view.js").read_text(encoding="utf-8")
    styles = own.joinpath("vendor/pannellum/pannellum.css").read_text(encoding="utf-8")
    theme = gr.themes.Default(font=_FONT, font_mono=_MONO).set(**_READABLE)
    _, address, _ = page.queue(default_concurrency_limit=1, max_size=MOST_WAITING).launch(
        server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True, theme=theme,
        css=styles + _STYLE, head=f"<script>{library}</script><script>{script}</script>", max_file_size=MAX_UPLOAD,
        footer_links=[], ssr_mode=False, show_error=True,
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
