"""The pages put together: layout (`layout`), actions (`actions`), endpoints for programs (`named`).

Three areas: the picture with what was looked at, the reasoning, and the result. Three controls are in sight (preset,
strength, seed); the rest is folded. It must not know jobs or how anything is made.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from gradio.routes import BUILD_PATH_LIB

from ..service.desk import Desk  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..web.guards import Application  # noqa: TID252
from ..web.kept import KeptFiles  # noqa: TID252
from . import views
from .actions import Batch, OnePicture
from .front import Front
from .handlers import Handlers, Session
from .layout import about_area, batch_area, picture_area, restoration_area, words_area
from .named import add_endpoints
from .samples import make_samples
from .theme import STYLE, make_theme

_LINKS = {"HTTP API": "openapi.json", "Limits": "v1/limits"}
_TABS = ("One picture", "Batch", "About")

_HANDLERS_AT_ONCE = 64
"""Of each kind; they only wait for jobs, whose number the desk bounds."""

_LOOK_SECONDS = 0.02

_CACHE_SECONDS = (600, 3600)
"""How often the pages' own copies of uploads are looked through, and how old they may get."""


def add_pages(app: FastAPI, desk: Desk) -> Application:
    """`app` with the pages at its root."""
    handlers = Handlers(desk)
    blocks = make_blocks(desk, handlers)
    blocks.queue(
        max_size=4 * _HANDLERS_AT_ONCE,
        default_concurrency_limit=_HANDLERS_AT_ONCE,
        api_open=False,
        status_update_rate=5,
    )
    # It looks for work a thousand times a second (8 % of a core, measured with nothing to do); this is often enough.
    blocks._queue.sleep_when_free = _LOOK_SECONDS
    style = STYLE.read_text("utf-8")
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        allowed_paths=[],
        blocked_paths=[str(desk.settings.folder / "jobs"), str(desk.settings.folder / "jobs.sqlite3")],
        show_error=False,
        max_file_size=desk.settings.limits.file_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        run_history=False,
        footer_links=[],
        theme=make_theme(),
        css=style,
    )
    front = Front(app, handlers, blocks.theme_css + style, views.shell(_LINKS, _TABS))
    return KeptFiles(front, "/assets/", Path(BUILD_PATH_LIB))


def make_blocks(desk: Desk, handlers: Handlers) -> gr.Blocks:
    """The pages over a desk."""
    settings = desk.settings
    samples = make_samples(settings.folder / "samples")
    with gr.Blocks(
        title="Zoom-IQA and restore-bridge",
        analytics_enabled=False,
        delete_cache=_CACHE_SECONDS,
        fill_width=True,
    ) as blocks:
        session = gr.State(Session(), time_to_live=settings.keep_seconds)
        gr.HTML(views.head(_LINKS), elem_classes="zq-top-bar")
        with gr.Tabs():
            with gr.Tab(_TABS[0]):
                with gr.Row(elem_classes="zq-areas"):
                    picture = picture_area(settings, samples)
                    words = words_area()
                    restoration = restoration_area([offer.name for offer in settings.restorers if offer.is_ready])
                result = gr.HTML(visible=False, elem_id="zq-result", container=True)
            with gr.Tab(_TABS[1]):
                batch = batch_area()
            with gr.Tab(_TABS[2]):
                about_area(settings)
        OnePicture(handlers, session, picture, words, restoration, result).connect(blocks, samples)
        Batch(handlers, session, batch, restoration.choices).connect(picture.assessor)
        add_endpoints(handlers, settings.default_restorer)
    return blocks
