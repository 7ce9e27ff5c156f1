"""The layout, and which action fills which place. It must not know jobs or how anything is made.

Three areas: the picture with what was looked at, the reasoning, and the result. Three controls are in sight (preset,
strength, seed); the rest is folded. The API names `/assess`, `/prompts`, `/restore` and `/score` are stable.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.routes import BUILD_PATH_LIB

from restore_bridge.color import COLOR_FIX_CHOICES
from restore_bridge.report import HONESTY
from zoomiqa.errors import ZoomIQAError

from ..service.desk import Desk  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.errors import for_strangers  # noqa: TID252
from ..service.store import Job  # noqa: TID252
from ..service.tasks import ENCODERS, FORMATS, MOST_CANDIDATES, MOST_ROUNDS, PREPASSES  # noqa: TID252
from ..web.guards import Application  # noqa: TID252
from ..web.kept import KeptFiles  # noqa: TID252
from . import views
from .front import Front
from .handlers import CHOOSE, Handlers, Session, Shown, is_embedded
from .samples import make_samples
from .theme import STYLE, make_theme
from .uploads import picture_input, pictures_input

_PRESETS: Mapping[str, Mapping[str, float]] = json.loads((Path(__file__).parent / "data" / "presets.json").read_text())
_DEFAULT_PRESET = "Balanced"

_SHOW_RESULT = "() => document.querySelector('#zq-result .zq-slider')?.scrollIntoView({block: 'nearest'})"

_WITH_TICKET = "(ticket, is_there, own) => [window.zqTicket ?? '', window.zqIsWhole ?? false, own]"

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
    ready = [offer.name for offer in settings.restorers if offer.is_ready]
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
                    with gr.Column(min_width=330, elem_classes="zq-area"):
                        gr.HTML("<h2>1 · Picture</h2>")
                        # For the input itself no event returns an update, nor is it left out of a returned mapping:
                        # Gradio would put one without our checks (`uploads`) in its place, for that page.
                        with gr.Column(elem_id="zq-picture-place") as picture_place:
                            picture = picture_input(
                                label="Photograph (JPEG, PNG, WEBP, TIFF or BMP)",
                                sources=["upload", "clipboard"],
                                own_folder=settings.folder / "samples",
                                height=300,
                                elem_id="zq-picture",
                                buttons=["fullscreen"],
                            )
                        # Always mounted: of an update that shows a part and fills it, Gradio may lose the filling.
                        stage = gr.HTML(elem_id="zq-stage")
                        with gr.Row(elem_classes="zq-samples"):
                            sample_buttons = [
                                gr.Button(sample.title, icon=str(sample.icon), size="sm", min_width=120)
                                for sample in samples
                            ]
                        with gr.Row():
                            assess = gr.Button("Assess", variant="primary", elem_id="zq-assess", min_width=110)
                            cancel = gr.Button("Cancel", interactive=False, elem_id="zq-cancel", min_width=90)
                            another = gr.Button("New picture", elem_id="zq-another", min_width=110)
                        with gr.Accordion("Who assesses, and what is asked", open=False):
                            assessor = gr.Dropdown(
                                list(settings.assessors),
                                value=settings.default_assessor,
                                label="Assessor",
                                filterable=False,
                            )
                            question = gr.Textbox(label="Your own question (none: the assessor's own)", max_length=500)
                            at_once = gr.Checkbox(
                                is_embedded(settings), label="Assess a picture as soon as it is chosen"
                            )
                        with gr.Accordion("Measured signals and maps", open=False, elem_id="zq-signals-fold"):
                            maps = gr.Dropdown(["none"], value="none", label="Map over the picture", elem_id="zq-maps")
                            signals = gr.HTML(views.empty("Nothing was measured yet."), elem_id="zq-signals")
                    with gr.Column(min_width=330, elem_classes="zq-area"):
                        gr.HTML("<h2>2 · Assessment</h2>")
                        rating = gr.HTML(elem_id="zq-rating")
                        reasoning = gr.HTML(
                            views.empty(CHOOSE),
                            elem_id="zq-reasoning",
                        )
                    with gr.Column(min_width=330, elem_classes="zq-area"):
                        gr.HTML("<h2>3 · Restoration</h2>")
                        positive = gr.Textbox(
                            label="Wanted (one phrase a line)",
                            lines=3,
                            max_lines=8,
                            elem_id="zq-positive",
                            max_length=4000,
                        )
                        negative = gr.Textbox(
                            label="To be gone (one phrase a line, [place] behind it)",
                            lines=3,
                            max_lines=8,
                            elem_id="zq-negative",
                            max_length=4000,
                        )
                        with gr.Row():
                            preset = gr.Radio(list(_PRESETS), value=_DEFAULT_PRESET, label="Preset", min_width=200)
                        with gr.Row():
                            strength = gr.Slider(0.05, 1, value=1, step=0.05, label="Strength", min_width=170)
                            seed = gr.Number(42, label="Seed", precision=0, minimum=0, maximum=2**32 - 1, min_width=90)
                        with gr.Accordion("More", open=False):
                            restorer = gr.Dropdown(ready, value=ready[0], label="Restorer", filterable=False)
                            candidates = gr.Slider(1, MOST_CANDIDATES, value=2, step=1, label="Candidates in a round")
                            loop = gr.Slider(1, MOST_ROUNDS, value=1, step=1, label="Rounds at most")
                            scale = gr.Radio([1, 2, 4], value=1, label="Enlargement")
                            color_fix = gr.Dropdown(
                                list(COLOR_FIX_CHOICES),
                                value="auto",
                                label="Colour held by",
                                filterable=False,
                            )
                            prepass = gr.Dropdown(list(PREPASSES), value="none", label="Pre-pass", filterable=False)
                            file_format = gr.Dropdown(list(FORMATS), value="png", label="Format", filterable=False)
                        with gr.Accordion("What a prompt encoder gets", open=False):
                            sent = gr.HTML(views.empty("Nothing was sent yet."), elem_id="zq-sent")
                        restore = gr.Button("Restore", variant="primary", elem_id="zq-restore", interactive=False)
                        progress = gr.HTML(elem_id="zq-progress")
                result = gr.HTML(visible=False, elem_id="zq-result", container=True)
            with gr.Tab(_TABS[1]), gr.Row(elem_classes="zq-areas"):
                with gr.Column(scale=1, min_width=300, elem_classes="zq-area"):
                    pictures = pictures_input(label="Photographs", elem_id="zq-pictures", height=240)
                    what = gr.Radio(
                        [("Assess", "assess"), ("Assess and restore", "restore")], value="restore", label="Do"
                    )
                    with gr.Row():
                        start = gr.Button("Start", variant="primary", elem_id="zq-batch-start", min_width=100)
                        stop = gr.Button("Cancel", interactive=False, elem_id="zq-batch-cancel", min_width=100)
                with gr.Column(scale=3, min_width=330, elem_classes="zq-area"):
                    table = gr.HTML(views.empty("One row for each picture appears here."), elem_id="zq-table")
                    csv = gr.HTML(elem_id="zq-csv")
            with gr.Tab(_TABS[2]):
                gr.HTML(f"<p>{HONESTY}</p><h3>Restorers that are not ready here</h3>")
                gr.HTML(views.offers([offer.to_dict() for offer in settings.restorers]))

        choices = {
            "restorer": restorer,
            "strength": strength,
            "seed": seed,
            "candidates": candidates,
            "loop": loop,
            "scale": scale,
            "color_fix": color_fix,
            "prepass": prepass,
            "format": file_format,
        }
        places = {
            "stage": stage,
            "reasoning": reasoning,
            "rating": rating,
            "signals": signals,
            "maps": maps,
            "positive": positive,
            "negative": negative,
            "sent": sent,
            "progress": progress,
            "result": result,
        }
        one = [picture_place, *places.values(), assess, cancel, restore]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

        def show(shown: Shown) -> dict[Any, Any]:
            """New values for the places of the first tab."""
            updates: dict[Any, Any] = {places[name]: value for name, value in shown.items() if name in places}
            if "stage" in shown:
                updates[picture_place] = gr.update(visible=False)
            if "result" in shown:
                updates[result] = gr.update(value=shown["result"], visible=bool(shown["result"]))
            if "maps" in shown:
                updates[maps] = gr.update(choices=shown["maps"], value="none")
            if "is_busy" in shown:
                updates[assess] = gr.update(interactive=not shown["is_busy"])
                updates[cancel] = gr.update(interactive=shown["is_busy"])
                updates[restore] = gr.update(interactive=shown.get("can_restore", False))
            return updates

        async def on_assess(
            file: str | None, name: str, words: str, own: Session, request: gr.Request
        ) -> AsyncIterator[dict[Any, Any]]:
            async for shown in handlers.assess(file, name, words, _client(request), own):
                yield show(shown)

        async def on_restore(
            file: str | None, name: str, words: str, own: Session, wanted: str, unwanted: str, *chosen: Any
        ) -> AsyncIterator[dict[Any, Any]]:
            *values, request = chosen
            options = {
                **dict(zip(choices, values, strict=True)),
                "assessor": name,
                "question": words,
                "positive": wanted,
                "negative": unwanted,
            }
            async for shown in handlers.restore(file, options, _client(request), own):
                yield show(shown)

        async def on_map(name: str, own: Session) -> dict[Any, Any]:
            return show(await handlers.show_map(name, own))

        async def on_open(ticket: str, is_there: bool, own: Session) -> AsyncIterator[dict[Any, Any]]:
            async for shown in handlers.open(ticket, is_there, own):
                yield show(shown)

        async def on_chosen(
            file: str | None, name: str, words: str, is_wanted: bool, own: Session, request: gr.Request
        ) -> AsyncIterator[dict[Any, Any]]:
            if not is_wanted or file is None:
                yield {}
                return
            async for shown in handlers.assess(file, name, words, _client(request), own):
                yield show(shown)

        def cleared(file: str | None, own: Session) -> dict[Any, Any]:
            """Another picture in the place of the one that was looked at."""
            own.turn += 1
            own.first = None
            return {
                picture: file,
                picture_place: gr.update(visible=True),
                stage: "",
                restore: gr.update(interactive=False),
                assess: gr.update(interactive=True),
                cancel: gr.update(interactive=False),
            }

        if handlers.opening.is_on:
            ticket, is_there = gr.Textbox(visible=False), gr.Checkbox(visible=False)
            blocks.load(on_open, [ticket, is_there, session], one, js=_WITH_TICKET, **private)
        picture.upload(on_chosen, [picture, assessor, question, at_once, session], one, **private)
        assess.click(on_assess, [picture, assessor, question, session], one, **private)
        restore.click(
            _with_request(on_restore),
            [picture, assessor, question, session, positive, negative, *choices.values()],
            one,
            **private,
        ).then(None, js=_SHOW_RESULT, **private)
        maps.input(on_map, [maps, session], one, **private)
        for button in (cancel, stop):
            button.click(handlers.cancel, [session], None, queue=False, **private)
        places_of_cleared = [picture, picture_place, stage, restore, assess, cancel]
        another.click(lambda own: cleared(None, own), [session], places_of_cleared, **private)
        for button, sample in zip(sample_buttons, samples, strict=True):
            button.click(
                lambda own, path=str(sample.file): cleared(path, own), [session], places_of_cleared, **private
            ).then(on_chosen, [picture, assessor, question, at_once, session], one, **private)
        preset.input(_set_preset, [preset], [strength, candidates, loop], **private)
        for control in (strength, candidates, loop):
            control.input(lambda: None, None, [preset], **private)

        async def on_batch(
            files: list[str], kind: str, name: str, own: Session, *chosen: Any
        ) -> AsyncIterator[dict[Any, Any]]:
            *values, request = chosen
            options = {"assessor": name}
            if kind == "restore":
                options |= dict(zip(choices, values, strict=True))
            async for shown in handlers.batch(files, kind, options, _client(request), own):
                updates: dict[Any, Any] = {}
                if "table" in shown:
                    updates[table] = shown["table"]
                if "csv" in shown:
                    updates[csv] = shown["csv"]
                if "is_busy" in shown:
                    updates[start] = gr.update(interactive=not shown["is_busy"])
                    updates[stop] = gr.update(interactive=shown["is_busy"])
                yield updates

        start.click(
            _with_request(on_batch),
            [pictures, what, assessor, session, *choices.values()],
            [table, csv, start, stop],
            **private,
        )
        _add_api(handlers, settings.default_restorer)
    return blocks


def _add_api(handlers: Handlers, default_restorer: str) -> None:
    """Endpoints for `gradio_client`: their names and parameters are stable."""
    with gr.Group(visible=False):
        fields: dict[str, Any] = {
            "picture": picture_input(label="picture"),
            "before": picture_input(label="before"),
            "after": picture_input(label="after"),
            "assessor": gr.Textbox("", label="assessor (none: the default)"),
            "question": gr.Textbox("", label="question (none: the assessor's own)"),
            "encoder": gr.Dropdown(list(ENCODERS), value="clip", label="encoder"),
            "restorer": gr.Textbox(default_restorer, label="restorer"),
            "positive": gr.Textbox("", label="wanted phrases, one a line (none: the assessment's)"),
            "negative": gr.Textbox("", label="phrases to be gone, one a line (none: the assessment's)"),
            "strength": gr.Number(1.0, label="strength"),
            "seed": gr.Number(42, label="seed", precision=0),
        }
        answer = gr.JSON(label="record")
        restored = gr.File(label="restored")
        button = gr.Button()

    async def assess(request: gr.Request, picture: str, assessor: str, question: str) -> Any:
        """Assess a picture; the assessment as a record."""
        options = {"assessor": assessor, "question": question}
        return (await _whole(handlers, "assess", options, [picture], request))["assessment"]

    async def prompts(request: gr.Request, picture: str, encoder: str) -> Any:
        """Assess a picture and split the words into prompts within an encoder's budget."""
        return await _whole(handlers, "prompts", {"encoder": encoder}, [picture], request)

    async def restore(
        request: gr.Request, picture: str, restorer: str, positive: str, negative: str, strength: float, seed: int
    ) -> Any:
        """Restore a picture; the kept picture as a file, and the record."""
        options = {
            "restorer": restorer,
            "positive": positive or None,
            "negative": negative or None,
            "strength": strength,
            "seed": seed,
        }
        done = await _whole(handlers, "restore", options, [picture], request)
        return done["path"], done["record"]

    async def score(request: gr.Request, before: str, after: str) -> Any:
        """Compare a picture before and after; one row for each metric."""
        return (await _whole(handlers, "score", {}, [before, after], request))["scores"]

    for name, handler, inputs, outputs in (
        ("assess", assess, ("picture", "assessor", "question"), [answer]),
        ("prompts", prompts, ("picture", "encoder"), [answer]),
        ("restore", restore, ("picture", "restorer", "positive", "negative", "strength", "seed"), [restored, answer]),
        ("score", score, ("before", "after"), [answer]),
    ):
        button.click(handler, [fields[field] for field in inputs], outputs, api_name=name, show_progress="hidden")


