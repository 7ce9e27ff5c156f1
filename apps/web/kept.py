"""Files that never change, answered from memory: found by name, compressed once, kept by browsers for a year.

It knows ASGI and a folder, and nothing of jobs or pages. Only names that carry a digest of their content are taken
(`Index-Akn07EZk2.js`): what such a name stands for cannot change.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from pathlib import Path

from .guards import Application, Receive, Scope, Send

_NAME = re.compile(r"-[A-Za-z0-9_-]{8,}\.(?P<ending>js|css)$")
_TYPES = {"js": b"text/javascript; charset=utf-8", "css": b"text/css; charset=utf-8"}

_BROTLI_QUALITY, _GZIP_LEVEL = 5, 6
"""Each file is compressed once, while the first one who asks for it waits."""


class KeptFiles:
    """Wraps an ASGI application: GET of a file in the folder does not reach it.

    Args:
        application: What answers everything else.
        prefix: Where the files are, such as `/assets/`.
        folder: The files; its listing is read once, so that no name leads out of it.
    """

    def __init__(self, application: Application, prefix: str, folder: Path) -> None:
        self._application, self._prefix = application, prefix
        self._files = {path.name: path for path in folder.iterdir() if _NAME.search(path.name)}
        self._kept: dict[tuple[str, str], bytes] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = self._find(scope)
        if file is None:
            await self._application(scope, receive, send)
            return
        coding = best_coding(dict(scope["headers"]).get(b"accept-encoding", b""))
        data = self._kept.get((file.name, coding))
        if data is None:
            data = await asyncio.to_thread(lambda: pack(file.read_bytes(), coding))
            self._kept[file.name, coding] = data
        headers = [
            (b"content-type", _TYPES[file.suffix[1:]]),
            (b"content-length", str(len(data)).encode()),
            (b"cache-control", b"public, max-age=31536000, immutable"),
            (b"vary", b"Accept-Encoding"),
        ]
        if coding:
            headers.append((b"content-encoding", coding.encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def _find(self, scope: Scope) -> Path | None:
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        path: str = scope["path"]
        return self._files.get(path[len(self._prefix) :]) if path.startswith(self._prefix) else None


def best_coding(accepted: bytes) -> str:
    """The best coding that a client takes: "br", "gzip", or "" for none."""
    names = {
        part.split(b";")[0].strip() for part in accepted.split(b",") if not part.replace(b" ", b"").endswith(b"q=0")
    }
    return next((name for name in ("br", "gzip") if name.encode() in names), "")


def pack(data: bytes, coding: str, *, quality: int = _BROTLI_QUALITY) -> bytes:
    """`data` under a coding of `best_coding`."""
    if coding == "br":
        import brotli

        return bytes(brotli.compress(data, quality=quality))
    return gzip.compress(data, _GZIP_LEVEL, mtime=0) if coding else data
