"""Vision-language models behind any server that speaks OpenAI's chat completions: vLLM, SGLang, `transformers serve`,
llama.cpp, or OpenAI's own.

Requests are in flight at once, in an event loop in a thread of its own; pictures are encoded ahead in other threads.
The client is httpx2, the maintained successor of httpx by its author: unlike the `openai` package, which stands on it,
it retries nothing by itself, wants no key where a server needs none, and lets a reply's size be bounded. It must not
know rounds, crops or parsing; what the fields mean is in `zoomiqa.backends.completions`.

The key is read from the environment when a request is sent. It is kept nowhere, and taken out of whatever a server
says before that is shown. Redirects are not followed: they could carry key and pictures elsewhere.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import logging
import math
import os
import queue
import random
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from weakref import WeakKeyDictionary

from zoomiqa.backends.base import Capabilities, Session, error_reply
from zoomiqa.backends.chat import chat_of
from zoomiqa.backends.completions import (
    PASSING_STATUSES,
    REFUSING_STATUSES,
    Address,
    Dialect,
    Writing,
    error_text,
    first_choice,
    read_completion,
    redact,
    refuse_withheld,
    reported_stop,
    retry_after,
    status_failure,
    texts_of,
    usage_of,
)
from zoomiqa.backends.loop_thread import LoopThread
from zoomiqa.backends.session import answer_all
from zoomiqa.errors import BackendFailed, ExtraMissing, OptionInvalid, ServerUnreachable, ZoomIQAError
from zoomiqa.imaging.picture import Picture, PixelArray
from zoomiqa.types import ImagePart, Reply, Request, Sampling

try:
    import httpx2
except ImportError as missing:
    raise ExtraMissing("model servers need httpx2", missing.name, 'pip install "zoomiqa[openai]"') from missing

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

BACKOFF_S, BACKOFF_CAP_S = 0.5, 30.0
"""First and longest wait between attempts; the wait is drawn evenly from zero up to it ("full jitter")."""

RETRY_AFTER_CAP_S = 60.0
"""Longest wait that a server can ask for."""

_CONNECT_S = 15.0
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_ERROR_BYTES = 64 * 2**10
_ENCODERS = 2
_BUDGET = 2.0
"""All attempts at one reply together, in units of the time that one may take."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A request ready to be sent, but for the fields that depend on the server."""

    messages: bytes
    """JSON."""

    sampling: Sampling


class _PassingError(Exception):
    """A failed attempt after which the next may succeed."""

    def __init__(self, error: ZoomIQAError, wait: float | None = None) -> None:
        self.error = error
        self.wait = wait
        """Seconds that the server asks to wait."""


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
        self.model = model
        self.base_url = normalize_url(OPENAI_URL if base_url is None else base_url)
        self.api_key_env = api_key_env
        self.concurrency = _whole("concurrency", concurrency, 1)
        if batch_size is not None:
            self.concurrency = min(self.concurrency, _whole("batch_size", batch_size, 1))
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            raise OptionInvalid("timeout must be a number of seconds above 0", timeout, "300 is the default")
        self.timeout = float(timeout)
        self.retries = _whole("retries", retries, 0)
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
            description=f"The model {self.model!r} behind an OpenAI-compatible server.",
            batch_size=self.concurrency,
        )

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return answer_all(self.open_session(), requests) if requests else []

    def open_session(self, batch_size: int | None = None) -> Session:
        """Begin; `batch_size` requests are under way at once, `concurrency` at most."""
        wanted = self.concurrency if batch_size is None else _whole("batch_size", batch_size, 1)
        return _ServerSession(self, min(wanted, self.concurrency))

    def stream(self, request: Request) -> Generator[str, None, Reply]:
        """The text in pieces, by server-sent events. A reply that fails midway keeps the text so far."""
        pieces: queue.SimpleQueue[str | Reply] = queue.SimpleQueue()
        with LoopThread("model-server") as thread:
            server = _Server(self, 1)

            async def answer() -> None:
                try:
                    encoded = await asyncio.to_thread(self.encode, request)
                    pieces.put(await server.answer(encoded, pieces.put))
                except Exception as error:
                    pieces.put(self.failure(error))
                finally:
                    await server.close()

            thread.start(answer())
            while True:
                piece = pieces.get()
                if isinstance(piece, Reply):
                    return piece
                yield piece

    def encode(self, request: Request) -> _Encoded:
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
        return _Encoded(json.dumps(chat.messages, ensure_ascii=False).encode("utf-8", "replace"), request.sampling)

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

    def key(self) -> str:
        """The server's key, or nothing.

        Raises:
            OptionInvalid: it holds what no header can.
        """
        key = os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if not all("!" <= character <= "~" for character in key):
            raise OptionInvalid(
                f"the key in the environment variable {self.api_key_env} holds spaces or other characters"
                " that no key has", None, "copy it again",
            )  # fmt: skip
        return key

    def failure(self, error: Exception) -> Reply:
        """The reply of a request that failed, with nothing in it that is not to be shown."""
        if isinstance(error, ZoomIQAError):
            return error_reply(error)
        try:
            secrets = [key] if (key := self.key()) else []
        except OptionInvalid as invalid:
            return error_reply(invalid)
        said = redact(str(error), secrets)
        return error_reply(BackendFailed(f"asking the server raised {type(error).__name__}", said, "report it"))


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


