"""What a backend is: what answers chats about pictures. It must not know rounds, crops or parsing.

One method is asked of a backend, `generate`. Two more may be offered: `open_session`, where requests come and go while
others are under way, and `stream`, where the text comes in pieces. `zoomiqa.backends.session` stands in for either.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from zoomiqa.errors import BackendFailed, ZoomIQAError
from zoomiqa.types import Reply, Request


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend is and can do, as data."""

    name: str
    version: str
    description: str
    """One plain sentence on what answers."""

    batch_size: int = 1
    """Requests under way at once that suit it best."""

    deterministic: bool = False
    """Whether the same requests always give the same replies."""

    parallel: bool = False
    """Whether copies of it in several processes make a run faster (CPU work without shared weights)."""


@runtime_checkable
class Backend(Protocol):
    """Answers requests.

    Contract (held by `tests/backends/test_contract.py` for every backend): one reply per request, in order; a request
    that fails comes back as a reply with `finish_reason="error"` and does not void the others; requests are not
    changed; no state is carried from one call to the next that a reply could depend on.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def generate(self, requests: Sequence[Request]) -> list[Reply]: ...


class Session(Protocol):
    """Requests under way at once, each answered as soon as it is done. Used by one thread."""

    @property
    def room(self) -> int:
        """How many more requests are worth submitting now."""
        ...

    def submit(self, ticket: int, request: Request) -> None:
        """Take a request. `ticket` names its reply; later looks go before first ones."""
        ...

    def collect(self) -> list[tuple[int, Reply]]:
        """Wait until at least one request is done; tickets and replies of all that are. Empty if none is under way."""
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...


@runtime_checkable
class ContinuousBackend(Backend, Protocol):
    """A backend that takes new requests while others are under way (continuous batching, or a server's queue)."""

    def open_session(self, batch_size: int | None = None) -> Session:
        """Begin; `batch_size` is how many requests are under way at once, the backend's preference without it."""
        ...


@runtime_checkable
class StreamingBackend(Backend, Protocol):
    """A backend that hands out its text while it writes."""

    def stream(self, request: Request) -> Generator[str, None, Reply]:
        """Pieces of the text in order; together they are the returned reply's text."""
        ...


def error_reply(error: Exception) -> Reply:
    """The reply of a request that failed."""
    if not isinstance(error, ZoomIQAError):
        error = BackendFailed(f"the backend raised {type(error).__name__}", str(error), "see the backend's own log")
    return Reply("", finish_reason="error", error=error.to_dict())
