"""The assessment that a page begins with, so that a visitor sees at once what the tool does.

It is a job like any other, about the first sample with noise drawn anew: nothing that was written for an earlier
visitor is shown again. It begins when the page is asked for, before the browser has the page, and is handed over by a
ticket. A visitor who only loads pages cannot fill the queue: one such job is under way at a time, and those who come
meanwhile watch the same one; none is begun unless a worker is free, or faster than `_REFILL_SECONDS` in the long run.
Who gets none finds the page as it is without.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass

from zoomiqa.errors import ZoomIQAError

from ..service.desk import Desk, Upload  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.store import Job  # noqa: TID252
from ..service.tasks import make_task  # noqa: TID252
from .samples import draw_first

CLIENT = "opening"
"""Whose share of the queue these jobs take."""

_BURST, _REFILL_SECONDS = 20.0, 2.0
"""Jobs that may begin one after the other, and the time after which one more may: a bound on the disk as well."""

_REDRAW_SECONDS = 2.0
"""When the next picture is drawn: it takes a twentieth of a second, which those who just came do not wait for."""

_TICKETS = 256


@dataclass(frozen=True, slots=True)
class _Begun:
    ticket: str
    job: asyncio.Task[Job | None]


class Opening:
    """Begins and hands over. All of it is called in one event loop.

    Args:
        desk: Where the jobs are done.
        is_on: Whether a page begins with an assessment at all.
    """

    def __init__(self, desk: Desk, *, is_on: bool) -> None:
        self._desk, self.is_on = desk, is_on
        self._begun: dict[str, _Begun] = {}
        self._latest: _Begun | None = None
        self._redrawing: asyncio.Task[None] | None = None
        self._allowance, self._counted_at = _BURST, time.monotonic()
        self._drawn = _draw() if is_on else None

    def begin(self) -> str:
        """A ticket for an assessment that begins now, or for the one that is under way."""
        if self._latest is None or not self._is_under_way(self._latest):
            ticket = secrets.token_urlsafe(18)
            self._latest = _Begun(ticket, asyncio.get_running_loop().create_task(self._submit()))
            self._begun[ticket] = self._latest
            while len(self._begun) > _TICKETS:
                self._begun.pop(next(iter(self._begun)))
        return self._latest.ticket

    async def job(self, ticket: str) -> Job | None:
        """The job of a ticket; none where the service had no room for one, or does not know the ticket."""
        begun = self._begun.get(ticket)
        return await asyncio.shield(begun.job) if begun is not None else None

    def _is_under_way(self, begun: _Begun) -> bool:
        if not begun.job.done():
            return True
        job = begun.job.result()
        if job is None:
            return False
        try:
            return not self._desk.get(job.id).has_ended
        except ZoomIQAError:
            return False

    async def _submit(self) -> Job | None:
        if not self.is_on or not self._has_worker() or not self._may_begin():
            return None
        try:
            task = make_task("assess", {}, self._desk.settings)
            picture, self._drawn = self._drawn, None
            if picture is None:
                picture = await asyncio.to_thread(_draw)
            return await asyncio.to_thread(self._desk.submit, task, [picture], CLIENT)
        except ZoomIQAError:
            return None
        finally:
            asyncio.get_running_loop().call_later(_REDRAW_SECONDS, self._redraw)

    def _redraw(self) -> None:
        if self._drawn is None:
            self._redrawing = asyncio.get_running_loop().create_task(self._draw_next())

    async def _draw_next(self) -> None:
        self._drawn = await asyncio.to_thread(_draw)

    def _has_worker(self) -> bool:
        state = self._desk.state()
        return bool(state["waiting"] == 0 and state["running"] < state["workers"])

    def _may_begin(self) -> bool:
        now = time.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._counted_at) / _REFILL_SECONDS)
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


def _draw() -> Upload:
    return Upload(*draw_first(secrets.randbits(32)))
