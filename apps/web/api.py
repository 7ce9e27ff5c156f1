"""The routes. Each turns a request into a task for the desk, and what the desk says into an answer.

It must not know how a picture is assessed or restored, and holds no state of its own.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, FastAPI, File, Form, Header, Query, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from restore_bridge.guidance import split_text
from restore_bridge.prompts import compose
from zoomiqa import __version__
from zoomiqa.errors import OptionInvalid, ZoomIQAError

from ..service.addresses import fetch  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.desk import Desk, Upload  # noqa: TID252
from ..service.editing import lines_of  # noqa: TID252
from ..service.errors import JobUnknown, UploadRefused  # noqa: TID252
from ..service.store import Job  # noqa: TID252
from ..service.tasks import ENCODERS, FORMATS, MOST_CANDIDATES, MOST_ROUNDS, PREPASSES, make_task  # noqa: TID252
from .problems import on_any_error, on_bad_request, on_http_error, on_our_error, problem

WAIT_SECONDS = 120.0
"""How long an answer is waited for at most; after that the job's address is given."""

_PING_SECONDS = 15.0

_PICTURE = File(description="JPEG, PNG, WEBP, TIFF or BMP")
_URL = Form(description="an https address instead, where the service takes those")
_PREFER = Header(description="`respond-async` gives the job at once")
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

_PROBLEM: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "a problem document with our code", "content": {"application/problem+json": {}}},
    "5XX": {
        "description": "a problem document; 503 and 429 say when to try again",
        "content": {"application/problem+json": {}},
    },
}

Picture = Annotated[UploadFile | None, _PICTURE]
Address = Annotated[str | None, _URL]
Text = Annotated[str | None, Form()]
Prefer = Annotated[str | None, _PREFER]


def make_api(desk: Desk) -> FastAPI:
    """The HTTP application over a desk."""
    app = FastAPI(
        title="Zoom-IQA and restore-bridge",
        version=__version__,
        description="Assess photographs, split the words into prompts, restore under them, and compare.",
        docs_url=None,  # its page would fetch scripts from the internet; /openapi.json is there
        redoc_url=None,
        license_info={"name": "Apache-2.0"},
    )
    app.add_exception_handler(ZoomIQAError, on_our_error)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_bad_request)
    app.add_exception_handler(Exception, on_any_error)
    app.include_router(_routes(desk))
    return app


