"""A limit on how many requests begin per minute, around any backend. It must not know what is asked.

Servers with quotas count requests; a bound on requests under way (`--concurrency`) does not hold such a quota. Attempts
that a backend repeats by itself are not counted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from zoomiqa.backends.base import Backend, Capabilities, Session
from zoomiqa.backends.session import answer_all, open_session
from zoomiqa.errors import OptionInvalid
from zoomiqa.types import Reply, Request


class PacedBackend:
    """Asks another backend, at most so often.

    Args:
        backend: What answers.
        per_minute: Requests that may begin per minute; they are spread evenly.
        clock, sleep: Seconds that go by, and how to let them.

    Raises:
        OptionInvalid: a rate that is no number above 0.
    """

    def __init__(
        self,
        backend: Backend,
        per_minute: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not 0 < per_minute < math.inf:
            raise OptionInvalid(
                "a rate must be a number of requests per minute above 0", per_minute, "60 is one a second"
            )
        self._backend, self._gap, self._clock, self._sleep = backend, 60.0 / per_minute, clock, sleep
        self._next = -math.inf

    @property
    def capabilities(self) -> Capabilities:
        return self._backend.capabilities

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        return answer_all(self.open_session(), requests)

    def open_session(self, batch_size: int | None = None) -> Session:
        return _PacedSession(self, open_session(self._backend, batch_size))

    def wait(self) -> None:
        """Return when the next request may begin."""
        now = self._clock()
        if now < self._next:
            self._sleep(self._next - now)
            now = self._next
        self._next = now + self._gap


class _PacedSession:
    """A session that waits before each request."""

    def __init__(self, pace: PacedBackend, session: Session) -> None:
        self._pace, self._session = pace, session

    @property
    def room(self) -> int:
        return self._session.room

    def submit(self, ticket: int, request: Request) -> None:
        self._pace.wait()
        self._session.submit(ticket, request)

    def collect(self) -> list[tuple[int, Reply]]:
        return self._session.collect()

    def close(self) -> None:
        self._session.close()
