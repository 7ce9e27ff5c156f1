"""The HTTP application: its routes, and how its errors are told. It holds no state of its own.

`work` begins jobs, `jobs` follows them; what is here says what the service offers and how it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from zoomiqa import __version__
from zoomiqa.errors import ZoomIQAError

from ..service.desk import Desk  # noqa: TID252 - in a wheel it is restore_bridge.apps
from ..service.tasks import ENCODERS, FORMATS, MOST_CANDIDATES, MOST_ROUNDS, PREPASSES  # noqa: TID252
from .jobs import job_routes
from .problems import on_any_error, on_bad_request, on_http_error, on_our_error
from .work import work_routes

_PROBLEM: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "a problem document with our code", "content": {"application/problem+json": {}}},
    "5XX": {
        "description": "a problem document; 503 and 429 say when to try again",
        "content": {"application/problem+json": {}},
    },
}

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


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
    routers = (work_routes(desk), job_routes(desk), service_routes(desk))
    for router in routers:
        app.include_router(router, responses=_PROBLEM)
    _close(app, [route for router in routers for route in router.routes if isinstance(route, Route)])
    return app


def service_routes(desk: Desk) -> APIRouter:
    """What the service offers, and how it is."""
    router = APIRouter(tags=["service"])

    @router.get("/v1/limits", summary="What may be asked for")
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

    @router.get("/healthz", summary="Whether it can work")
    async def health() -> Response:
        state = desk.state()
        return JSONResponse(state, 200 if state["ok"] else 503, {} if state["ok"] else {"Retry-After": "10"})

    return router


def _close(app: FastAPI, known: Sequence[Route]) -> None:
    """Answer for every address below /v1 that is none of the `known` routes; it would fall to the pages else."""

    @app.api_route("/v1/{rest:path}", methods=_METHODS, include_in_schema=False)
    async def nothing(request: Request) -> Response:
        near = (route for route in known if route.matches(request.scope)[0] is Match.PARTIAL)
        if methods := sorted({method for route in near for method in route.methods or ()}):
            raise HTTPException(405, "this address takes other methods", {"Allow": ", ".join(methods)})
        raise HTTPException(404, "there is nothing at this address")
