"""What stands before every route: sizes and times of bodies, addresses that are open, headers of every answer.

It knows ASGI and nothing of jobs or pages.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote

from .problems import MEDIA_TYPE

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_ROUTES = re.compile(
    r"^/(?:$|v1/|healthz$|openapi\.json$|assets/|static/|theme\.css$|favicon\.ico$|manifest\.json$"
    r"|robots\.txt$|config/?$"
    r"|gradio_api/(?:info|upload|upload_progress|queue/(?:join|data)|call/|run/|api/|cancel|reset|startup-events|app_id"
    r"|heartbeat/|theme\.css|file=))"
)
"""Everything else that a page server brings along (proxies, recordings, monitoring, code assistants) is not there."""

_ADDRESS = re.compile(r"file=\s*(?:[a-z][a-z0-9+.-]+:|//)", re.IGNORECASE)
_PAGE_ROUTES = ("/gradio_api/", "/config", "/assets", "/static", "/theme.css")

_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:;"
    " object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""The page's framework writes its scripts into the page; what matters is that nothing is fetched from elsewhere."""

_COMMON_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"SAMEORIGIN",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
    b"cross-origin-opener-policy": b"same-origin",
}

BODY_SECONDS = 60.0
"""Time for a request's body to come in."""


class Guards:
    """Wraps an ASGI application.

    Args:
        application: What is guarded.
        upload_bytes: Bytes of the largest body.
        uploads: Bodies that may come in at once; more are refused with 503.
    """

    def __init__(self, application: Application, *, upload_bytes: int, uploads: int = 64) -> None:
        self._application = application
        self._upload_bytes, self._uploads = upload_bytes, uploads
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        path = unquote(scope["path"])
        if not _ROUTES.match(path) or _ADDRESS.search(path) or _ADDRESS.search(unquote(unquote(path))):
            await _refuse(send, 404, "there is nothing at this address")
            return
        if _is_from_another_site(scope):
            await _refuse(send, 403, "requests from pages of other sites are not taken")
            return
        if scope["method"] in ("POST", "PUT", "PATCH"):
            await self._with_body(scope, receive, _with_headers(send, path))
        else:
            await self._application(scope, receive, _with_headers(send, path))

    async def _with_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length")
        if declared is not None and (not declared.isdigit() or int(declared) > self._upload_bytes):
            await _refuse(send, 413, f"the request is larger than {self._upload_bytes >> 20} MiB", code="ZIQ-102")
            return
        if self._under_way >= self._uploads:
            await _refuse(send, 503, "too many uploads are under way", code="ZIQ-801", retry_after=5)
            return
        self._under_way += 1
        try:
            await _Body(self._upload_bytes, receive, send).run(self._application, scope)
        finally:
            self._under_way -= 1


class _Body:
    """One request's body on its way in: counted, timed, and not read to its end where it is refused."""

    def __init__(self, limit_bytes: int, receive: Receive, send: Send) -> None:
        self._limit_bytes, self._receive, self._send = limit_bytes, receive, send
        self._received = 0
        self._is_complete = self._has_begun = False
        self._refusal: tuple[int, str, str | None] | None = None
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def run(self, application: Application, scope: Scope) -> None:
        """The application's answer, or the refusal in its place: a framework makes one of its own of what is raised."""
        try:
            await application(scope, self._take, self._give)
        except _RefusedError:
            if self._has_begun:
                raise
        if self._refusal is not None and not self._has_begun:
            status, detail, code = self._refusal
            await _refuse(self._send, status, detail, code=code)

    async def _take(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._refusal = (408, f"the request took longer than {BODY_SECONDS:g} s to come in", None)
            raise _RefusedError from None
        self._received += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._received > self._limit_bytes:
            self._refusal = (413, f"the request is larger than {self._limit_bytes >> 20} MiB", "ZIQ-102")
            raise _RefusedError
        return message

    async def _give(self, message: Message) -> None:
        if self._refusal is not None and not self._has_begun:
            return
        self._has_begun = True
        if message["type"] == "http.response.start" and not self._is_complete:
            # The rest of the body is not read: else a client could go on sending for ever.
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await self._send(message)


class _RefusedError(Exception):
    """A body is not taken any further."""


def _is_from_another_site(scope: Scope) -> bool:
    """A browser says where a writing request comes from; clients without a page say nothing."""
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    headers = dict(scope["headers"])
    if headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site"):
        return True
    origin = headers.get(b"origin")
    if origin is None:
        return False
    host = headers.get(b"host", b"").decode("latin-1").lower()
    return bool(origin.decode("latin-1").lower().split("://")[-1] != host)


def _with_headers(send: Send, path: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            present = {name.lower() for name, _ in message["headers"]}
            extra = [(name, value) for name, value in _COMMON_HEADERS.items() if name not in present]
            if b"content-security-policy" not in present and (path == "/" or path.startswith(_PAGE_ROUTES)):
                extra.append((b"content-security-policy", _PAGE_POLICY.encode()))
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return sending


async def _refuse(
    send: Send, status: int, detail: str, *, code: str | None = None, retry_after: int | None = None
) -> None:
    body: Mapping[str, Any] = {"type": "about:blank", "title": detail, "status": status, "detail": detail, "code": code}
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"x-content-type-options", b"nosniff")]
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    if status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
