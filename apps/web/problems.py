"""Errors as `application/problem+json` (RFC 9457) with our codes. It must not know routes."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from zoomiqa.errors import ZoomIQAError

from ..service.errors import ServiceBusy, for_strangers  # noqa: TID252 - in a wheel it is restore_bridge.apps

_STATUS: Mapping[str, int] = {
    "ZIQ-102": 413,
    "ZIQ-103": 415,
    "ZIQ-107": 413,
    "ZIQ-501": 422,
    "ZIQ-502": 503,
    "ZIQ-802": 404,
    "ZIQ-803": 409,
    "ZIQ-804": 504,
    "ZIQ-805": 500,
    "ZIQ-806": 400,
}
_STATUS_OF_FAMILY: Mapping[str, int] = {"1": 422, "2": 422, "3": 500, "4": 502, "5": 422, "6": 507, "7": 503, "8": 503}

MEDIA_TYPE = "application/problem+json"


def status_of(error: Mapping[str, str]) -> int:
    """The HTTP status for an error by its code."""
    code = error["code"]
    return _STATUS.get(code) or _STATUS_OF_FAMILY.get(code[4:5], 500)


def problem(error: ZoomIQAError | Mapping[str, str], *, instance: str | None = None) -> JSONResponse:
    """An error as a response. Too much to do is 429 where it is the client's own doing, else 503; both say when."""
    shown = for_strangers(error)
    status, headers = status_of(shown), {}
    if isinstance(error, ServiceBusy):
        status = 429 if error.is_own else 503
        headers["Retry-After"] = str(error.retry_after)
    body = {"type": f"urn:zoomiqa:error:{shown['code']}", "title": shown["type"], "status": status}
    body |= {"detail": shown["message"], "code": shown["code"]}
    if instance:
        body["instance"] = instance
    return JSONResponse(body, status, headers, MEDIA_TYPE)


def plain_problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A problem that has no code of ours: a wrong address, a wrong method."""
    body = {"type": "about:blank", "title": detail, "status": status, "detail": detail, "code": None}
    return JSONResponse(body, status, dict(headers or {}), MEDIA_TYPE)


async def on_our_error(_: Request, error: Exception) -> JSONResponse:
    """For FastAPI: an error of ours."""
    assert isinstance(error, ZoomIQAError)  # noqa: S101 - registered for nothing else
    return problem(error)


async def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """For FastAPI: its own errors."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for nothing else
    return plain_problem(error.status_code, str(error.detail), error.headers)


async def on_bad_request(_: Request, error: Exception) -> JSONResponse:
    """For FastAPI: a request in another form than the route takes. What was sent is not repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    places = ", ".join(sorted({".".join(str(part) for part in item["loc"]) for item in error.errors()}))
    from ..service.errors import UploadRefused  # noqa: TID252

    return problem(
        UploadRefused("the request lacks a part or has it in another form", places[:200], "see the API's description")
    )


async def on_any_error(_: Request, __: Exception) -> JSONResponse:
    """For FastAPI: what nobody expected; its words stay in the log."""
    return plain_problem(500, "the service failed; see its log")
