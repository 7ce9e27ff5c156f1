"""One exchange with a server that speaks OpenAI's chat completions, and the attempts that it takes.

The client is httpx2, the maintained successor of httpx by its author: unlike the `openai` package, which stands on it,
it retries nothing by itself, wants no key where a server needs none, and lets a reply's size be bounded. It must not
know pictures, or which request has its turn; what the fields mean is in `zoomiqa.backends.completions`.

The key is read from the environment when a request is sent. It is kept nowhere, and taken out of whatever a server
says before that is shown. Redirects are not followed: they could carry key and pictures elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from zoomiqa.backends.base import error_reply
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
from zoomiqa.errors import BackendFailed, ExtraMissing, OptionInvalid, ServerUnreachable, ZoomIQAError
from zoomiqa.types import Reply, Sampling

try:
    import httpx2
except ImportError as missing:
    raise ExtraMissing("model servers need httpx2", missing.name, 'pip install "zoomiqa[openai]"') from missing

BACKOFF_S, BACKOFF_CAP_S = 0.5, 30.0
"""First and longest wait between attempts; the wait is drawn evenly from zero up to it ("full jitter")."""

RETRY_AFTER_CAP_S = 60.0
"""Longest wait that a server can ask for."""

_CONNECT_S = 15.0
_MAX_ANSWER_BYTES = 16 * 2**20
_MAX_ERROR_BYTES = 64 * 2**10
_BUDGET = 2.0
"""All attempts at one reply together, in units of the time that one may take."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model on a server, where its key is, and how patient to be with it."""

    model: str
    base_url: str
    """The address below which `/chat/completions` lies."""

    api_key_env: str
    """Name of the environment variable with the key; empty where there is none."""

    timeout: float
    """Seconds for one reply."""

    retries: int
    """Further attempts after a failure that may pass."""

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


@dataclass(frozen=True, slots=True)
class Encoded:
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


class Server:
    """One server, over one pool of connections. Used inside one event loop.

    Args:
        endpoint: Where to ask.
        dialect: The fields that the server takes; what it refuses is noted there.
        connections: Requests under way at once.

    Raises:
        OptionInvalid: the environment names a proxy that cannot be used.
    """

    def __init__(self, endpoint: Endpoint, dialect: Dialect, connections: int) -> None:
        self._endpoint, self._dialect = endpoint, dialect
        try:
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(endpoint.timeout, connect=min(_CONNECT_S, endpoint.timeout)),
                limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
                follow_redirects=False,
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:
            raise OptionInvalid(
                "the proxy that the environment names cannot be used", None, "check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY"
            ) from error

    async def close(self) -> None:
        await self._client.aclose()

    async def answer(self, encoded: Encoded, hand_out: Callable[[str], object] | None = None) -> Reply:
        """The reply, after as many attempts as it takes and as are allowed; a failure is an error reply.

        Args:
            encoded: What to ask.
            hand_out: Called with each piece of the text as it comes; asks the server to stream.
        """
        endpoint = self._endpoint
        now = asyncio.get_running_loop().time
        deadline = now() + _BUDGET * endpoint.timeout
        attempt = 0
        while True:
            writing = Writing(encoded.sampling.stop)
            started = now()
            try:
                reply = await self._attempt(encoded, writing, hand_out, min(started + endpoint.timeout, deadline))
            except _PassingError as passing:
                wait = passing.wait
                drawn = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_S * 2 ** min(attempt, 10)))  # noqa: S311 - no secret
                pause = drawn if wait is None else min(wait, RETRY_AFTER_CAP_S) + min(drawn, BACKOFF_S)
                attempt += 1
                # What was handed out cannot be taken back: a text begun is not begun again.
                if writing.text or attempt > endpoint.retries or now() + pause >= deadline:
                    return _broken_off(error_reply(_after(passing.error, attempt)), writing, hand_out)
                _log.info("attempt %d failed (%s); the next follows in %.1f s", attempt, passing.error.code, pause)
                await asyncio.sleep(pause)
            except Exception as error:
                return _broken_off(endpoint.failure(error), writing, hand_out)
            else:
                notes = self._dialect.notes(encoded.sampling)
                return replace(reply, seconds=now() - started, notes=notes)

    async def _attempt(
        self, encoded: Encoded, writing: Writing, hand_out: Callable[[str], object] | None, until: float
    ) -> Reply:
        try:
            async with asyncio.timeout_at(until):
                while True:
                    reply = await self._exchange(encoded, writing, hand_out)
                    if reply is not None:
                        return reply
        except (TimeoutError, httpx2.TimeoutException) as error:
            late = ServerUnreachable(
                f"the server at {self._endpoint.base_url} gave no reply in time",
                f"none after {self._endpoint.timeout:g} s",
                "raise timeout, or lower concurrency",
            )
            raise _PassingError(late) from error
        except httpx2.TransportError as error:
            raise _connection_failure(error, self._endpoint.base_url) from error
        except (httpx2.DecodingError, httpx2.StreamError) as error:
            raise BackendFailed("the server's answer cannot be decoded", type(error).__name__, "see its log") from error

    async def _exchange(
        self, encoded: Encoded, writing: Writing, hand_out: Callable[[str], object] | None
    ) -> Reply | None:
        """Send the request once. `None` where the server does not take a field that can be left out: send it again.

        Raises:
            _PassingError: an HTTP status that may pass.
            ZoomIQAError: another one, or an answer without a reply.
        """
        endpoint = self._endpoint
        key = endpoint.key()
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        fields = self._dialect.fields(encoded.sampling, is_stream=hand_out is not None)
        url = f"{endpoint.base_url}/chat/completions"
        body = _body(endpoint.model, encoded.messages, fields)
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            if response.is_success:
                if hand_out is None or not _is_event_stream(response):
                    return await self._read_whole(response, encoded.sampling, writing, hand_out, key)
                return await self._read_stream(response, writing, hand_out, key)
            said = error_text(await _read(response, _MAX_ERROR_BYTES), [key] if key else [])
        if response.status_code in REFUSING_STATUSES:
            is_learnt, new = self._dialect.learn(said, fields)
            if new:
                _log.warning("the server does not take %s; requests go on without", ", ".join(new))
            if is_learnt:
                return None
        address = Address(endpoint.model, endpoint.base_url, endpoint.api_key_env, bool(key))
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
