"""What a browser gets first: a page that says its first words before the page's own scripts run.

The page's framework takes about a second in a browser before anything is there. So its page is sent in another order:
first a shell of the same look, then the assessment that the page begins with, word for word as it is written, and then
the framework, which puts up the same page with its controls; then the shell goes. All of it is one answer, so that the
words wait for no script and no second request. It must not know what is said, nor how an assessment is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from ..web.guards import Application, Message, Receive, Scope, Send  # noqa: TID252 - in a wheel: restore_bridge.apps
from ..web.kept import best_coding  # noqa: TID252
from .handlers import Handlers

_SCRIPT = (Path(__file__).parent / "data" / "shell.js").read_text("utf-8")
_SAID = ("stage", "rating", "reasoning", "positive", "negative", "signals", "sent")
"""What goes to the browser ahead of the framework: the shell has places for some, the framework's page for all."""

FIRST_SECONDS, REST_SECONDS = 3.0, 0.3
"""How long the framework is held back for the first words, and then for the rest; what comes later comes by it. The
embedded assessor needs a fifth of a second for all of them; where it needs longer, so does everything.
"""

_MOST_PAGES = 16
"""Made ready: one for each name that this service is called by."""

_NAMED_BY = (b"host", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-prefix")
"""Headers that decide what addresses stand in the page."""

_GZIP_LEVEL, _GZIP_WINDOW = 3, 31

_MACHINERY = re.compile(r"<script>window\.gradio_config = .*(?=</head>)", re.DOTALL)
_MODULES = re.compile(r'<script type="module"[^>]* src="([^"]+)"')
_SHEETS = re.compile(r'<link rel="stylesheet"[^>]*>')


@dataclass(frozen=True, slots=True)
class _Page:
    """The framework's page, cut where the words go."""

    before: bytes
    """The head, without what makes a browser wait, and the shell."""

    machinery: bytes
    """The framework's settings and scripts."""

    rest: bytes
    """Where it puts its page."""


class Front:
    """Wraps the pages' application: its first page is sent with the words in it.

    The page is the same for everybody but for these, so it is made once and kept.

    Args:
        application: The pages.
        handlers: Who begins assessments.
        style: The pages' style sheets.
        shell: HTML that stands in the page at first.
    """

    def __init__(self, application: Application, handlers: Handlers, style: str, shell: str) -> None:
        self._application, self._handlers = application, handlers
        self._style, self._shell = style, str(shell)  # markup would escape what is put beside it
        self._pages: OrderedDict[tuple[bytes, ...], _Page] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_first = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
        if not is_first or scope["query_string"] or not self._handlers.opening.is_on:
            await self._application(scope, receive, send)
            return
        ticket = self._handlers.opening.begin()
        headers = dict(scope["headers"])
        page = await self._page(scope, receive, headers)
        if page is None:
            await self._application(scope, receive, send)
            return
        body = _Body(send, is_packed=best_coding(headers.get(b"accept-encoding", b"")) != "")
        await body.begin()
        await body.write(page.before + _script(f"window.zqTicket = {json.dumps(ticket)};"))
        is_whole = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS) as hold:
                async for shown in self._handlers.watch(ticket):
                    is_whole = bool(shown.get("can_restore"))
                    if places := {name: str(shown[name]) for name in _SAID if name in shown}:
                        await body.write(_script(f"zqFill({_as_script(places)});"))
                    if shown.get("has_words"):
                        hold.reschedule(asyncio.get_running_loop().time() + REST_SECONDS)
        await body.write(page.machinery + _script(f"zqHandOver({json.dumps(is_whole)});") + page.rest, is_last=True)

    async def _page(self, scope: Scope, receive: Receive, headers: dict[bytes, bytes]) -> _Page | None:
        """The page for this name of the service; none where the framework's is not as it should be."""
        key = (scope["scheme"].encode(), *(headers.get(name, b"") for name in _NAMED_BY))
        if key in self._pages:
            self._pages.move_to_end(key)
            return self._pages[key]
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        made = self._cut(await _body_of(self._application, {**scope, "headers": plain}, receive))
        if made is not None:
            self._pages[key] = made
            while len(self._pages) > _MOST_PAGES:
                self._pages.popitem(last=False)
        return made

    def _cut(self, html: str | None) -> _Page | None:
        machinery = _MACHINERY.search(html or "")
        if html is None or machinery is None or html.count("<gradio-app") != 1:
            return None
        # Fetched from the beginning, run after the words. Sheets stay in the head: others, added there, go before them.
        early = [f'<link rel="modulepreload" href="{path}">' for path in _MODULES.findall(machinery[0])]
        early += _SHEETS.findall(machinery[0])
        scripts = _SHEETS.sub("", machinery[0])
        head = html[: machinery.start()] + "".join(early) + f"<style>{self._style}</style>"
        opening, app = html[machinery.end() :].split("<gradio-app")
        before = f"{head}{opening}{self._shell}<script>{_SCRIPT}</script>"
        return _Page(before.encode(), scripts.encode(), f"<gradio-app{app}".encode())


class _Body:
    """An answer that is sent in pieces, each of which the browser can show at once."""

    def __init__(self, send: Send, *, is_packed: bool) -> None:
        self._send = send
        self._packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW) if is_packed else None

    async def begin(self) -> None:
        headers = [
            (b"content-type", b"text/html; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"vary", b"Accept-Encoding"),
            (b"x-accel-buffering", b"no"),
        ]
        if self._packer is not None:
            headers.append((b"content-encoding", b"gzip"))
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def write(self, data: bytes, *, is_last: bool = False) -> None:
        if self._packer is not None:
            data = self._packer.compress(data) + self._packer.flush(zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH)
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})


def _script(words: str) -> bytes:
    return f"<script>{words}</script>".encode()


def _as_script(value: object) -> str:
    """JSON that is also a script's expression, inside a page."""
    return json.dumps(value).replace("<", "\\u003c")


async def _body_of(application: Application, scope: Scope, receive: Receive) -> str | None:
    """What the application would send; none unless it is a page."""
    parts: list[bytes] = []
    status = 0

    async def take(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    await application(scope, receive, take)
    return b"".join(parts).decode("utf-8") if status == 200 else None
