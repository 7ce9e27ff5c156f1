"""Vision-language models behind any server that speaks OpenAI's chat completions: vLLM, SGLang, `transformers serve`,
llama.cpp, or OpenAI's own.

Requests are in flight at once, in an event loop in a thread of its own; pictures are encoded ahead in other threads.
It must not know rounds, crops or parsing; how a request is sent, and sent again, is in `zoomiqa.backends.server`.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import math
import queue
import re
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from zoomiqa.backends.base import Capabilities, Session
from zoomiqa.backends.chat import chat_of
from zoomiqa.backends.completions import Dialect
from zoomiqa.backends.loop_thread import LoopThread
from zoomiqa.backends.server import Encoded, Endpoint, Server
from zoomiqa.backends.session import answer_all
from zoomiqa.errors import BackendFailed, OptionInvalid
from zoomiqa.imaging.picture import Picture, PixelArray
from zoomiqa.types import ImagePart, Reply, Request

OPENAI_URL = "https://api.openai.com/v1"

CHAT_MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens of the Qwen family (the released checkpoint's), which a server would read as more than text. Which
tokenizer it has is not known here; others' marks are its own to guard."""

_ENCODERS = 2


class OpenAIBackend:
    """Asks a model server.

    Args:
        model: The model's name on the server.
        base_url: The server's address, such as `http://localhost:8000/v1` (`/v1` is added where there is no path);
            OpenAI's own without it.
        api_key_env: The environment variable with the server's key. It is read for each request and sent to `base_url`;
            where it is not set, none is sent.
        concurrency: Requests under way at once.
        timeout: Seconds for one reply. All attempts at it together take twice that at most.
        retries: Further attempts after a failure that may pass: no connection, no reply in time, or HTTP 408, 409, 425,
            429, 500, 502, 503, 504.
        max_pixels: Pictures are shrunk to so many pixels before they are sent; `None` sends their own.
        batch_size: Caps `concurrency`, as every backend can be told how many requests it takes at once.

    Raises:
        OptionInvalid: an option outside its range, an address that is not http(s), or one that holds a password.

    A proxy that the environment names (HTTPS_PROXY, NO_PROXY) is used.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key_env: str = "OPENAI_API_KEY",
        concurrency: int = 16,
        timeout: float = 300.0,
        retries: int = 5,
        max_pixels: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        if not isinstance(model, str) or not model.strip():
            raise OptionInvalid("a server needs the name of a model", model, "pass --model, as the server calls it")
        # Not shown: somebody may have put the key itself there.
        if not isinstance(api_key_env, str) or not re.fullmatch(r"(?:[A-Za-z_][A-Za-z0-9_]*)?", api_key_env):
            raise OptionInvalid("api_key_env is the name of an environment variable", None, "put the key into that")
        address = normalize_url(OPENAI_URL if base_url is None else base_url)
        self.concurrency = _whole("concurrency", concurrency, 1)
        if batch_size is not None:
            self.concurrency = min(self.concurrency, _whole("batch_size", batch_size, 1))
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise OptionInvalid("timeout must be a number of seconds above 0", timeout, "300 is the default")
        self.endpoint = Endpoint(model, address, api_key_env, float(timeout), _whole("retries", retries, 0))
        self.max_pixels = None if max_pixels is None else _whole("max_pixels", max_pixels, 1)
        self.dialect = Dialect()
        """What the server was found not to take."""

        self._originals: WeakKeyDictionary[Picture, Future[str]] = WeakKeyDictionary()
        self._originals_lock = threading.Lock()

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            name="openai",
            version="1",
            description=f"The model {self.endpoint.model!r} behind an OpenAI-compatible server.",
            batch_size=self.concurrency,
        )

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return answer_all(self.open_session(), requests) if requests else []

    def open_session(self, batch_size: int | None = None) -> Session:
        """Begin; `batch_size` requests are under way at once, `concurrency` at most."""
        wanted = self.concurrency if batch_size is None else _whole("batch_size", batch_size, 1)
        return _ServerSession(self, min(wanted, self.concurrency))

    def server(self, connections: int) -> Server:
        """The server over so many connections; to be made and used where one event loop is."""
        return Server(self.endpoint, self.dialect, connections)

    def stream(self, request: Request) -> Generator[str, None, Reply]:
        """The text in pieces, by server-sent events. A reply that fails midway keeps the text so far."""
        pieces: queue.SimpleQueue[str | Reply] = queue.SimpleQueue()
        with LoopThread("model-server") as thread:
            server = self.server(1)

            async def answer() -> None:
                try:
                    encoded = await asyncio.to_thread(self.encode, request)
                    pieces.put(await server.answer(encoded, pieces.put))
                except Exception as error:
                    pieces.put(self.endpoint.failure(error))
                finally:
                    await server.close()

            thread.start(answer())
            while True:
                piece = pieces.get()
                if isinstance(piece, Reply):
                    return piece
                yield piece

    def encode(self, request: Request) -> Encoded:
        """The messages of a request, with its pictures as data URLs (PNG, without loss).

        Raises:
            BackendFailed: its picture is no decoded one.
        """
        chat = chat_of(request, CHAT_MARKS, self.max_pixels)
        parts = [part for message in request.messages for part in message.parts if isinstance(part, ImagePart)]
        urls = iter(
            [self._data_url(request.picture, part, pixels) for part, pixels in zip(parts, chat.images, strict=True)]
        )
        for message in chat.messages:
            message["content"] = _content(message["content"], urls)
        return Encoded(json.dumps(chat.messages, ensure_ascii=False).encode("utf-8", "replace"), request.sampling)

    def _data_url(self, picture: object, part: ImagePart, pixels: PixelArray) -> str:
        """The picture as a data URL. A whole one is encoded once, as later looks show it again."""
        if part != ImagePart() or not isinstance(picture, Picture):
            return _png_url(pixels)
        with self._originals_lock:
            known = self._originals.get(picture)
            future = known or Future()
            self._originals[picture] = future
        if known is None:
            try:
                future.set_result(_png_url(pixels))
            except BaseException as error:
                future.set_exception(error)
        return future.result()


def normalize_url(url: str) -> str:
    """The address below which `/chat/completions` lies.

    Raises:
        OptionInvalid: it is no http(s) address, or holds a user, a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
        _ = parts.port
    except (AttributeError, ValueError):
        host = None
    if not host or parts.scheme not in ("http", "https"):
        raise OptionInvalid("base_url is no http or https address", None, "write http://host:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise OptionInvalid(
            "base_url holds more than an address", host, "leave out user, password, query and fragment; a key goes into"
            " an environment variable"
        )  # fmt: skip
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