class _Server:
    """One server, over one pool of connections. Used inside one event loop.

    Raises:
        OptionInvalid: the environment names a proxy that cannot be used.
    """

    def __init__(self, backend: OpenAIBackend, connections: int) -> None:
        self._backend = backend
        try:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(backend.timeout, connect=min(_CONNECT_S, backend.timeout)),
                limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
                follow_redirects=False,
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise OptionInvalid(
                "the proxy that the environment names cannot be used", None, "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
            ) from error

    async def close(self) -> None:
        await self._client.aclose()

    async def answer(self, encoded: _Encoded, hand_out: Callable[[str], object] | None = None) -> Reply:
        """The reply, after as many attempts as it takes and as are allowed; a failure is an error reply.

        Args:
            encoded: What to ask.
            hand_out: Called with each piece of the text as it comes; asks the server to stream.
        """
        backend = self._backend
        now = asyncio.get_running_loop().time
        deadline = now() + _BUDGET * backend.timeout
        attempt = 0
        while True:
            writing = Writing(encoded.sampling.stop)
            started = now()
            try:
                reply = await self._attempt(encoded, writing, hand_out, min(started + backend.timeout, deadline))
            except _PassingError as passing:
                wait = passing.wait
                drawn = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2 ** min(attempt, 10)))  # noqa: S311 - no secret
                pause = drawn if wait is None else min(wait, RETRY_AFTER_CAP_S) + min(drawn, BACKOFF_S)
                attempt += 1
                # What was handed out cannot be taken back: a text begun is not begun again.
                if writing.text or attempt > backend.retries or now() + pause >= deadline:
                    return _broken_off(error_reply(_after(passing.error, attempt)), writing, hand_out)
                _log.info("attempt %d failed (%s); the next follows in %.1f s", attempt, passing.error.code, pause)
                await asyncio.sleep(pause)
            except Exception as error:
                return _broken_off(backend.failure(error), writing, hand_out)
            else:
                notes = backend.dialect.notes(encoded.sampling)
                return replace(reply, seconds=now() - started, notes=notes)

    async def _attempt(
        self, encoded: _Encoded, writing: Writing, hand_out: Callable[[str], object] | None, until: float
    ) -> Reply:
        try:
            async with asyncio.timeout_at(until):
                while True:
                    reply = await self._exchange(encoded, writing, hand_out)
                    if reply is not None:
                        return reply
        except (TimeoutError, httpx2.TimeoutException) as error:
            late = ServerUnreachable(
                f"the server at {self._backend.base_url} gave no reply in time",
                f"none after {self._backend.timeout:g} s",
                "raise timeout, or lower concurrency",
            )
            raise _PassingError(late) from error
        except httpx2.TransportError as error:
            raise _connection_failure(error, self._backend.base_url) from error
        except (httpx2.DecodingError, httpx2.StreamError) as error:
            raise BackendFailed("the server's answer cannot be decoded", type(error).__name__, "see its log") from error

    async def _exchange(
        self, encoded: _Encoded, writing: Writing, hand_out: Callable[[str], object] | None
    ) -> Reply | None:
        """Send the request once. `None` where the server does not take a field that can be left out: send it again.

        Raises:
            _PassingError: an HTTP status that may pass.
            ZoomIQAError: another one, or an answer without a reply.
        """
        backend = self._backend
        key = backend.key()
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        fields = backend.dialect.fields(encoded.sampling, is_stream=hand_out is not None)
        url = f"{backend.base_url}/chat/completions"
        body = _body(backend.model, encoded.messages, fields)
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            if response.is_success:
                if hand_out is None or not _is_event_stream(response):
                    return await self._read_whole(response, encoded.sampling, writing, hand_out, key)
                return await self._read_stream(response, writing, hand_out, key)
            said = error_text(await _read(response, _MAX_ERROR_BYTES), [key] if key else [])
        if response.status_code in REFUSING_STATUSES:
            is_learnt, new = backend.dialect.learn(said, fields)
            if new:
                _log.warning("the server does not take %s; requests go on without", ", ".join(new))
            if is_learnt:
                return None
        address = Address(backend.model, backend.base_url, backend.api_key_env, bool(key))
        error = status_failure(response.status_code, said, address)
        if response.status_code in PASSING_STATUSES:
            raise _PassingError(error, retry_after(response.headers, time.time()))
        raise error

    async def _read_whole(
        self,
        response: httpx2.Response,
        sampling: Sampling,
        writing: Writing,
        hand_out: Callable[[str], object] | None,
        key: str,
    ) -> Reply:
        raw = await _read(response, _MAX_ANSWER_BYTES + 1)
        if len(raw) > _MAX_ANSWER_BYTES:
            raise BackendFailed("the server's answer is too long", f"over {_MAX_ANSWER_BYTES} bytes", "see its log")
        try:
            data = json.loads(raw)
        except (ValueError, RecursionError) as error:
            said = error_text(raw[:_MAX_ERROR_BYTES], [key] if key else []) or None
            raise BackendFailed("the server's answer is not JSON", said, "check base_url") from error
        _refuse_error(data, raw, key)
        reply = read_completion(data, sampling.stop)
        if hand_out is not None:
            writing.text = reply.text
            hand_out(reply.text)
        return reply

    async def _read_stream(
        self, response: httpx2.Response, writing: Writing, hand_out: Callable[[str], object], key: str
    ) -> Reply:
        reason: str | None = None
        stopped_by: object = None
        usage: tuple[int | None, int | None] = (None, None)
        is_done, size = False, 0
        async for event in httpx2.EventSource(response):
            size += len(event.data)
            if size > _MAX_ANSWER_BYTES:
                raise BackendFailed("the server's answer is too long", f"over {_MAX_ANSWER_BYTES} bytes", "see its log")
            if event.data.strip() == "[DONE]":
                is_done = True
                break
            try:
                data = json.loads(event.data)
            except (ValueError, RecursionError) as error:
                raise BackendFailed("a piece of the server's stream is not JSON", None, "see its log") from error
            _refuse_error(data, event.data.encode(), key)
            if any(counts := usage_of(data)):
                usage = counts
            choice = first_choice(data)
            if choice is None:
                continue
            delta = choice.get("delta")
            delta = delta if isinstance(delta, dict) else {}
            refuse_withheld(choice, delta)
            writing.add(*texts_of(delta))
            if piece := writing.take():
                hand_out(piece)
            reason = choice.get("finish_reason") or reason
            stopped_by = reported_stop(choice) if stopped_by is None else stopped_by
            if writing.has_stopped and reason is None:
                break  # the server would write on: leaving ends that
        if not (is_done or reason or writing.has_stopped):
            raise BackendFailed("the server's stream ended before the reply did", None, "try again")
        finish_reason = writing.end(reason, stopped_by)
        if piece := writing.rest():
            hand_out(piece)
        return Reply(writing.text, finish_reason, *usage)