def _routes(desk: Desk) -> APIRouter:
    router = APIRouter(responses=_PROBLEM)

    async def submit(request: Request, kind: str, options: Mapping[str, Any], pictures: list[Upload]) -> Job:
        task = make_task(kind, options, desk.settings)
        return await asyncio.to_thread(desk.submit, task, pictures, _client(request))

    async def picture_of(upload: UploadFile | None, url: str | None) -> Upload:
        if upload is not None and not url:
            return await _read(upload, desk.settings.limits.file_bytes)
        if url and upload is None:
            if not desk.settings.allow_url:
                raise UploadRefused("addresses are not taken here", None, "upload the picture")
            name, data = await asyncio.to_thread(fetch, url, desk.settings.limits.file_bytes)
            return Upload(name, data)
        raise UploadRefused("one picture is needed", None, "send it as the form's part `picture`")

    async def answer(job: Job, prefer: str | None, part: str | None) -> Response:
        if prefer and "respond-async" in prefer.lower():
            return _accepted(desk, job)
        job = await desk.wait(job.id, WAIT_SECONDS)
        if not job.has_ended:
            return _accepted(desk, job)
        if job.error is not None:
            return problem(job.error, instance=f"/v1/jobs/{job.id}")
        result = job.result or {}
        return JSONResponse(result[part] if part else dict(result), headers={"Location": f"/v1/jobs/{job.id}"})

    @router.post("/v1/assess", summary="Assess a picture", tags=["work"])
    async def assess(
        request: Request,
        picture: Picture = None,
        url: Address = None,
        assessor: Text = None,
        question: Text = None,
        prefer: Prefer = None,
    ) -> Response:
        """The assessment as a record (`zoomiqa schema`), when it is done."""
        upload = await picture_of(picture, url)
        job = await submit(request, "assess", {"assessor": assessor, "question": question}, [upload])
        return await answer(job, prefer, "assessment")

    @router.post("/v1/prompts", summary="Prompts for a restorer of your own", tags=["work"])
    async def prompts(
        request: Request,
        picture: Picture = None,
        url: Address = None,
        assessor: Text = None,
        question: Text = None,
        encoder: Text = None,
        prefer: Prefer = None,
    ) -> Response:
        """Assess a picture and give positive and negative prompts within an encoder's budget."""
        upload = await picture_of(picture, url)
        options = {"assessor": assessor, "question": question, "encoder": encoder}
        return await answer(await submit(request, "prompts", options, [upload]), prefer, None)

    @router.post("/v1/prompts/text", summary="Prompts from words alone", tags=["work"])
    async def prompts_from_text(
        directions: Annotated[str | None, Body()] = None,
        issues: Annotated[str | None, Body()] = None,
        encoder: Annotated[str, Body()] = "clip",
    ) -> dict[str, Any]:
        """Split the two sections of an assessment that you have already; no picture is needed, nothing is kept."""
        limits = desk.settings.limits
        if len(directions or "") + len(issues or "") > limits.reply_characters:
            raise OptionInvalid("the texts are too long", None, f"{limits.reply_characters} characters at most")
        guidance = split_text(directions, issues, limits=limits)
        sent = compose(guidance, encoder, limits=limits)
        return {
            "guidance": guidance.to_dict(),
            "prompts": sent.to_dict(),
            "positive_lines": lines_of(guidance.positive),
            "negative_lines": lines_of(guidance.negative),
        }

    @router.post("/v1/restore", summary="Restore a picture", tags=["work"], status_code=202)
    async def restore(
        request: Request,
        picture: Picture = None,
        url: Address = None,
        assessor: Text = None,
        restorer: Text = None,
        question: Text = None,
        positive: Text = None,
        negative: Text = None,
        strength: Text = None,
        seed: Text = None,
        candidates: Text = None,
        loop: Text = None,
        scale: Text = None,
        color_fix: Text = None,
        prepass: Text = None,
        format: Text = None,  # noqa: A002 - the name of the form's field
    ) -> Response:
        """A job: follow its events, cancel it, fetch its result and files.

        `positive` and `negative` take the place of the assessment's phrases, one a line, with a place in brackets
        where it is about one (`slight blur [upper left]`).
        """
        upload = await picture_of(picture, url)
        options = {
            "assessor": assessor,
            "restorer": restorer,
            "question": question,
            "positive": positive,
            "negative": negative,
            **_emptied(await request.form()),
            "strength": strength,
            "seed": seed,
            "candidates": candidates,
            "loop": loop,
            "scale": scale,
            "color_fix": color_fix,
            "prepass": prepass,
            "format": format,
        }
        return _accepted(desk, await submit(request, "restore", options, [upload]))

    @router.post("/v1/score", summary="Score a picture before and after", tags=["work"])
    async def score(
        request: Request,
        before: Annotated[UploadFile, _PICTURE],
        after: Annotated[UploadFile, _PICTURE],
        assessor: Text = None,
        prefer: Prefer = None,
    ) -> Response:
        """Each metric's two figures, kind and direction, and both assessments."""
        limit = desk.settings.limits.file_bytes
        uploads = [await _read(before, limit), await _read(after, limit)]
        return await answer(await submit(request, "score", {"assessor": assessor}, uploads), prefer, None)

    @router.get("/v1/jobs/{key}", summary="How a job stands", tags=["jobs"])
    async def job_state(key: str) -> dict[str, Any]:
        return _shown(desk, await asyncio.to_thread(desk.get, key))

    @router.get("/v1/jobs/{key}/events", summary="What a job does, as it does it", tags=["jobs"])
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

    @router.post("/v1/jobs/{key}/cancel", summary="End a job", tags=["jobs"])
    async def job_cancel(key: str) -> dict[str, Any]:
        """One that has ended already stays as it is."""
        return _shown(desk, await asyncio.to_thread(desk.cancel, key))

    @router.get("/v1/jobs/{key}/result", summary="What came out of a job", tags=["jobs"])
    async def job_result(key: str) -> Response:
        """The result, 202 while there is none yet, or the problem for which there is none."""
        job = await asyncio.to_thread(desk.get, key)
        if not job.has_ended:
            return _accepted(desk, job)
        return problem(job.error, instance=f"/v1/jobs/{key}") if job.error else JSONResponse(dict(job.result or {}))

    @router.get("/v1/jobs/{key}/files/{name}", summary="A file that a job made", tags=["jobs"])
    async def job_file(key: str, name: str) -> Response:
        path = await asyncio.to_thread(desk.file, key, name)
        kind = _TYPES.get(path.suffix)
        if kind is None or name == "maps.json":
            raise JobUnknown("the job has no file of that name", None, "see its list of files")
        headers = {"Cache-Control": "private, max-age=3600", "Content-Security-Policy": _FILE_POLICY}
        if name not in _SHOWN_IN_PAGE:
            headers["Content-Disposition"] = f'attachment; filename="{name}"'
        return FileResponse(path, media_type=kind, headers=headers)

    @router.get("/v1/limits", summary="What may be asked for", tags=["service"])
    async def limits() -> dict[str, Any]:
        settings = desk.settings
        return {
            "version": __version__,
            "limits": asdict(settings.limits),
            "queue": {
                "workers": settings.workers,
                "waiting": settings.waiting,
                "waiting_per_client": settings.waiting_per_client,
                "job_seconds": settings.job_seconds,
                "keep_seconds": settings.keep_seconds,
            },
            "candidates": MOST_CANDIDATES,
            "loop": MOST_ROUNDS,
            "encoders": list(ENCODERS),
            "formats": list(FORMATS),
            "prepasses": list(PREPASSES),
            "assessors": list(settings.assessors),
            "restorers": [offer.to_dict() for offer in settings.restorers],
            "allow_url": settings.allow_url,
        }

    @router.get("/healthz", summary="Whether it can work", tags=["service"])
    async def health() -> Response:
        state = desk.state()
        return JSONResponse(state, 200 if state["ok"] else 503, {} if state["ok"] else {"Retry-After": "10"})

    return router


