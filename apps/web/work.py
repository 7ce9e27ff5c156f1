"""The routes that begin work: assess, prompts, restore, score. Each turns a form into a task for the desk.

It must not know how a picture is assessed or restored.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request
from fastapi.responses import JSONResponse, Response

from restore_bridge.guidance import split_text
from restore_bridge.prompts import compose
from zoomiqa.errors import OptionInvalid

from ..service.desk import Desk  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.editing import lines_of  # noqa: TID252
from ..service.store import Job  # noqa: TID252
from ..service.tasks import make_task  # noqa: TID252
from .answers import accepted
from .forms import describe_form, read_form
from .problems import problem

WAIT_SECONDS = 120.0
"""How long an answer is waited for at most; after that the job's address is given."""

Prefer = Annotated[str | None, Header(description="`respond-async` gives the job at once")]


def work_routes(desk: Desk) -> APIRouter:
    """Over a desk."""
    router = APIRouter(tags=["work"])

    @router.post("/v1/assess", summary="Assess a picture", openapi_extra=describe_form("assess"))
    async def assess(request: Request, prefer: Prefer = None) -> Response:
        """The assessment as a record (`zoomiqa schema`), when it is done."""
        return await _answer(desk, await _submit(desk, request, "assess"), prefer, "assessment")

    @router.post("/v1/prompts", summary="Prompts for a restorer of your own", openapi_extra=describe_form("prompts"))
    async def prompts(request: Request, prefer: Prefer = None) -> Response:
        """Assess a picture and give positive and negative prompts within an encoder's budget."""
        return await _answer(desk, await _submit(desk, request, "prompts"), prefer, None)

    @router.post("/v1/prompts/text", summary="Prompts from words alone")
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
        sent = compose(guidance, encoder, regions="folded", limits=limits)
        return {
            "guidance": guidance.to_dict(),
            "prompts": sent.to_dict(),
            "positive_lines": lines_of(guidance.positive),
            "negative_lines": lines_of(guidance.negative),
        }

    @router.post("/v1/restore", summary="Restore a picture", status_code=202, openapi_extra=describe_form("restore"))
    async def restore(request: Request) -> Response:
        """A job: follow its events, cancel it, fetch its result and files.

        `positive` and `negative` take the place of the assessment's phrases, one a line, with a place in brackets
        where it is about one (`slight blur [upper left]`); an empty one empties that side.
        """
        return accepted(desk, await _submit(desk, request, "restore"))

    @router.post("/v1/score", summary="Score a picture before and after", openapi_extra=describe_form("score"))
    async def score(request: Request, prefer: Prefer = None) -> Response:
        """Each metric's two figures, kind and direction, and both assessments."""
        return await _answer(desk, await _submit(desk, request, "score"), prefer, None)

    return router


async def _submit(desk: Desk, request: Request, kind: str) -> Job:
    uploads, options = await read_form(request, kind, desk.settings)
    task = make_task(kind, options, desk.settings)
    client = request.client.host if request.client else "local"
    return await asyncio.to_thread(desk.submit, task, uploads, client)


async def _answer(desk: Desk, job: Job, prefer: str | None, part: str | None) -> Response:
    """What came out of a job, or one part of it; its address where that takes too long or was asked for."""
    if prefer and "respond-async" in prefer.lower():
        return accepted(desk, job)
    job = await desk.wait(job.id, WAIT_SECONDS)
    if not job.has_ended:
        return accepted(desk, job)
    if job.error is not None:
        return problem(job.error, instance=f"/v1/jobs/{job.id}")
    result = job.result or {}
    return JSONResponse(result[part] if part else dict(result), headers={"Location": f"/v1/jobs/{job.id}"})