class _ServerSession:
    """Requests that wait to be encoded, wait for a place at the server, or are there. Later looks go first in both."""

    def __init__(self, backend: OpenAIBackend, concurrency: int) -> None:
        self._backend, self._concurrency = backend, concurrency
        self._ahead = 2 + concurrency // 4
        self._done: queue.SimpleQueue[tuple[int, Reply]] = queue.SimpleQueue()
        self._under_way = 0
        # What follows belongs to the loop's thread.
        self._raw: list[tuple[int, int, Request]] = []
        self._ready: list[tuple[int, int, _Encoded]] = []
        self._encoding = self._sending = 0
        self._server = _Server(backend, concurrency)
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
            self._done.put((ticket, self._backend.failure(error)))
        finally:
            self._encoding -= 1
        self._advance()

    async def _send(self, ticket: int, encoded: _Encoded) -> None:
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


def _body(model: str, messages: bytes, fields: dict[str, Any]) -> bytes:
    """The request's JSON. The messages, which may be megabytes, are not encoded again for each attempt."""
    name = json.dumps(model).encode()
    return b'{"model":%b,"messages":%b,%b' % (name, messages, json.dumps(fields).encode()[1:])


async def _read(response: httpx2.Response, limit: int) -> bytes:
    """The first `limit` bytes of an answer, or a little more."""
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) >= limit:
            break
    return bytes(data)


