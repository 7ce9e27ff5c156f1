"""Stand-ins for what a backend may leave out: a session over `generate`, `generate` over a session, and streaming.

It must not know what a request is about.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Sequence

from zoomiqa.backends.base import Backend, ContinuousBackend, Session, StreamingBackend, error_reply
from zoomiqa.errors import BackendFailed
from zoomiqa.types import Reply, Request


class BatchSession:
    """A session over a backend that only has `generate`: the oldest waiting requests are asked for in one call.

    Args:
        backend: What answers.
        batch_size: Requests per call.
    """

    def __init__(self, backend: Backend, batch_size: int) -> None:
        self._backend, self._batch_size = backend, batch_size
        self._waiting: list[tuple[int, int, Request]] = []

    @property
    def room(self) -> int:
        return self._batch_size - len(self._waiting)

    def submit(self, ticket: int, request: Request) -> None:
        heapq.heappush(self._waiting, (-request.round_index, ticket, request))

    def collect(self) -> list[tuple[int, Reply]]:
        count = min(self._batch_size, len(self._waiting))
        batch = [heapq.heappop(self._waiting)[1:] for _ in range(count)]
        replies = ask(self._backend, [request for _, request in batch])
        return [(ticket, reply) for (ticket, _), reply in zip(batch, replies, strict=True)]

    def close(self) -> None:
        self._waiting.clear()


def open_session(backend: Backend, batch_size: int | None = None) -> Session:
    """The backend's own session where it has one, else one over its `generate`."""
    if isinstance(backend, ContinuousBackend):
        return backend.open_session(batch_size)
    return BatchSession(backend, backend.capabilities.batch_size if batch_size is None else batch_size)


def ask(backend: Backend, requests: Sequence[Request]) -> list[Reply]:
    """Call `generate`; if it fails as a whole, each request is tried alone, so that one cannot void all."""
    if not requests:
        return []
    try:
        replies = backend.generate(requests)
    except Exception as error:
        if len(requests) > 1:
            return [ask(backend, [request])[0] for request in requests]
        return [error_reply(error)]
    if len(replies) != len(requests):
        miscount = BackendFailed(
            f"the backend gave {len(replies)} replies to {len(requests)} requests", None, "report it to its author"
        )
        return [error_reply(miscount)] * len(requests)
    return replies


def answer_all(session: Session, requests: Sequence[Request]) -> list[Reply]:
    """Replies in the order of `requests`, through a session: what `generate` is for a continuous backend."""
    replies: dict[int, Reply] = {}
    try:
        for ticket, request in enumerate(requests):
            session.submit(ticket, request)
        while len(replies) < len(requests):
            replies.update(session.collect())
    finally:
        session.close()
    return [replies[ticket] for ticket in range(len(requests))]


def stream_reply(backend: Backend, request: Request) -> Generator[str, None, Reply]:
    """Pieces of the reply as they are written, the reply at the end; one piece where the backend cannot stream."""
    try:
        if isinstance(backend, StreamingBackend):
            return (yield from backend.stream(request))
        reply = backend.generate([request])[0]
    except Exception as error:
        return error_reply(error)
    if reply.text:
        yield reply.text
    return reply
