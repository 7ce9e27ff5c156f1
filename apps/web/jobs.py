"""The routes of jobs: how one stands, what it does as it does it, what came out. It must not know how one is done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from ..service.desk import Desk  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.errors import JobUnknown  # noqa: TID252
from .answers import accepted, shown
from .problems import problem

_PING_SECONDS = 15.0

_FILE_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; sandbox allow-scripts"
)
_SHOWN_IN_PAGE = {"before.png", "after.png", "report.html"}
_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".zip": "application/zip",
}


def job_routes(desk: Desk) -> APIRouter:
    """Over a desk."""
    router = APIRouter(tags=["jobs"])

    @router.get("/v1/jobs/{key}", summary="How a job stands")
    async def job_state(key: str) -> dict[str, Any]:
        return shown(desk, await asyncio.to_thread(desk.get, key))

    @router.get("/v1/jobs/{key}/events", summary="What a job does, as it does it")
    async def job_events(
        key: str,
        after: Annotated[int, Query(ge=0, description="number of the last event that is known")] = 0,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """Server-sent events with numbers; a client that comes back goes on where it was. `end` comes last."""
        await asyncio.to_thread(desk.get, key)
        start = int(last_event_id) if last_event_id and last_event_id.isdigit() else after
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_sse(desk, key, start), media_type="text/event-stream", headers=headers)

    @router.post("/v1/jobs/{key}/cancel", summary="End a job")
    async def job_cancel(key: str) -> dict[str, Any]:
        """One that has ended already stays as it is."""
        return shown(desk, await asyncio.to_thread(desk.cancel, key))

    @router.get("/v1/jobs/{key}/result", summary="What came out of a job")
    async def job_result(key: str) -> Response:
        """The result, 202 while there is none yet, or the problem for which there is none."""
        job = await asyncio.to_thread(desk.get, key)
        if not job.has_ended:
            return accepted(desk, job)
        return problem(job.error, instance=f"/v1/jobs/{key}") if job.error else JSONResponse(dict(job.result or {}))

    @router.get("/v1/jobs/{key}/files/{name}", summary="A file that a job made")
    async def job_file(key: str, name: str) -> Response:
        path = await asyncio.to_thread(desk.file, key, name)
        kind = _TYPES.get(path.suffix)
        if kind is None or name == "maps.json":
            raise JobUnknown("the job has no file of that name", None, "see its list of files")
        headers = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": _FILE_POLICY}
        if name not in _SHOWN_IN_PAGE:
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return FileResponse(path, media_type=kind, headers=headers)

    return router


async def _sse(desk: Desk, key: str, after: int) -> AsyncIterator[str]:
    events = desk.follow(key, after)
    coming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait({coming}, timeout=_PING_SECONDS)
            if not done:
                yield ": still here\n\n"
                continue
            found = coming.result()
            if found is None:
                break
            number, event = found
            kind = {key: value for key, value in event.items() if key != "event"}
            yield f"id: {number}\nevent: {event['event']}\ndata: {json.dumps(kind)}\n\n"
            coming = asyncio.ensure_future(anext(events, None))
        job = await asyncio.to_thread(desk.get, key)
        yield f"event: end\ndata: {json.dumps(shown(desk, job))}\n\n"
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()
