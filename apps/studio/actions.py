"""Which action fills which place. It must not know jobs, or how anything is laid out or made.

A handler of `handlers` gives new values by the name of a place; here they become updates of the page's parts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import gradio as gr

from .handlers import Handlers, Session, Shown
from .layout import PRESETS, BatchArea, PictureArea, RestorationArea, WordsArea
from .samples import Sample

Updates = dict[Any, Any]
"""New values by part."""

_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

_SHOW_RESULT = "() => document.querySelector('#zq-result .zq-slider')?.scrollIntoView({block: 'nearest'})"

_WITH_TICKET = "(ticket, is_there, own) => [window.zqTicket ?? '', window.zqIsWhole ?? false, own]"


class OnePicture:
    """The actions of the first tab."""

    def __init__(
        self,
        handlers: Handlers,
        session: gr.State,
        picture: PictureArea,
        words: WordsArea,
        restoration: RestorationArea,
        result: gr.HTML,
    ) -> None:
        self._handlers, self._session = handlers, session
        self._picture, self._words, self._restoration = picture, words, restoration
        self._places = {
            "stage": picture.stage,
            "reasoning": words.reasoning,
            "rating": words.rating,
            "signals": picture.signals,
            "maps": picture.maps,
            "positive": restoration.positive,
            "negative": restoration.negative,
            "sent": restoration.sent,
            "progress": restoration.progress,
            "result": result,
        }
        self._all = [picture.place, *self._places.values(), picture.assess, picture.cancel, restoration.restore]

    def connect(self, blocks: gr.Blocks, samples: Sequence[Sample]) -> None:
        """Let every control do something."""
        area, restoration, session = self._picture, self._restoration, self._session
        asked = [area.picture, area.assessor, area.question]
        if self._handlers.opening.is_on:
            ticket, is_there = gr.Textbox(visible=False), gr.Checkbox(visible=False)
            blocks.load(self._open, [ticket, is_there, session], self._all, js=_WITH_TICKET, **_PRIVATE)
        area.picture.upload(self._choose, [*asked, area.at_once, session], self._all, **_PRIVATE)
        area.assess.click(self._assess, [*asked, session], self._all, **_PRIVATE)
        restoration.restore.click(
            with_request(self._restore),
            [*asked, session, restoration.positive, restoration.negative, *restoration.choices.values()],
            self._all,
            **_PRIVATE,
        ).then(None, js=_SHOW_RESULT, **_PRIVATE)
        area.maps.input(self._show_map, [area.maps, session], self._all, **_PRIVATE)
        area.cancel.click(self._handlers.cancel, [session], None, queue=False, **_PRIVATE)
        cleared = [area.picture, area.place, area.stage, restoration.restore, area.assess, area.cancel]
        area.another.click(lambda own: self._clear(None, own), [session], cleared, **_PRIVATE)
        for button, sample in zip(area.samples, samples, strict=True):
            button.click(
                lambda own, path=str(sample.file): self._clear(path, own), [session], cleared, **_PRIVATE
            ).then(self._choose, [*asked, area.at_once, session], self._all, **_PRIVATE)
        numbers = [restoration.choices[name] for name in _OF_A_PRESET]
        restoration.preset.input(_numbers_of, [restoration.preset], numbers, **_PRIVATE)
        for control in numbers:
            control.input(lambda: None, None, [restoration.preset], **_PRIVATE)

    def _show(self, shown: Shown) -> Updates:
        """New values for the places."""
        area, restoration = self._picture, self._restoration
        updates: Updates = {self._places[name]: value for name, value in shown.items() if name in self._places}
        if "stage" in shown:
            updates[area.place] = gr.update(visible=False)
        if "result" in shown:
            updates[self._places["result"]] = gr.update(value=shown["result"], visible=bool(shown["result"]))
        if "maps" in shown:
            updates[area.maps] = gr.update(choices=shown["maps"], value="none")
        if "is_busy" in shown:
            updates[area.assess] = gr.update(interactive=not shown["is_busy"])
            updates[area.cancel] = gr.update(interactive=shown["is_busy"])
            updates[restoration.restore] = gr.update(interactive=shown.get("can_restore", False))
        return updates

    async def _assess(
        self, file: str | None, name: str, words: str, own: Session, request: gr.Request
    ) -> AsyncIterator[Updates]:
        async for shown in self._handlers.assess(file, name, words, client_of(request), own):
            yield self._show(shown)

    async def _choose(
        self, file: str | None, name: str, words: str, is_wanted: bool, own: Session, request: gr.Request
    ) -> AsyncIterator[Updates]:
        if not is_wanted or file is None:
            yield {}
            return
        async for shown in self._handlers.assess(file, name, words, client_of(request), own):
            yield self._show(shown)

    async def _restore(
        self, file: str | None, name: str, words: str, own: Session, wanted: str, unwanted: str, *chosen: Any
    ) -> AsyncIterator[Updates]:
        *values, request = chosen
        options = {
            **dict(zip(self._restoration.choices, values, strict=True)),
            "assessor": name,
            "question": words,
            "positive": wanted,
            "negative": unwanted,
        }
        async for shown in self._handlers.restore(file, options, client_of(request), own):
            yield self._show(shown)

    async def _show_map(self, name: str, own: Session) -> Updates:
        return self._show(await self._handlers.show_map(name, own))

    async def _open(self, ticket: str, is_there: bool, own: Session) -> AsyncIterator[Updates]:
        async for shown in self._handlers.open(ticket, is_there, own):
            yield self._show(shown)

    def _clear(self, file: str | None, own: Session) -> Updates:
        """Another picture in the place of the one that was looked at."""
        area = self._picture
        own.turn += 1
        own.first = None
        return {
            area.picture: file,
            area.place: gr.update(visible=True),
            area.stage: "",
            self._restoration.restore: gr.update(interactive=False),
            area.assess: gr.update(interactive=True),
            area.cancel: gr.update(interactive=False),
        }


class Batch:
    """The actions of the second tab; assessor and options are those of the first."""

    def __init__(self, handlers: Handlers, session: gr.State, area: BatchArea, choices: dict[str, Any]) -> None:
        self._handlers, self._session, self._area, self._choices = handlers, session, area, choices

    def connect(self, assessor: gr.Dropdown) -> None:
        """Let every control do something."""
        area = self._area
        area.stop.click(self._handlers.cancel, [self._session], None, queue=False, **_PRIVATE)
        area.start.click(
            with_request(self._start),
            [area.pictures, area.what, assessor, self._session, *self._choices.values()],
            [area.table, area.csv, area.start, area.stop],
            **_PRIVATE,
        )

    async def _start(
        self, files: list[str], kind: str, name: str, own: Session, *chosen: Any
    ) -> AsyncIterator[Updates]:
        *values, request = chosen
        options = {"assessor": name}
        if kind == "restore":
            options |= dict(zip(self._choices, values, strict=True))
        area = self._area
        async for shown in self._handlers.batch(files, kind, options, client_of(request), own):
            updates: Updates = {}
            if "table" in shown:
                updates[area.table] = shown["table"]
            if "csv" in shown:
                updates[area.csv] = shown["csv"]
            if "is_busy" in shown:
                updates[area.start] = gr.update(interactive=not shown["is_busy"])
                updates[area.stop] = gr.update(interactive=shown["is_busy"])
            yield updates


def with_request(handler: Any) -> Any:
    """`handler` with the request as its last argument; Gradio looks for it by annotation, which `*args` cannot have."""

    async def with_request(request: gr.Request, *values: Any) -> AsyncIterator[Updates]:
        async for updates in handler(*values, request):
            yield updates

    return with_request


def client_of(request: gr.Request | None) -> str:
    """The client's address, which is what its jobs are counted by."""
    return request.client.host if request is not None and request.client else "local"


_OF_A_PRESET = ("strength", "candidates", "loop")
"""Options that a preset sets."""


def _numbers_of(preset: str) -> tuple[Any, ...]:
    numbers = PRESETS.get(preset)
    return tuple(gr.skip() if numbers is None else numbers[name] for name in _OF_A_PRESET)
