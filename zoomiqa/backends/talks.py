"""Many talks over one session: each asks again as soon as it is answered, results leave in order.

A talk is a generator that yields a `Request`, is sent a `Reply`, and returns its result. It must not know what is
talked about.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import count
from typing import TypeVar

from zoomiqa.backends.base import Session
from zoomiqa.types import Reply, Request

HELD_PER_SLOT = 8
"""Results that may wait for a slower one before them, per request under way: what `held` usually is."""

T = TypeVar("T")


def hold_talks(session: Session, talks: Iterable[Generator[Request, Reply, T]], *, held: int) -> Iterator[T]:
    """The results of the talks, in their order; the session is closed at the end.

    Args:
        session: What answers.
        talks: Taken only as fast as there is room. One may return without asking.
        held: Results that may wait for a slower one before them, until no more talks are taken.
    """
    under_way: dict[int, tuple[int, Generator[Request, Reply, T]]] = {}
    done: dict[int, T] = {}
    tickets = count()

    def go_on(order: int, talk: Generator[Request, Reply, T], reply: Reply | None) -> None:
        try:
            request = next(talk) if reply is None else talk.send(reply)
        except StopIteration as stop:
            done[order] = stop.value
            return
        ticket = next(tickets)
        under_way[ticket] = order, talk
        session.submit(ticket, request)

    source, next_out, is_exhausted = enumerate(talks), 0, False
    try:
        while under_way or not is_exhausted:
            while not is_exhausted and next_out not in done and session.room > 0 and len(done) < held:
                begun = next(source, None)
                if begun is None:
                    is_exhausted = True
                else:
                    go_on(*begun, None)
            if under_way:
                for ticket, reply in session.collect():
                    go_on(*under_way.pop(ticket), reply)
            while next_out in done:
                yield done.pop(next_out)
                next_out += 1
    finally:
        session.close()
