"""What the two filters share: records in, the same records with one more decision out, many asked about at once.

It must not know what a filter decides by.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from zoomiqa.backends.base import Backend
from zoomiqa.backends.session import open_session
from zoomiqa.backends.talks import HELD_PER_SLOT, hold_talks
from zoomiqa.errors import ZoomIQAError
from zoomiqa.imaging import Picture, picture_from_array
from zoomiqa.types import ImagePart, Message, Reply, Request, Sampling, TextPart

from .trajectories import Decision, PictureFolder, decision_of, failure, is_kept, with_decision

Talk = Generator[Request, Reply, Decision]
Decide = Callable[[Mapping[str, Any], Picture], Talk]


def decide_all(
    backend: Backend, records: Sequence[Mapping[str, Any]], folder: PictureFolder, step: str, decide: Decide
) -> Iterator[dict[str, Any]]:
    """Every record in order; those that were kept so far with the decision of `step`.

    Args:
        backend: What is asked.
        records: Trajectories.
        folder: Where their pictures are.
        step: The filter's name.
        decide: From a record and its picture to a talk that ends in a decision; an error of ours is a failure.
    """

    def talk(record: Mapping[str, Any]) -> Generator[Request, Reply, dict[str, Any]]:
        if not is_kept(record):
            return dict(record)
        try:
            decision = yield from decide(record, folder.open(record))
        except ZoomIQAError as error:
            decision = failure(step, error.to_dict())
        except AskedInVain as vain:
            decision = failure(step, vain.error)
        return with_decision(record, decision)

    held = HELD_PER_SLOT * backend.capabilities.batch_size
    yield from hold_talks(open_session(backend), (talk(record) for record in records), held=held)


def carried_over(record: Mapping[str, Any], earlier: Mapping[str, Any], step: str) -> dict[str, Any] | None:
    """What `decide_all` would make of a record, from what `step` decided before; `None` where it has to decide now.

    Args:
        record: As the steps before have it now: their verdicts may have changed meanwhile.
        earlier: The record of the same id that this step wrote.
        step: Its name. A decision holds as long as everything but verdicts is as it was.
    """
    if not is_kept(record):
        return dict(record)
    decision = decision_of(earlier, step)
    if decision is None or {**earlier, "curation": ()} != {**record, "curation": ()}:
        return None
    return with_decision(record, decision)


def with_picture(picture: Picture, text: str, sampling: Sampling) -> Request:
    """A question about a whole picture."""
    return Request(picture, (Message("user", (TextPart(text), ImagePart())),), sampling)


def text_only(text: str, sampling: Sampling) -> Request:
    """The same without a picture. Backends want a decoded subject: it is one black pixel, of nothing, and not shown."""
    nothing = picture_from_array(np.zeros((1, 1, 3), np.uint8))
    return Request(nothing, (Message("user", (TextPart(text),)),), sampling)


def answered(reply: Reply) -> str:
    """The reply's text.

    Raises:
        AskedInVain: the backend failed.
    """
    if reply.finish_reason == "error" or reply.error:
        raise AskedInVain(reply.error or {"code": "ZIQ-401", "type": "BackendFailed", "message": "the backend failed"})
    return reply.text


class AskedInVain(Exception):  # noqa: N818 - it is a failed reply on its way to becoming a value
    """A request came back as an error."""

    def __init__(self, error: Mapping[str, str]) -> None:
        super().__init__(error["message"])
        self.error = error