def _emptied(form: Mapping[str, Any]) -> dict[str, str]:
    """The sides that a form empties; FastAPI takes an empty field for a missing one, and here it says something."""
    return {side: "" for side in ("positive", "negative") if form.get(side) == ""}


async def _read(upload: UploadFile, limit_bytes: int) -> Upload:
    data = await upload.read(limit_bytes + 1)
    await upload.close()
    return Upload(upload.filename or "picture", data)


def _client(request: Request) -> str:
    return request.client.host if request.client else "local"


def _accepted(desk: Desk, job: Job) -> Response:
    return JSONResponse(_shown(desk, job), 202, {"Location": f"/v1/jobs/{job.id}"})


def _shown(desk: Desk, job: Job) -> dict[str, Any]:
    """A job without what came out of it and without who asked."""
    base = f"/v1/jobs/{job.id}"
    files = (job.result or {}).get("files", {})
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "attempts": job.attempts,
        "before_it": desk.position(job.id) if job.state == "waiting" else 0,
        "options": dict(job.options),
        "error": None if job.error is None else dict(job.error),
        "links": {
            "self": base,
            "events": f"{base}/events",
            "cancel": f"{base}/cancel",
            "result": f"{base}/result",
            **{f"file:{role}": f"{base}/files/{name}" for role, name in files.items()},
        },
    }


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
        yield f"event: end\ndata: {json.dumps(_shown(desk, job))}\n\n"
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()