class _ServerSession:
    """Requests that wait to be encoded, wait for a place at the server, or are there. Later looks go first in both."""

    def __init__(self, backend: OpenAIBackend, concurrency: int) -> None:
        self._backend, self._concurrency = backend, concurrency
        self._ahead = 2 + concurrency // 4
        self._done: queue.SimpleQueue[tuple[int, Reply]] = queue.SimpleQueue()
        self._under_way = 0
        # What follows belongs to the loop's thread.
        self._raw: list[tuple[int, int, Request]] = []
        self._ready: list[tuple[int, int, Encoded]] = []
        self._encoding = self._sending = 0
        self._server = backend.server(concurrency)
        self._pool = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="encode")
        self._thread = LoopThread("model-server")

    @property
    def room(self) -> int:
        return self._concurrency + self._ahead - self._under_way

    def submit(self, ticket: int, request: Request) -> None:
        self._under_way += 1
        self._thread.call(self._take, ticket, request)

    def collect(self) -> list[tuple[int, Reply]]:
        done: list[tuple[int, Reply]] = []
        while self._under_way and (not done or not self._done.empty()):
            done.append(self._done.get())
            self._under_way -= 1
        return done

    def close(self) -> None:
        self._under_way = 0
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._thread.stop(self._server.close)

    def _take(self, ticket: int, request: Request) -> None:
        heapq.heappush(self._raw, (-request.round_index, ticket, request))
        self._advance()

    def _advance(self) -> None:
        """Begin whatever has its turn. Few are encoded ahead, as each is megabytes; later looks always are."""
        while self._ready and self._sending < self._concurrency:
            order, ticket, encoded = heapq.heappop(self._ready)
            self._sending += 1
            self._thread.start(self._send(ticket, encoded))
        while self._raw and self._encoding < _ENCODERS and (self._raw[0][0] < 0 or self._is_short()):
            order, ticket, request = heapq.heappop(self._raw)
            self._encoding += 1
            self._thread.start(self._encode(order, ticket, request))

    def _is_short(self) -> bool:
        places = self._concurrency - self._sending + self._ahead
        return len(self._ready) + self._encoding < places

    async def _encode(self, order: int, ticket: int, request: Request) -> None:
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(self._pool, self._backend.encode, request)
            heapq.heappush(self._ready, (order, ticket, encoded))
        except Exception as error:
            self._done.put((ticket, self._backend.endpoint.failure(error)))
        finally:
            self._encoding -= 1
        self._advance()

    async def _send(self, ticket: int, encoded: Encoded) -> None:
        try:
            reply = await self._server.answer(encoded)
        finally:
            self._sending -= 1
        self._done.put((ticket, reply))
        self._advance()


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionInvalid(f"{name} must be a whole number of at least {least}", value, "choose another value")
    return value


def _content(parts: list[dict[str, Any]], urls: Iterator[str]) -> str | list[dict[str, Any]]:
    """A message's content. Where there are no pictures it is one text: some servers take only that of an assistant."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return [
        part if part["type"] == "text" else {"type": "image_url", "image_url": {"url": next(urls)}} for part in parts
    ]


def _png_url(pixels: PixelArray) -> str:
    """A data URL of HxWx3 uint8 RGB pixels, as PNG."""
    import cv2

    # Level 1: half the time of the default for a twelfth more bytes (9 Mpx photograph: 1.4 s, 15 MB).
    is_encoded, data = cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not is_encoded:
        raise BackendFailed("the picture cannot be encoded", pixels.shape, "report it")
    return f"data:image/png;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