async def _whole(
    handlers: Handlers, kind: str, options: Mapping[str, Any], files: list[str | None], request: gr.Request
) -> dict[str, Any]:
    """A job's result; its failure as an error that a client sees."""
    try:
        job: Job = await handlers.whole(kind, options, files, _client(request))
    except ZoomIQAError as error:
        shown = for_strangers(error)
        raise gr.Error(f"{shown['code']}: {shown['message']}") from None
    if job.error is not None:
        raise gr.Error(f"{job.error['code']}: {job.error['message']}")
    result = _named(dict(job.result or {}))
    if kind == "restore":
        result["path"] = str(handlers.desk.file(job.id, result["files"]["picture"]))
    return result


def _named(value: Any) -> Any:
    """`value` with "name" for "path" in it: Gradio's client takes whatever has a path for a file, and asks for it."""
    if isinstance(value, dict):
        return {"name" if key == "path" else key: _named(item) for key, item in value.items()}
    return [_named(item) for item in value] if isinstance(value, list) else value


def _with_request(handler: Any) -> Any:
    """`handler` with the request as its last argument; Gradio looks for it by annotation, which `*args` cannot have."""

    async def with_request(request: gr.Request, *values: Any) -> AsyncIterator[dict[Any, Any]]:
        async for updates in handler(*values, request):
            yield updates

    return with_request


def _client(request: gr.Request | None) -> str:
    return request.client.host if request is not None and request.client else "local"


def _set_preset(name: str) -> tuple[Any, Any, Any]:
    if name not in _PRESETS:
        return gr.skip(), gr.skip(), gr.skip()
    numbers = _PRESETS[name]
    return numbers["strength"], numbers["candidates"], numbers["loop"]