def _is_event_stream(response: httpx2.Response) -> bool:
    kind = response.headers.get("content-type", "")
    return str(kind).partition(";")[0].strip().lower() == "text/event-stream"


def _refuse_error(data: object, raw: bytes, key: str) -> None:
    """Some servers say that they failed with a status of success."""
    if isinstance(data, dict) and data.get("error") and not data.get("choices"):
        said = error_text(raw, [key] if key else []) or None
        raise BackendFailed("the server says that it failed", said, "see its log")


def _connection_failure(error: httpx2.TransportError, base_url: str) -> Exception:
    """What a failed connection is: passing, unless the address or the certificate is wrong."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    cut_short = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    if any(isinstance(cause, ssl.SSLError) and not isinstance(cause, cut_short) for cause in causes):
        return ServerUnreachable(
            f"no secure connection to {base_url}", None, "check its certificate, or whether it speaks https"
        )
    names = [cause for cause in causes if isinstance(cause, socket.gaierror)]
    if names and names[0].errno != socket.EAI_AGAIN:
        return ServerUnreachable(f"there is no host of that name: {base_url}", None, "check base_url")
    if isinstance(error, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol | httpx2.ProxyError):
        return ServerUnreachable(f"no connection to {base_url}", type(error).__name__, "check base_url and the proxy")
    return _PassingError(
        ServerUnreachable(f"no connection to {base_url}, or it was lost", type(error).__name__, "start the server")
    )


def _broken_off(failure: Reply, writing: Writing, hand_out: Callable[[str], object] | None) -> Reply:
    """The failure, with the text that had come by then."""
    if hand_out is not None and (piece := writing.rest()):
        hand_out(piece)
    return replace(failure, text=writing.text)


def _after(error: ZoomIQAError, attempts: int) -> ZoomIQAError:
    """The error, with the number of attempts where there were several."""
    return error if attempts == 1 else type(error)(f"{error.what}, {attempts} times", error.value, error.fix)
